"""What a student's transforms did, measured on the files that ship."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.compression.plain import plain
from worker.distillation.export import onnx
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable
from worker.distillation.procedure import Member
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.trainer.lineage import build_network

NOTE_ROUNDED = (
    "The student's metrics are those of the network that rounds weights and activations, as `student.onnx` does. "
    "`student.safetensors` and `student.py` compute with activations in float32."
)
NOTE_SLOWER = (
    "`student.onnx` takes {milliseconds:.3g} ms for one image, and the same network in float32 {float32:.3g} ms: integers do not make this "
    "network faster on this machine."
)


def transformed(
    student: nn.Module,
    network: nn.Module,
    member: Member,
    entries: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    measurement: Measurement,
    card: Card,
) -> dict[str, Any]:
    """`student` is the network that ships, `network` the member's own. Facts of each transform in `of`; bytes of the untransformed student in float32 and how many times smaller each file of
    weights is; and in `onnx` metrics and latency of the file.

    `milliseconds` is the median for one image with one thread in onnxruntime, `float32_milliseconds` that of the same network
    without rounding, `float32_bytes` the size of its file.
    """
    with torch.device("meta"):
        before = build_network(member, measurement.job)
    whole = sum(tensor.nbytes for tensor in before.state_dict().values())
    weights = [file for file in files if str(file["name"]).endswith((".safetensors", ".onnx", ".huffman"))]
    found: dict[str, Any] = {
        "of": [_facts(entry, network) for entry in entries],
        "float32_student_bytes": whole,
        "times_smaller": {file["name"]: whole / Path(file["path"]).stat().st_size for file in weights},
    }
    path = next((Path(file["path"]) for file in files if file["name"] == "student.onnx"), None)
    if path is not None:
        found["onnx"] = _measured(path, student, measurement, card)
    return found


def _facts(entry: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    transform = registry.make("transforms", entry["spec"], "/transforms")
    return {"name": entry["spec"]["name"], **transform.report(network, entry["recipe"])}


def _measured(path: Path, student: nn.Module, measurement: Measurement, card: Card) -> dict[str, Any]:
    """Metrics and latency of the ONNX file, beside the same network in float32."""
    found: dict[str, Any] = {}
    if measurement.evaluation is not None:
        images = measurement.evaluation[0]
        file = onnx.OnnxNetwork(path)
        found["evaluation"] = measurement.job.task.evaluate(file, images, measurement.job.training.batch_size)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        other = Path(folder) / "float32.onnx"
        onnx.write_unchecked(portable(plain(student)), replace(card, sample=None), other)
        own, float32 = onnx.latency_of([path, other], card.contract)
        found |= {"milliseconds": own, "float32_milliseconds": float32, "float32_bytes": other.stat().st_size}
    return found | {"batch": 1, "threads": 1}


def notes_of(found: Mapping[str, Any]) -> list[str]:
    """Sentences for the report."""
    rounded = any("activation_bits" in each for each in found["of"])
    measured = found.get("onnx") or {}
    integers = any(each["name"] == "int8" for each in found["of"])
    slower = integers and measured and measured["milliseconds"] >= measured["float32_milliseconds"]
    notes = [NOTE_ROUNDED] if rounded else []
    if slower:
        notes.append(
            NOTE_SLOWER.format(milliseconds=measured["milliseconds"], float32=measured["float32_milliseconds"])
        )
    return notes
