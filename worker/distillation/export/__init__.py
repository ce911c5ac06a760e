"""Exports: a student as files that somebody can use without this project, each checked before it is published.

Belongs here: one file for each format, and what measures the exported file. Does not: the report (`reporting/`). May
import `contract.py` and `errors.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.export import onnx, program, safetensors
from worker.distillation.export.card import Card

WRITERS: Mapping[str, Callable[[nn.Module, Card, Path], None]] = {
    "safetensors": safetensors.write, "onnx": onnx.write, "program": program.write,
}  # fmt: skip


def export(
    student: nn.Module,
    contract: InputContract,
    class_names: Sequence[str],
    formats: Sequence[str],
    folder: Path,
    meta: Mapping[str, Any],
    stem: str = "student",
) -> list[dict[str, Any]]:
    """Write `STEM.FORMAT` (of a program `STEM.program.safetensors`) to the folder for each format; the student is left as it was found.

    `meta` holds `network` and `options`, by which the student is built, and perhaps `added_by`: the objectives that added
    to it what ships with it; `initial_weights` in words; and, of another task than classification, `task` and `output`.
    Gives `name`, `path` and `content_type` of each file.

    Raises:
        SpecError: there is no such format.
        EngineError: the student cannot be written so, or the file does not compute what the student does.
    """
    unknown = [index for index, name in enumerate(formats) if name not in WRITERS]
    if unknown:
        message = f"no such format; there are {', '.join(WRITERS)}"
        raise SpecError([Problem(f"/exports/{index}", message) for index in unknown])
    card = Card(
        meta["network"],
        dict(meta.get("options") or {}),
        tuple(class_names),
        contract,
        tuple(meta.get("added_by") or ()),
        **{name: meta[name] for name in ("task", "output", "initial_weights") if name in meta},
    )
    suffixes = {"program": "program.safetensors"}
    return [
        _write(student, card, name, folder / f"{stem}.{suffixes.get(name, name)}") for name in dict.fromkeys(formats)
    ]


def _write(student: nn.Module, card: Card, name: str, path: Path) -> dict[str, Any]:
    partial = path.with_name(f"{path.name}.partial")
    try:
        WRITERS[name](student, card, partial)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return {"name": path.name, "path": path, "content_type": "application/octet-stream"}
