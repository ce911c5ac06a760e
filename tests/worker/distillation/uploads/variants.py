"""Checkpoints in the many forms that people save: what inspection says of each without being given a network.

`tables` has the table of section "Checkpoints" of docs/inputs.md; a test compares them.
"""

import argparse
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.uploads.inspect_upload import inspect

COLUMNS = ("file", "inspection without `network`")
GREY = {"channels": 1, "height": 28, "width": 28, "mean": [0.5], "std": [0.25]}
RGB = {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
State = dict[str, Tensor]
Save = Callable[[Path], object]
LONGEST = 170


@dataclass(frozen=True)
class Variant:
    """A file: `save` writes it to a path; `network` is the one that is to be found, None if there is none."""

    title: str
    save: Save
    network: str | None = "lenet5"
    contract: Mapping[str, Any] = None  # type: ignore[assignment]  # set by the functions below


def _network(name: str, contract: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> nn.Module:
    torch.manual_seed(0)
    return networks.build(name, 10, InputContract(**contract), dict(options or {}))


def _of(title: str, change: Callable[[State], Any], network: str | None = "lenet5") -> Variant:
    """A file of torch.save with LeNet-5 in it."""
    return Variant(title, lambda path: torch.save(change(_network("lenet5", GREY).state_dict()), path), network, GREY)


def _containers() -> Iterator[Variant]:
    def state() -> State:
        return _network("lenet5", GREY).state_dict()

    def arrays() -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in state().items()}

    def packed(path: Path, write: Callable[[Path, Path], None]) -> None:
        inner = path.with_name("weights.pth")
        torch.save(state(), inner)
        write(path, inner)

    def as_zip(path: Path, inner: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "weights.pth")

    def as_tar(path: Path, inner: Path) -> None:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(inner, "weights.pth")

    def numpy_file(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays())

    forms: dict[str, Save] = {
        "`torch.save(network.state_dict())`": lambda path: torch.save(state(), path),
        "the same before torch 1.6": lambda path: torch.save(state(), path, _use_new_zipfile_serialization=False),
        "`torch.save(network)`, a whole network": lambda path: torch.save(_network("lenet5", GREY), path),
        "safetensors": lambda path: save_file(state(), path),
        "npz with an array a tensor": numpy_file,
        "`pickle.dump` of NumPy arrays by name": lambda path: path.write_bytes(pickle.dumps(arrays())),
        "zip of one checkpoint": lambda path: packed(path, as_zip),
        "tar.gz of one checkpoint": lambda path: packed(path, as_tar),
    }
    yield from (Variant(title, save, "lenet5", GREY) for title, save in forms.items())


def _wrappers() -> Iterator[Variant]:
    ema = {"decay": 0.999}
    yield _of('`{"state_dict": …}`', lambda state: {"state_dict": state})
    yield _of('`{"model": …, "optimizer": …, "epoch": 3}`', lambda state: {"model": state, "optimizer": {}, "epoch": 3})
    yield _of('`{"net": …, "acc": 91.2}`', lambda state: {"net": state, "acc": 91.2})
    yield _of('`{"model_state_dict": …, "loss": …}`', lambda state: {"model_state_dict": state, "loss": 0.1})
    yield _of('`{"model": {"state_dict": …}}`', lambda state: {"model": {"state_dict": state}})
    yield _of('`{"model": …, "best_acc": tensor}`', lambda state: {"model": state, "best_acc": torch.tensor(91.0)})
    yield _of(
        '`{"state_dict": …, "args": Namespace(…)}`',
        lambda state: {"state_dict": state, "args": argparse.Namespace(a=1)},
    )
    yield _of('`{"state_dict_ema": …}`', lambda state: {"state_dict_ema": state} | ema)
    yield _of(
        "raw and averaged weights", lambda state: {"model": state, "model_ema": {k: v + 1 for k, v in state.items()}}
    )
    yield _of("weights beside a NumPy scalar", lambda state: {"model": state, "accuracy": np.float64(0.99)})


def _prefixes() -> Iterator[Variant]:
    for prefix in ("module.", "model.", "_orig_mod.", "backbone.", "net.module.", "architecture.backbone.", "1."):
        yield _of(
            f"prefix `{prefix}`", lambda state, prefix=prefix: {f"{prefix}{name}": each for name, each in state.items()}
        )
    yield _of(
        "`model.` and a `criterion.weight`",
        lambda state: {f"model.{name}": each for name, each in state.items()} | {"criterion.weight": torch.ones(10)},
    )
    yield _of(
        "`Sequential(Normalize, network)` with its `mean` and `std`",
        lambda state: (
            {f"1.{name}": each for name, each in state.items()}
            | {"0.mean": torch.tensor([0.1307]), "0.std": torch.tensor([0.3081])}
        ),
    )


def _foldings() -> Iterator[Variant]:
    def pruned(state: State) -> State:
        weight = state.pop("fc1.weight")
        return state | {"fc1.weight_orig": weight, "fc1.weight_mask": (weight > 0).float()}

    def normalised(state: State) -> State:
        weight = state.pop("fc1.weight")
        return state | {"fc1.weight_g": weight.norm(dim=1, keepdim=True), "fc1.weight_v": weight}

    def counted(state: State) -> State:
        return state | {"total_ops": torch.zeros(1), "fc1.total_params": torch.zeros(1)}

    yield _of("pruned: `weight_orig` and `weight_mask`", pruned)
    yield _of("`weight_norm`: `weight_g` and `weight_v`", normalised)
    yield _of("counters of thop", counted)
    yield _of("float16", lambda state: {name: each.half() for name, each in state.items()})
    yield _of(
        "whole numbers of 8 bits", lambda state: {name: each.to(torch.int8) for name, each in state.items()}, None
    )
    yield _of("one layer is missing", lambda state: {k: v for k, v in state.items() if not k.startswith("fc1")}, None)
    yield _of("a wider second layer", lambda state: state | {"conv2.weight": torch.zeros(17, 6, 5, 5)}, None)


def renumbered(state: State) -> State:
    """The same tensors, their layers called `layer_0`, `layer_1`, and so on."""
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {f"layer_{paths.index(name.rpartition('.')[0])}.{name.rpartition('.')[2]}": state[name] for name in state}


def _renamings() -> Iterator[Variant]:
    yield _of("layers with other names", renumbered)
    yield _of("the same in safetensors' order of names", lambda state: dict(sorted(renumbered(state).items())))
    yield _of(
        "other names, and a linear third layer",
        lambda state: renumbered(state | {"conv3.weight": state["conv3.weight"].flatten(1)}),
    )
    yield _of("each tensor under two names", lambda state: state | {f"again.{k}": v for k, v in state.items()})


FAMILIES: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    ("lenet", {"first": 6, "second": 16, "third": 120, "hidden": 84, "padding": 2}, GREY),
    ("lenet", {"first": 6, "second": 16, "third": 120, "hidden": 84, "third_linear": True}, RGB),
    ("mlp", {"hidden": [128, 64]}, GREY),
    ("mlp", {"hidden": [128], "bias": False}, GREY),
    ("resnet8_cifar", {}, RGB),
    ("resnet_cifar", {"depth": 20, "width": 8}, RGB),
    ("resnet_cifar", {"depth": 20, "shortcut": "padded"}, RGB),
    ("wrn_cifar", {"depth": 10, "factor": 2}, RGB),
    ("vgg_cifar", {"depth": 11, "width": 8, "batch_norm": False}, RGB),
    ("vgg_features", {"depth": 11, "width": 8}, RGB),
    ("vgg_features", {"depth": 13, "width": 8, "hidden": 32}, RGB),
    ("resnet18_cifar", {"width": 8}, RGB),
    ("resnet50_cifar", {"width": 4}, RGB),
    ("preact_resnet18_cifar", {"width": 8}, RGB),
    ("mobilenet_cifar", {}, RGB),
    ("mobilenetv2_cifar", {}, RGB),
    ("shufflenetv2_cifar", {"widths": [48, 96, 192]}, RGB),
    ("densenet_cifar", {"blocks": [2, 2, 2, 2]}, RGB),
    ("repvgg_cifar", {"blocks": [1, 2, 2, 1], "widths": [8, 8, 16, 32, 64]}, RGB),
    ("preact_resnet18_cifar100", {"width": 8}, RGB),
    ("shufflenetv2_cifar100", {"widths": [48, 96, 192]}, RGB),
    ("densenet_cifar100", {"blocks": [2, 2, 2, 2]}, RGB),
)
LIBRARIES = (
    ("torchvision/squeezenet1_1", {}),
    ("torchvision/resnet18", {}),
    ("torchvision/resnet18", {"stem": "cifar"}),
)


