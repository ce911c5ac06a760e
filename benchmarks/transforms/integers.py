"""A ResNet-20 in integers: bytes, latency, and agreement with its float32 network, calibrated on real, synthesised and random images.

    python -m benchmarks.transforms.integers --npz PATH/cifar10.npz --weights PATH/resnet20.th

Rounds a trained network at the end (`int8` with `aware` false). `--weights` is a file of the network `resnet_cifar` with padded
shortcuts, read as an upload is. Calibration images are training images without augmentation, images that `fast_meta` makes from the
network alone, or noise, which the service refuses. Beside it: onnxruntime's `quantize_static` on the same real images, with the ranges of
its three methods. The test split measures; nothing is chosen on it. Writes `results/transforms/integers.json`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worker.distillation import networks, registry
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.export import card_of, onnx
from worker.distillation.export.portable import random_images
from worker.distillation.introspection.taps import Tapped
from worker.distillation.source import SourceContext
from worker.distillation.tasks.classification import accuracy
from worker.distillation.uploads.key_matching import match
from worker.distillation.uploads.state_dicts import read_state_dict

CONTRACT = InputContract(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGES, BATCH = 512, 256
RESULTS = Path(__file__).parents[2] / "results" / "transforms"
ORACLES = ("MinMax", "Entropy", "Percentile")
META = {"network": "resnet_cifar", "task": "classification", "output": "logits"}


def main() -> int:
    arguments = _arguments()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.npz, allow_pickle=False) as arrays:
        train, test = (images_of(arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test"))
    float32 = network(arguments.weights)
    card = card_of(CONTRACT, [str(number) for number in range(10)], META)
    plain = RESULTS / "resnet20.float32.onnx"
    onnx.write(float32, card, plain)  # which compares its outputs with the network's
    expected = logits(onnx.OnnxNetwork(plain), test)
    found: dict[str, Any] = {"float32": {"accuracy": float(accuracy(expected, test.label))}}
    kept = RESULTS / "integers.json"
    found |= json.loads(kept.read_text()) if kept.exists() else {}
    for name, images in calibrations(train, float32, arguments.seed).items():
        if name not in arguments.images:
            continue
        student = network(arguments.weights)
        context = TransformContext(
            example=CONTRACT.blank(torch.device("cpu")), contract=CONTRACT, classes=10, images=images
        )
        MemberTransforms([{"name": "int8", "aware": False, "images": IMAGES}], student, context).finalize(student)
        path = RESULTS / f"resnet20.{name}.onnx"
        onnx.write_graph(student.eval(), card, path)
        found[name] = measured(path, plain, expected, test)
        keep(kept, name, found)
    for method in ORACLES if "onnxruntime" in arguments.images else ():
        name = f"onnxruntime, {method}"
        path = RESULTS / f"resnet20.{method}.onnx"
        by_onnxruntime(plain, real_images(train, IMAGES), method, path)
        found[name] = measured(path, plain, expected, test)
        keep(kept, name, found)
    return 0


def measured(path: Path, plain: Path, expected: Tensor, test: Images) -> dict[str, Any]:
    """Accuracy, agreement with the float32 logits `expected`, bytes and latency of a file beside the float32 file."""
    given = logits(onnx.OnnxNetwork(path), test)
    own, other = onnx.latency_of([path, plain], CONTRACT)
    return {
        "accuracy": float(accuracy(given, test.label)),
        "agreement with float32": float((given.argmax(1) == expected.argmax(1)).double().mean()),
        "relative difference": float((given - expected).norm() / expected.norm()),
        "bytes": path.stat().st_size, "float32 bytes": plain.stat().st_size,
        "milliseconds": own, "float32 milliseconds": other, "times faster": other / own,
    }  # fmt: skip


def keep(path: Path, name: str, found: dict[str, Any]) -> None:
    print(name, json.dumps(found[name]), flush=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def by_onnxruntime(plain: Path, images: Tensor, method: str, path: Path) -> None:
    """The file that onnxruntime's own static quantisation makes of the float32 file, after its preprocessing."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(images.split(64))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"image": part.numpy()}

    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(str(plain), str(ready))
    quantize_static(
        str(ready), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, calibrate_method=getattr(CalibrationMethod, method),
    )  # fmt: skip


def network(path: Path) -> nn.Module:
    """The trained network."""
    made = networks.build("resnet_cifar", 10, CONTRACT, {"depth": 20, "shortcut": "padded"})
    state = {name.replace("linear.", "fc."): tensor for name, tensor in read_state_dict(path).items()}
    made.load_state_dict(match(state, made, "the network"))
    return made.eval()


def calibrations(train: Images, teacher: nn.Module, seed: int) -> dict[str, Callable[[int], Tensor]]:
    """What gives calibration images, by name."""

    return {
        "real": lambda count: real_images(train, count),
        "synthesised": lambda count: synthesised(teacher, count, seed),
        "noise": lambda count: random_images(CONTRACT, count, seed),
    }


def real_images(train: Images, count: int) -> Tensor:
    """Training images at even distances, normalised."""
    return train.normalise(train.image[torch.linspace(0, len(train) - 1, count).round().long()])


def synthesised(teacher: nn.Module, count: int, seed: int) -> Tensor:
    """Images of the source `fast_meta` with its defaults, made before the first step of a student."""
    source = registry.make("sources", {"name": "fast_meta"}, "/source")
    torch.manual_seed(seed)
    tapped = Tapped(teacher.requires_grad_(False), CONTRACT.blank(torch.device("cpu")))
    source.build(
        SourceContext(
            teacher=tapped, contract=CONTRACT, classes=10, dataset=None, batch_size=BATCH, total_steps=2400, sampler=None,
            fields=(), seed=seed, device=torch.device("cpu"), task="classification",
        )
    )  # fmt: skip
    for number in range(source.generator_steps(0)):
        source.generator_step(number, {})
    images: Tensor = source.calibration(count)
    return images


def logits(given: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    with torch.no_grad():
        return torch.cat([given(images.normalise(part)) for part in images.batches(BATCH)])


def images_of(image: np.ndarray, label: np.ndarray) -> Images:
    return Images.of(
        torch.from_numpy(image).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(label), tuple("0123456789"), CONTRACT
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transforms.integers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--npz", type=Path, required=True, help="CIFAR-10 as arrays")
    parser.add_argument("--weights", type=Path, required=True, help="a trained ResNet-20")
    parser.add_argument(
        "--images", nargs="+", default=["real", "synthesised", "noise", "onnxruntime"], help="what to calibrate on"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
