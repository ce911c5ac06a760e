"""Metrics in the demo's table: measured on a network's ONNX file, with digits that were not used for training."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors import safe_open

LATENCY_RUNS = 300


@dataclass(frozen=True)
class Measured:
    """`accuracy` and `agreement` (with the teacher's predictions) from 0 to 1; `latency_ms` for one image on one thread."""

    accuracy: float
    agreement: float
    parameters: int
    bytes: int
    latency_ms: float


def predictions(onnx: Path, images: np.ndarray) -> np.ndarray:
    """Classes (N,) that an ONNX file predicts for normalised images (N, C, H, W)."""
    session = _session(onnx)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(logits).argmax(1)


def measure(onnx: Path, weights: Path, images: np.ndarray, labels: np.ndarray, teacher: np.ndarray) -> Measured:
    """Measure a network; `teacher` (N,) holds the teacher's predictions for the same images."""
    predicted = predictions(onnx, images)
    return Measured(
        accuracy=float((predicted == labels).mean()),
        agreement=float((predicted == teacher).mean()),
        parameters=_parameters(weights),
        bytes=onnx.stat().st_size,
        latency_ms=_latency_ms(onnx, images[:1]),
    )


def _parameters(weights: Path) -> int:
    with safe_open(weights, "numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118 - not a mapping


def _latency_ms(onnx: Path, image: np.ndarray) -> float:
    """The median over `LATENCY_RUNS` runs."""
    session = _session(onnx)
    name, seconds = session.get_inputs()[0].name, []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        session.run(None, {name: image})
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def _session(onnx: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