def _families() -> Iterator[Variant]:
    for name, options, contract in (*FAMILIES, *((name, options, RGB) for name, options in LIBRARIES)):
        said = f" with {', '.join(f'{key} {value}' for key, value in options.items())}" if options else ""
        for suffix, change in (("", dict), (", prefix `module.`", _in_parallel)):

            def save(
                path: Path,
                name: str = name,
                options: Mapping[str, Any] = options,
                contract: Mapping[str, Any] = contract,
                change: Callable[[State], State] = change,
            ) -> None:
                torch.save(change(_network(name, contract, options).state_dict()), path)

            yield Variant(f"`{name}`{said}{suffix}", save, name, contract)


def _heads() -> Iterator[Variant]:
    """Classifiers that people have wrapped or put beside the network, and strides that weights do not show."""

    def of(title: str, name: str, change: Callable[[State], State], found: str | None = None) -> Variant:
        return Variant(title, lambda path: torch.save(change(_network(name, RGB).state_dict()), path), found, RGB)

    def moved(old: str, new: str) -> Callable[[State], State]:
        return lambda state: {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in state.items()}

    def behind(state: State) -> State:
        return {name if name.startswith("fc.") else f"backbone.{name}": each for name, each in state.items()}

    def layered(state: State) -> State:
        features = state.pop("fc.weight").shape[1]
        del state["fc.bias"]
        head = nn.Sequential(nn.Linear(features, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 10))
        return state | {f"fc.{name}": each for name, each in head.state_dict().items()}

    def fastai(state: State) -> State:
        numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
        body = {
            f"0.{numbers[name.partition('.')[0]]}.{name.partition('.')[2]}": each
            for name, each in state.items()
            if name[:3] != "fc."
        }
        norms = {f"1.2.{name}": each for name, each in nn.BatchNorm1d(1024).state_dict().items()}
        norms |= {f"1.6.{name}": each for name, each in nn.BatchNorm1d(9).state_dict().items()}
        return body | norms | {"1.4.weight": torch.randn(9, 1024), "1.8.weight": torch.randn(10, 9)}

    small, mobile = "timm/test_resnet", "torchvision/mobilenet_v3_small"
    resnet = "torchvision/resnet18"
    yield of(f"`{small}`, `fc = Sequential(Dropout, Linear)`", small, moved("fc.", "fc.1."), small)
    yield of(f"`{small}` as `backbone`, with `fc` beside it", small, behind, small)
    yield of(
        f"`{mobile}`, `classifier[3] = Sequential(Dropout, Linear)`",
        mobile,
        moved("classifier.3.", "classifier.3.1."),
        mobile,
    )
    yield of(f"`{small}`, `fc = Sequential(Linear, ReLU, Dropout, Linear)`", small, layered, small)
    yield of(
        f"`{small}` as `student.`, and `resnet8_cifar` as `teacher.`",
        small,
        lambda state: (
            {f"student.{name}": each for name, each in state.items()}
            | {f"teacher.{name}": each for name, each in _network("resnet8_cifar", RGB).state_dict().items()}
        ),
        "resnet8_cifar",
    )
    yield of(f"`{resnet}` as fastai makes it, `0.0.weight` … `1.8.weight`", resnet, fastai, resnet)
    yield of("`torchvision/shufflenet_v2_x0_5`, images of 32 pixels", "torchvision/shufflenet_v2_x0_5", dict)


