"""Inspection: an upload is read once, described, and written in the canonical form (docs/architecture.md)."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.unlabelled import suspicions
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.data.sample_sheet import images_of, write_samples
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.introspection.gradients import source_findings
from worker.distillation.introspection.taps import Tapped
from worker.distillation.introspection.tracing import any_output
from worker.distillation.limits import UploadLimits
from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.networks.reused_classifier import is_reused
from worker.distillation.parameters import EmbeddingsFile, ProgramFile, StatisticsFile, parse
from worker.distillation.programs import NETWORK
from worker.distillation.recovery.search import SECONDS
from worker.distillation.uploads import activation_statistics, class_embeddings, program_uploads
from worker.distillation.uploads.found_network import Said, parameters_of
from worker.distillation.uploads.key_matching import strip_prefixes
from worker.distillation.uploads.reading_findings import reading_of, reading_of_all
from worker.distillation.uploads.recognise import ASK, candidates_of, recognised, without_images
from worker.distillation.uploads.said_network import NoneFits, weights_of
from worker.distillation.uploads.state_dicts import largest, numbers_of, open_weights

CANONICAL = "output/canonical.safetensors"
SAMPLES = "output/samples.png"
PARTS = "parts"
LISTED_AT_MOST = 100
SHARED_AT_MOST = 4
"""Largest ratio of the elements of all names together to the elements of distinct tensors."""


def inspect(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Inspect the `upload` of a job file of kind `teacher`, `dataset` or `file`.

    Returns:
        `findings`, the `path` of the canonical form, its further files, `parts`: `path`, `sha256` and `size` of each, and of a dataset
        `samples`: the path of a sheet of images. Paths are relative to `folder`.

    Raises:
        UploadError: the upload is refused.
        SpecError: the user's description of the upload is invalid.
    """
    limits = UploadLimits.of(job.get("limits"))
    upload, canonical = folder / job["upload"], folder / CANONICAL
    canonical.parent.mkdir(exist_ok=True)
    findings = _INSPECTIONS[job["kind"]](job, upload, canonical, limits)
    parts = findings.pop(PARTS, [])
    limits.check_canonical(canonical.stat().st_size + sum(each["size"] for each in parts))
    samples = {"samples": SAMPLES} if "samples" in findings else {}
    return {"findings": findings, "path": CANONICAL, "parts": parts} | samples


def _teacher(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    if job["teacher"].get("network") == NETWORK:
        return program_uploads.teacher(job["teacher"], upload, canonical, limits)
    described, upload, recognition, doubts = _described(job, upload, canonical, limits)
    teacher = Said.of(described)
    with open_weights(upload, limits) as file:
        if any(is_reused(each.tensors) for each in file.candidates):
            words = (
                "the file contains a student with a projector and its teacher's classifier, as `similarity_head` ships"
            )
            raise UploadError(f"{words}, which cannot be a teacher", "Upload a student of other objectives.")
        try:
            found = weights_of(teacher, file.candidates, limits)
        except NoneFits as error:
            words = f"{error.message}. {candidates_of(file, described, limits)}"
            raise UploadError(words, f"{ASK} {error.hint}") from error
        how = reading_of(file, found.matched)
    how["warnings"] = [*doubts, *found.warnings, *how["warnings"]]
    network, contract = found.network, found.contract
    network.load_state_dict(found.matched.state)
    taps = _try(network.eval(), contract, found.classes)
    save_file(found.matched.state, canonical)
    return {
        "network": found.name,
        "options": found.options,
        "classes": found.classes,
        "class_names": teacher.class_names,
        "input": asdict(contract) | {"mean": list(contract.mean), "std": list(contract.std)},
        "proposals": [each.to_json() for each in found.proposals],
        "parameters": parameters_of(network),
        "bytes": canonical.stat().st_size,
        "taps": {tap: list(shape) for tap, shape in taps.map.shapes.items()},
        "stages": list(taps.map.stages),
        **source_findings(network, taps.example),
        **how,
        "warnings": [*how["warnings"], *suspicions(network, contract)],
        **recognition,
    }


def _described(
    job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits
) -> tuple[Mapping[str, Any], Path, dict[str, Any], tuple[str, ...]]:
    """The teacher as its user describes it or as labelled images tell, the file of its weights, the finding, and warnings."""
    said = job["teacher"]
    if not job.get("dataset"):
        if not said.get("input"):
            raise without_images(upload, said, limits)
        return said, upload, {}, ()
    seconds = float(job.get("recognition_seconds") or SECONDS)
    dataset = canonical.parent.parent / job["dataset"]
    found = recognised(said, upload, dataset, limits, canonical.parent, seconds)
    return found.described, found.upload, {"recognised": found.finding}, found.warnings


def _try(network: nn.Module, contract: InputContract, classes: int) -> Tapped:
    """Run the network on two random images and return its taps; refuse logits of a wrong shape, infinite logits and NaN."""
    image = torch.randn(
        2, contract.channels, contract.height, contract.width, generator=torch.Generator().manual_seed(0)
    )
    tapped = Tapped(network, image, check_output=any_output)
    with torch.no_grad():
        logits = tapped(image).logits
    detects = isinstance(network, Detector) and network.classes == classes
    if not detects and tuple(logits.shape) not in ((2, classes), (2, classes, contract.height, contract.width)):
        raise SpecError(
            [
                Problem(
                    "/network",
                    f"the network's output for two images has the shape {tuple(logits.shape)}, not (2, {classes})"
                    " or one such row for each pixel",
                )
            ]
        )
    if not bool(torch.isfinite(logits).all()):
        raise UploadError(
            "the network's output for random images is NaN or infinite",
            "Check that the file contains weights of a trained network.",
        )
    return tapped


def _dataset(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    options = parse(Options, job.get("options") or {}, "/options")
    packed = read_dataset(upload, options, replace(limits, output=canonical.parent))
    packed.write(canonical)
    shards = packed.photographs.shards if packed.photographs else []
    folder = Path(CANONICAL).parent
    allowed = {
        "images": limits.entries,
        "uncompressed_bytes": limits.inflated_bytes,
        "stored_bytes": limits.canonical_bytes,
    }
    parts = [{"path": str(folder / each.sha256), "sha256": each.sha256, "size": each.size} for each in shards]
    shown, path = images_of(packed, canonical.parent), canonical.parent.parent / SAMPLES
    sheet = write_samples(shown, packed.splits["train"][1], packed.labels, path)
    return packed.findings() | {"samples": sheet, "limits": allowed, PARTS: parts}


def _file(job: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    kind = (job.get("options") or {}).get("kind")
    if kind not in ("weights", *_FILES):
        known = ", ".join(f"`{name}`" for name in ("weights", *_FILES))
        raise SpecError([Problem("/kind", f"must be one of {known}, not {kind!r}")])
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
    """Refuse files in which many names share few tensors: the canonical form stores a tensor once per name."""
    distinct = sum({id(tensor): tensor.numel() for tensor in state.values()}.values())
    if sum(tensor.numel() for tensor in state.values()) > SHARED_AT_MOST * distinct + 2**20:
        words = f"the file's {len(state)} names share too few tensors"
        raise UploadError(words, "Save each tensor under one name.")


_FILES = {
    StatisticsFile.kind: _statistics,
    EmbeddingsFile.kind: _embeddings,
    ProgramFile.kind: program_uploads.student,
}
_INSPECTIONS = {"teacher": _teacher, "dataset": _dataset, "file": _file}
