"""Inspection: an upload is read once, described, and written in the canonical form (docs/architecture.md)."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.contract_check.unlabelled import suspicions
from worker.distillation.data import folders, npz
from worker.distillation.data.archive import BROKEN
from worker.distillation.data.packed import Options
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.introspection.gradients import gives_gradient
from worker.distillation.introspection.taps import Tapped
from worker.distillation.limits import UploadLimits
from worker.distillation.networks.reused_classifier import is_reused
from worker.distillation.parameters import EmbeddingsFile, StatisticsFile, parse
from worker.distillation.uploads import activation_statistics, class_embeddings
from worker.distillation.uploads.key_matching import fitting, match_any, strip_prefixes
from worker.distillation.uploads.reading_findings import reading_of, reading_of_all
from worker.distillation.uploads.recognise import recognised
from worker.distillation.uploads.state_dicts import largest, numbers_of, open_weights

CANONICAL = "output/canonical.safetensors"
LISTED_AT_MOST = 100
SHARED_AT_MOST = 4
"""How many times its distinct numbers a file of weights may hold under all names together."""


def inspect(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Inspect the `upload` of a job file of kind `teacher`, `dataset` or `file`.

    Returns:
        `findings`, and the `path` of the canonical form, relative to `folder`.

    Raises:
        UploadError: the upload is refused.
        SpecError: what the user said about it cannot be.
    """
    limits = UploadLimits.of(job.get("limits"))
    upload, canonical = folder / job["upload"], folder / CANONICAL
    canonical.parent.mkdir(exist_ok=True)
    findings = _INSPECTIONS[job["kind"]](job, upload, canonical, limits)
    return {"findings": findings, "path": CANONICAL}


def _teacher(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    said, more = job["teacher"], {}
    if said.get("network") is None:
        dataset = canonical.parent.parent / job["dataset"] if job.get("dataset") else None
        said, upload, found = recognised(said, upload, dataset, limits, canonical.parent)
        said, more = said | {"weights": "auto"}, {"recognised": found}
    contract, classes, options = read_contract(said["input"]), int(said["classes"]), dict(said.get("options") or {})
    name = said["network"]
    _check_said(said, classes, contract)
    with torch.device("meta"):
        parameters = _parameters(networks.build(name, classes, contract, options))
    if parameters > limits.parameters:
        raise SpecError(
            [Problem("/network", f"{name} has {parameters} parameters; at most {limits.parameters} are allowed")]
        )
    network = networks.build(name, classes, contract, options)

    def alternatives(state: Mapping[str, Any]) -> list[str]:
        return fitting(state, lambda other, count: networks.build(other, count, contract), networks.names(), classes)

    with open_weights(upload, limits) as file:
        if any(is_reused(each.tensors) for each in file.candidates):
            words = "the file holds a student with a projector and its teacher's classifier, as `similarity_head` ships"
            raise UploadError(
                f"{words}: no network of the catalogue is built so", "Upload a student of other objectives."
            )
        titled = f"`{name}` with {classes} classes"
        matched = match_any(file.candidates, network, titled, alternatives, str(said.get("weights") or "auto"))
        how = reading_of(file, matched)
    network.load_state_dict(matched.state)
    taps = _try(network.eval(), contract, classes)
    save_file(matched.state, canonical)
    return {
        "network": name,
        "options": options,
        "classes": classes,
        "class_names": list(said.get("class_names") or []),
        "input": dict(said["input"]),
        "parameters": parameters,
        "bytes": canonical.stat().st_size,
        "taps": {tap: list(shape) for tap, shape in taps.map.shapes.items()},
        "stages": list(taps.map.stages),
        "batch_norm": any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()),
        "differentiable": gives_gradient(network, taps.example),
        **how,
        "warnings": [*how["warnings"], *suspicions(network, contract)],
        **more,
    }


def _check_said(said: Mapping[str, Any], classes: int, contract: InputContract) -> None:
    names = said.get("class_names") or []
    if names and len(names) != classes:
        raise SpecError([Problem("/class_names", f"must name each of {classes} classes, not {len(names)}")])


def _try(network: nn.Module, contract: InputContract, classes: int) -> Tapped:
    """The network's taps, once it has given finite logits for two images."""
    image = torch.randn(
        2, contract.channels, contract.height, contract.width, generator=torch.Generator().manual_seed(0)
    )
    tapped = Tapped(network, image)
    with torch.no_grad():
        logits = tapped(image).logits
    if tuple(logits.shape) != (2, classes):
        raise SpecError(
            [
                Problem(
                    "/network",
                    f"the network answers two images with the shape {tuple(logits.shape)}, not (2, {classes})",
                )
            ]
        )
    if not bool(torch.isfinite(logits).all()):
        raise UploadError(
            "the network answers random images with NaN or infinite values",
            "Check that the weights are those of a trained network.",
        )
    return tapped


def _dataset(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    options = parse(Options, job.get("options") or {}, "/options")
    try:
        with zipfile.ZipFile(upload) as archive:
            arrays = any(name.endswith(".npy") for name in archive.namelist())
    except BROKEN as error:
        raise UploadError(
            f"the file is not a whole zip archive: {error}", "Send an npz file, or a zip of class folders."
        ) from error
    packed = (npz if arrays else folders).read(upload, options, limits)
    packed.write(canonical)
    return packed.findings()


def _file(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    kind = (job.get("options") or {}).get("kind")
    if kind not in ("weights", *_FILES):
        known = ", ".join(f"`{name}`" for name in ("weights", *_FILES))
        raise SpecError([Problem("/kind", f"files of the kind {kind!r} are not read; {known} are")])
    if kind == "weights":
        choice = str(job["options"].get("weights") or "auto")
        return {"kind": kind} | _weights(upload, canonical, limits, choice)
    return {"kind": kind} | _FILES[kind](upload, canonical, limits)


def _statistics(upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    statistics = activation_statistics.read(upload, limits)
    save_file(statistics.tensors(), canonical)
    return statistics.findings() | {"bytes": canonical.stat().st_size}


def _embeddings(upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    rows = class_embeddings.read(upload, limits)
    save_file({class_embeddings.KEY: rows}, canonical)
    return {"classes": len(rows), "size": rows.shape[1], "bytes": canonical.stat().st_size}


def _weights(upload: Path, canonical: Path, limits: UploadLimits, choice: str) -> dict[str, Any]:
    with open_weights(upload, limits) as file:
        candidate = largest(file.candidates, choice)
        read = strip_prefixes(numbers_of(candidate, limits))
        how = reading_of_all(file, candidate, next(iter(candidate.tensors)).removesuffix(next(iter(read))))
    _check_names(read)
    state = {name: tensor.contiguous().clone() for name, tensor in read.items()}
    save_file(state, canonical)
    return {
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "bytes": canonical.stat().st_size,
        "tensors": len(state),
        "shapes": {name: list(tensor.shape) for name, tensor in list(state.items())[:LISTED_AT_MOST]},
        **how,
    }


def _check_names(state: Mapping[str, Tensor]) -> None:
    """Refuse many names of few numbers: the canonical form holds them once for each name."""
    distinct = sum({id(tensor): tensor.numel() for tensor in state.values()}.values())
    if sum(tensor.numel() for tensor in state.values()) > SHARED_AT_MOST * distinct + 2**20:
        words = f"the file's {len(state)} names share so few tensors that each is meant many times"
        raise UploadError(words, "Save each tensor under one name.")


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


_FILES = {StatisticsFile.kind: _statistics, EmbeddingsFile.kind: _embeddings}
_INSPECTIONS = {"teacher": _teacher, "dataset": _dataset, "file": _file}
