"""The student as an ONNX graph, published only once onnxruntime computes with it what the student does."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable, random_images

RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""An output may differ by `ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * (the largest output of the batch)`."""
CHECKED_BATCHES = (1, 3)
LARGEST_BYTES = 2**31 - 2**20
"""Protocol buffers, of which ONNX files are made, cannot be larger than 2 GiB."""
HINT = "Leave `onnx` out of `exports`, or choose another student."


class ExportFailed(EngineError):
    """The student cannot be exported, or the file computes something else."""

    code = "export_failed"


def write(student: nn.Module, card: Card, path: Path) -> None:
    """Write the graph: input `image` (batch, C, H, W), output (batch, classes) as the card calls it, any batch.

    Raises:
        ExportFailed: the exporter cannot translate the network, or `verify` finds a difference.
    """
    import onnx

    network = portable(student)
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > LARGEST_BYTES:
        raise ExportFailed("the student is too large for one ONNX file (2 GiB)", HINT)
    graph = _translate(network, card)
    _forget_sources(graph)
    onnx.helper.set_model_props(graph, card.texts())
    onnx.save(graph, path)
    verify(path, network, card.contract)


def verify(path: Path, network: nn.Module, contract: InputContract) -> None:
    """See that a file computes what a network (on the CPU, in eval mode) does, for random images in batches of 1 and 3.

    Raises:
        ExportFailed: the file is no valid graph, or its answers differ by more than the tolerance.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for count in CHECKED_BATCHES:
            image = random_images(contract, count, seed=count)
            (answer,) = session.run(None, {"image": image.numpy()})
            _compare(torch.from_numpy(answer), _answer(network, image))
    except _refusals() as error:
        raise ExportFailed(f"the ONNX file cannot be run: {_first_line(error)}", HINT) from error


def _compare(given: torch.Tensor, expected: torch.Tensor) -> None:
    if given.shape != expected.shape:
        raise ExportFailed(f"the ONNX file gives the shape {tuple(given.shape)}, not {tuple(expected.shape)}", HINT)
    allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(expected.abs().max())
    difference = float((given - expected).abs().max())
    if not difference <= allowed:
        raise ExportFailed(
            f"the ONNX file's answers differ from the student's by {difference:.2g}, more than {allowed:.2g}", HINT
        )


def _answer(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(image)


def _translate(network: nn.Module, card: Card) -> Any:
    """The graph as an ONNX ModelProto."""
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                network,
                (random_images(card.contract, 2),),
                dynamo=True,
                input_names=["image"],
                output_names=[card.output],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
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
        raise ExportFailed(f"the student cannot be translated to ONNX: {_first_line(error)}", HINT) from error


def _forget_sources(graph: Any) -> None:
    """Take out the exporter's notes of where in which file of this machine each operation was written."""
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
    """A context in which the exporter's chatter goes to standard error, and its advice nowhere."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refusals() -> tuple[type[Exception], ...]:
    """What onnx and onnxruntime raise on files that they do not accept."""
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