def _in_parallel(state: State) -> State:
    return {f"module.{name}": each for name, each in state.items()}


VARIANTS: tuple[Variant, ...] = (
    *_containers(), *_wrappers(), *_prefixes(), *_foldings(), *_renamings(), *_families(), *_heads(),
)  # fmt: skip


def inspected(variant: Variant) -> dict[str, Any] | str:
    """The findings of a variant, or the sentence that refuses it."""
    with tempfile.TemporaryDirectory() as place:
        variant.save(Path(place) / "upload")
        job = {"kind": "teacher", "upload": "upload", "teacher": {"input": variant.contract}}
        try:
            return inspect(job, Path(place))["findings"]
        except (UploadError, SpecError) as error:
            return str(error)


def row(variant: Variant, said: dict[str, Any] | str) -> tuple[str, str]:
    """The table's row of a variant."""
    if isinstance(said, str):
        words = f"refused: {said}"
    else:
        options = ", ".join(f"{name} {value}" for name, value in said["options"].items())
        words = f"`{said['network']}`{f' ({options})' if options else ''}"
        words += f"; {said['prefix_removed']} came off" if said["prefix_removed"] else ""
        words += "".join(f"; {each}" for each in said["warnings"])
    return variant.title, words if len(words) <= LONGEST else f"{words[:LONGEST]}…"


def tables() -> dict[str, list[tuple[str, str]]]:
    """The table of the documentation, by its heading."""
    return {"Forms of checkpoints": [COLUMNS, *(row(variant, inspected(variant)) for variant in VARIANTS)]}
