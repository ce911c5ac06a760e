"""Reading an ONNX file: protocol buffers parsed, bounded and checked, without running anything."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

NODES, LARGEST_BYTES = 20_000, 2**31 - 2**20
OPSETS = (7, 26)
EXPORT_AGAIN = "Export the network again with `torch.onnx.export`, or pack it with `distillery pack`."
_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxGraph:
    """The graph, its opset, and its initializers as NumPy arrays by name."""

    graph: Any
    opset: int
    arrays: dict[str, Any]


def refuse(message: str, hint: str = EXPORT_AGAIN) -> UploadError:
    """The error of an ONNX file that is not read."""
    return UploadError(f"the ONNX file is refused: {message}", hint)


def read(path: Path, limits: UploadLimits) -> OnnxGraph:
    """The graph of a file.

    Raises:
        UploadError: see `program_of_onnx`.
    """
    import onnx

    if path.stat().st_size > LARGEST_BYTES:
        raise refuse(f"it has more than {LARGEST_BYTES} bytes")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:  # protocol buffers have an error of their own, which has no types
        raise refuse(f"it cannot be parsed: {str(error)[:200]}") from error
    _check_size(model, limits)
    _check_content(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise refuse(f"it is not a valid ONNX graph: {_first_line(error)}") from error
    opset = next((each.version for each in model.opset_import if each.domain in _DOMAINS), 0)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise refuse(f"it is of opset {opset}; {OPSETS[0]} to {OPSETS[1]} are read")
    return OnnxGraph(model.graph, opset, {each.name: _array(each) for each in model.graph.initializer})


def dims_of(value: Any) -> list[int | None]:
    """The lengths of a graph's input, None where the file does not say one."""
    dims = value.type.tensor_type.shape.dim
    return [each.dim_value if each.HasField("dim_value") else None for each in dims]


def is_channels_last(dims: Sequence[Any], contract: InputContract) -> bool:
    """Whether an input is of images (B, H, W, C), and cannot be (B, C, H, W)."""
    first = (contract.channels, contract.height, contract.width)
    last = (contract.height, contract.width, contract.channels)
    fits = [
        all(not isinstance(a, int) or a == b for a, b in zip(dims[1:], each, strict=False)) for each in (first, last)
    ]
    return len(dims) == 4 and fits == [False, True]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _check_size(model: Any, limits: UploadLimits) -> None:
    graph = model.graph
    if len(graph.node) > NODES:
        raise refuse(f"it has {len(graph.node)} nodes; at most {NODES} are read")
    if len(graph.initializer) > limits.tensors or len(graph.value_info) > 4 * NODES:
        raise refuse(f"it has {len(graph.initializer)} initializers; at most {limits.tensors} are read")
    if len(graph.input) > limits.tensors or any(len(each.input) + len(each.output) > 1024 for each in graph.node):
        raise refuse("it has too many inputs, or a node with more than 1024")


def _check_content(model: Any) -> None:
    """See that nothing is in it that cannot be translated: functions, subgraphs, custom operations, external data."""
    graph = model.graph
    if model.functions:
        raise refuse("it holds functions", "Inline them with `onnx.inliner.inline_local_functions`.")
    if graph.sparse_initializer or model.training_info:
        raise refuse("it holds sparse initializers or training information")
    foreign = sorted({f"{each.domain}.{each.op_type}"[:80] for each in graph.node if each.domain not in _DOMAINS})
    if foreign:
        raise refuse(f"it uses operations of other domains: {', '.join(foreign[:8])}")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise refuse(f"{node.op_type[:40]} holds a graph of its own: control flow is not read")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.ref_attr_name:
                raise refuse(f"{node.op_type[:40]} has a sparse attribute, or one of a function")
            for tensor in ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors):
                _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    """See that a tensor has its numbers with it, as many as its shape says."""
    import onnx

    name = re.sub(r"[^\w.:/-]", "?", tensor.name[:80])
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        words = f"the tensor {name!r} lies in another file"
        raise refuse(words, "Save it in one file: `onnx.save(model, path, save_as_external_data=False)`.")
    sizes = {"FLOAT": 4, "DOUBLE": 8, "FLOAT16": 2, "BFLOAT16": 2, "INT64": 8, "INT32": 4, "INT16": 2, "INT8": 1, "UINT8": 1,
             "BOOL": 1}  # fmt: skip
    kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in range(1, 27) else "UNDEFINED"
    if kind not in sizes:
        raise refuse(f"the tensor {name!r} holds numbers of type {kind}")
    count = 1
    for length in tensor.dims:
        if length < 0:
            raise refuse(f"the tensor {name!r} has a negative length")
        count *= length
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data)
    held = len(tensor.raw_data) // sizes[kind] if tensor.HasField("raw_data") else max(map(len, fields))
    if count != held or (tensor.HasField("raw_data") and len(tensor.raw_data) != count * sizes[kind]):
        raise refuse(f"the tensor {name!r} has {held} numbers and a shape of {count}")


def _array(tensor: Any) -> Any:
    import onnx

    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, RuntimeError) as error:
        raise refuse(f"a tensor cannot be read: {_first_line(error)}") from error
