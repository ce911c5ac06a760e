"""ONNX files as programs: read within bounds, translated operation by operation, and compared with onnxruntime.

Belongs here: everything that knows ONNX as an input. Does not: writing ONNX (`export/`). May import the rest of
`programs/`, and onnx and onnxruntime when a file is there to be read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from worker.distillation.contract import read_contract
from worker.distillation.limits import UploadLimits
from worker.distillation.programs.onnx.compare import compare
from worker.distillation.programs.onnx.folding import folded
from worker.distillation.programs.onnx.reading import read
from worker.distillation.programs.onnx.rules import RULES
from worker.distillation.programs.onnx.translation import Translator

__all__ = ["compare", "is_onnx", "program_of_onnx"]


def is_onnx(path: Path) -> bool:
    """Whether a file begins as an ONNX file does, with the version of its format, and as a safetensors file does not."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[:1] == b"\x08" and head[8:9] != b"{"


def program_of_onnx(
    path: Path, said: Mapping[str, Any], limits: UploadLimits
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program of an ONNX file and its tensors; `compare` says whether they compute the same.

    `said` holds what the file does not: `input` (the contract), `classes` and perhaps `class_names`.

    Raises:
        UploadError: the file is malformed or too large, holds something that is not read (external data, control flow,
            functions, custom operations), or operations without a translation.
    """
    graph = read(path, limits)
    return Translator(graph, read_contract(said["input"]), said, RULES, folded).program()
