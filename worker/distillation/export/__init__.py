"""Exports: a student as files that can be used without this project, each checked before it is published.

Belongs here: one file for each format, and measuring the exported network. Does not: the report (`reporting/`). May
import `contract.py` and `errors.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.export import detections, half, huffman, onnx, packed, program, safetensors
from worker.distillation.export.card import Card
from worker.distillation.networks.detectors.detector import Detector


def _onnx(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the ONNX file of a network, which for detectors is another graph."""
    return (detections if isinstance(student, Detector) else onnx).write(student, card, path)


Writer = Callable[[nn.Module, Card, Path], Mapping[str, Any] | None]
WRITERS: Mapping[str, Writer] = {
    "safetensors": safetensors.write,
    "onnx": _onnx,
    "program": program.write,
    "safetensors_fp16": half.write_safetensors,
    "onnx_fp16": half.write_onnx,
    "packed": packed.write,
    "huffman": huffman.write,
}
"""What writes each format; it may return measurements of the file."""
ENDINGS: Mapping[str, str] = {
    "program": "program.safetensors",
    "safetensors_fp16": "fp16.safetensors",
    "onnx_fp16": "fp16.onnx",
    "packed": "packed.safetensors",
}
"""The end of a file's name, where it is not the format's name."""
DEFAULT_FORMATS = ("safetensors", "onnx")


def export(
    student: nn.Module,
    *,
    contract: InputContract,
    class_names: Sequence[str],
    formats: Sequence[str],
    folder: Path,
    meta: Mapping[str, Any],
    stem: str = "student",
) -> list[dict[str, Any]]:
    """Write `STEM.ENDING` to the folder for each format (see `ENDINGS`); the student is not changed.

    `meta` contains `network` and `options`, from which the student can be built, its `task`, and `output`, the name of its
    output; optional are `added_by` (the objectives that added modules to it), `initial_weights` (a description) and `sample` (see `Card`). Returns
    `name`, `path` and `content_type` of each file, and in `measured` what its writer measured, such as `opset`.

    Raises:
        SpecError: there is no such format.
        EngineError: the student cannot be exported, or the file computes something else than the student.
    """
    unknown = [index for index, name in enumerate(formats) if name not in WRITERS]
    if unknown:
        message = f"is not a supported format; choose from {', '.join(WRITERS)}"
        raise SpecError([Problem(f"/exports/{index}", message) for index in unknown])
    card = card_of(contract, class_names, meta)
    return [
        _write(student, card, name, folder / f"{stem}.{ENDINGS.get(name, name)}") for name in dict.fromkeys(formats)
    ]


def card_of(contract: InputContract, class_names: Sequence[str], meta: Mapping[str, Any]) -> Card:
    """The card of an exported file; see `export` for `meta`."""
    return Card(
        meta["network"],
        dict(meta.get("options") or {}),
        tuple(class_names),
        contract,
        meta["task"],
        meta["output"],
        tuple(meta.get("added_by") or ()),
        meta.get("initial_weights", ""),
        sample=meta.get("sample"),
    )


def _write(student: nn.Module, card: Card, name: str, path: Path) -> dict[str, Any]:
    partial = path.with_name(f"{path.name}.partial")
    try:
        measured = WRITERS[name](student, card, partial)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    file = {"name": path.name, "path": path, "content_type": "application/octet-stream"}
    return file | ({"measured": dict(measured)} if measured else {})
