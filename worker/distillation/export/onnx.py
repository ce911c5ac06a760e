"""The student as an ONNX graph, published only if onnxruntime computes the same outputs with it."""

import contextlib
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.compression.integer_form import in_integers, integer_form, rounds_activations
from worker.distillation.compression.learned_rounding import with_fixed_rounding
from worker.distillation.compression.plain import plain
from worker.distillation.compression.storage import forget
from worker.distillation.contract import InputContract
from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable, random_images
from worker.distillation.task import Task

CHECKED_BATCHES = (1, 3)
COMPARED_IMAGES = 64
INTEGER_AGREEMENT, INTEGER_DIFFERENCE = 0.99, 5e-2
"""Least agreement and largest relative difference of a file in integers."""
LEAST_RUNS, RUNS_IN_A_ROW, RUNS_AT_MOST, SECONDS_AT_MOST = 20, 20, 1000, 2.0
LARGEST_BYTES = 2**31 - 2**20
"""An ONNX file is a protocol buffer, which cannot be larger than 2 GiB."""
HINT = "Remove `onnx` from `exports`, or choose another student."


class ExportFailed(EngineError):
    """The student cannot be exported, or the file computes something else."""

    code = "export_failed"


def write(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the graph: input `image` (batch, C, H, W), output (batch, classes) with the card's name, any batch size.

    A student with `int8` is written in integers, with QuantizeLinear and DequantizeLinear. Returns the version of ONNX's operators,
    `opset`; for a file that rounds activations also what `compare_integers` measures.

    Raises:
        ExportFailed: the network cannot be converted, or `verify` or `compare_integers` finds a difference.
    """
    opset, network = write_graph(student, card, path), portable(student)
    if rounds_activations(network):
        return {"opset": opset, **compare_integers(path, network, card)}
    verify(path, plain(network), card.contract, card.task)
    return {"opset": opset}


def write_graph(student: nn.Module, card: Card, path: Path) -> int:
    """Write the graph of a finished student without running the file, in integers if its activations have 8 bits; gives the graph's
    opset.

    Raises:
        ExportFailed: the network is too large or cannot be converted.
    """
    network = portable(student)
    if in_integers(network):
        return write_unchecked(integer_form(network), replace(card, precision="int8"), path)
    if rounds_activations(network):
        return write_unchecked(with_fixed_rounding(forget(network)), card, path)
    return write_unchecked(plain(network), card, path)


def write_unchecked(network: nn.Module, card: Card, path: Path, one_image: bool = False) -> int:
    """Write the graph of a network (on the CPU, in eval mode) without running the file; gives the graph's opset. With `one_image`, the
    graph reads batches of one image only.

    Raises:
        ExportFailed: the network is too large or cannot be converted.
    """
    import onnx

    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST_BYTES:
        raise ExportFailed("the student is too large for one ONNX file (2 GiB)", HINT)
    graph = _convert(network, card, one_image)
    _remove_source_paths(graph)
    onnx.helper.set_model_props(graph, card.texts())
    onnx.save(graph, path)
    return next(each.version for each in graph.opset_import if each.domain in ("", "ai.onnx"))


def run(path: Path, image: torch.Tensor) -> torch.Tensor:
    """The output of a file for images, computed by onnxruntime on the CPU.

    Raises:
        ExportFailed: the file is not a valid graph.
    """
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
        (output,) = _session(path).run(None, {"image": image.numpy()})
    except _invalid_file_errors() as error:
        raise ExportFailed(f"the ONNX file cannot be run: {_first_line(error)}", HINT) from error
    return torch.from_numpy(output)


def _session(path: Path, threads: int | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def verify(path: Path, network: nn.Module, contract: InputContract, task: str = "classification") -> None:
    """Check that a file computes the same as a network (on the CPU, in eval mode), for random images in batches of 1 and 3, as the
    task of this name compares outputs.

    Raises:
        ExportFailed: the file is not a valid graph, or its outputs differ by more than the tolerance.
    """
    import onnx

    try:
        onnx.checker.check_model(path, full_check=True)
        session = _session(path)
        for count in CHECKED_BATCHES:
            image = random_images(contract, count, seed=count)
            (output,) = session.run(None, {"image": image.numpy()})
            _compare(torch.from_numpy(output), _output(network, image), registry.find("tasks", task)())
    except _invalid_file_errors() as error:
        raise ExportFailed(f"the ONNX file cannot be run: {_first_line(error)}", HINT) from error


def compare_integers(path: Path, network: nn.Module, card: Card) -> dict[str, Any]:
    """How a file in integers differs from the student that rounds its weights and activations in float32.

    `relative_difference` is the L2 norm of the difference of the outputs, divided by that of the outputs. For the task
    `classification`, `agreement` is the share of `images` for which the same class is chosen.

    Raises:
        ExportFailed: the file is no valid graph, less than 99 % of the classes agree, or the outputs differ by more than 5 %.
    """
    images = random_images(card.contract, COMPARED_IMAGES) if card.sample is None else card.sample.cpu()
    expected, given = _output(network, images), run(path, images)
    difference = float((given - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float32).tiny))
    measured: dict[str, Any] = {"images": len(images), "relative_difference": difference}
    if card.task == "classification":
        measured["agreement"] = float((given.argmax(1) == expected.argmax(1)).double().mean())
    if not (difference <= INTEGER_DIFFERENCE and measured.get("agreement", 1.0) >= INTEGER_AGREEMENT):
        found = (
            f"their outputs differ by {difference:.2g}, and {measured.get('agreement', 1.0):.1%} of the classes agree"
        )
        raise ExportFailed(f"the ONNX file computes something else than the student: {found}", HINT)
    return measured


def latency_of(
    paths: Sequence[Path],
    contract: InputContract,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = SECONDS_AT_MOST,
) -> list[float]:
    """Median milliseconds for one batch in onnxruntime on the CPU, of several files that take turns; `seconds` each, but at least 20
    runs."""
    image = random_images(contract, batch).numpy()
    sessions = [_session(path, threads) for path in paths]
    took: list[list[float]] = [[] for _ in paths]
    end = time.perf_counter() + seconds * len(paths)
    while len(took[0]) < RUNS_AT_MOST and (len(took[0]) < LEAST_RUNS or time.perf_counter() < end):
        for session, own in zip(sessions, took, strict=True):
            for _ in range(RUNS_IN_A_ROW):
                began = time.perf_counter()
                session.run(None, {"image": image})
                own.append(time.perf_counter() - began)
    return [statistics.median(own) * 1000 for own in took]


class OnnxNetwork:
    """A file as a function of images (B, C, H, W), for a task's evaluation."""

    def __init__(self, path: Path):
        self._run = _session(path)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        (output,) = self._run.run(None, {"image": image.cpu().numpy()})
        return torch.from_numpy(output).to(image.device)


def _compare(given: torch.Tensor, expected: torch.Tensor, task: Task) -> None:
    if wrong := task.compare_export(expected, given):
        raise ExportFailed(f"the ONNX file's outputs {wrong}", HINT)


def _output(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(image)


def _convert(network: nn.Module, card: Card, one_image: bool) -> Any:
    """The graph as an ONNX ModelProto."""
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                (random_images(card.contract, 1 if one_image else 2),),
                dynamo=True,
                input_names=["image"],
                output_names=[card.output],
                dynamic_shapes=None if one_image else ({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            return program.model_proto
    except (
        torch.onnx.errors.OnnxExporterError,
        torch._dynamo.exc.TorchDynamoException,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        raise ExportFailed(f"the student cannot be converted to ONNX: {_first_line(error)}", HINT) from error


def _remove_source_paths(graph: Any) -> None:
    """Remove the exporter's metadata with the source file and line of each operation."""
    for part in (graph, graph.graph, *graph.functions):
        del part.metadata_props[:]
        for node in getattr(part, "node", ()):
            del node.metadata_props[:]
            node.ClearField("doc_string")
        for value in getattr(part, "value_info", ()):
            del value.metadata_props[:]
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A context in which the exporter's prints go to standard error and its warnings are dropped."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _invalid_file_errors() -> tuple[type[Exception], ...]:
    """The exceptions of onnx and onnxruntime on invalid files."""
    from onnx.checker import ValidationError
    from onnx.shape_inference import InferenceError
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    found = (getattr(states, name, None) for name in names)
    return (ValidationError, InferenceError, ValueError, *(each for each in found if each is not None))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
