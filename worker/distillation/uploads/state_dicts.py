"""Weights that strangers sent: what they are is decided by their content, and nothing in them is ever run.

Two containers are read: safetensors, and the zip file that `torch.save` writes (`torch_files.py`). What comes out is
checked again, since a small file can describe a huge tensor: only dense, finite tensors that fit their storage pass.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads import torch_files
from worker.distillation.uploads.key_matching import strip_prefixes
from worker.distillation.uploads.torch_files import SAVE_STATE_DICT

WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights", "params")
"""Keys under which people keep a state dict beside optimiser states and the like, in the order in which they are tried."""
DEEPEST = 16
NODES_AT_MOST = 1_000_000
PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.Size, torch.dtype, torch.device)
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Number formats that are read from safetensors, with their bytes."""


def read_state_dict(path: Path, limits: UploadLimits | None = None) -> dict[str, Tensor]:
    """The state dict in a file of weights: finite tensors on the CPU by name, half precision widened to float32.

    Prefixes that wrappers add to all names (`module.`, `model.`, `_orig_mod.`) are taken off. The tensors may still be
    mapped from the file, so it must outlive them.

    Raises:
        UploadError: the file is of no kind that is read, or holds anything but weights within the limits.
    """
    return strip_prefixes(read_tensors(path, limits))


def read_tensors(path: Path, limits: UploadLimits | None = None) -> dict[str, Tensor]:
    """As `read_state_dict`, with all names as they are in the file."""
    limits = limits or UploadLimits()
    state = _unwrap(_READERS[kind_of(path)](path, limits))
    if sum(tensor.numel() for tensor in state.values()) > limits.parameters:
        raise UploadError(f"the weights have more than {limits.parameters} numbers", "Upload a smaller network.")
    return {name: _checked(name, tensor) for name, tensor in state.items()}


def kind_of(path: Path) -> str:
    """`safetensors` or `torch`, by the file's first bytes.

    Raises:
        UploadError: it is neither; the sentence says what it seems to be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise UploadError("the file is empty", "Upload the file again.")
    if head.startswith(b"PK\x03\x04"):
        return "torch"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size:
        return "safetensors"
    if head[:1] == b"\x80":
        raise UploadError(
            "the file is a bare pickle or a checkpoint from before torch 1.6, which is not read", SAVE_STATE_DICT
        )
    seems = next((what for magic, what in _FOREIGN.items() if head.startswith(magic)), None)
    if seems is None:
        raise UploadError(
            "the file is neither safetensors nor a checkpoint written by `torch.save`, or it is cut short",
            SAVE_STATE_DICT,
        )
    raise UploadError(f"the file seems to be {seems}, which is not read", SAVE_STATE_DICT)


_FOREIGN = {
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed by gzip",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array",
    b"\x08": "an ONNX file",
}


def _read_safetensors(path: Path, limits: UploadLimits) -> dict[str, Tensor]:
    _check_header(path, limits)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UploadError(
            f"the safetensors file cannot be read: {error}", "Write it again with `safetensors.torch.save_file`."
        ) from error


def _check_header(path: Path, limits: UploadLimits) -> None:
    """See that a safetensors header has no name twice, and that every tensor's shape is as large as its bytes."""
    again = "Write it again with `safetensors.torch.save_file`."
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > limits.header_bytes:
            raise UploadError(
                f"the safetensors header has {length} bytes; at most {limits.header_bytes} are read", again
            )
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        sizes = {name: _header_bytes(entry) for name, entry in tensors.items()}
        spans = {name: int(entry["data_offsets"][1]) - int(entry["data_offsets"][0]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UploadError(f"the safetensors header is malformed: {str(error)[:200]}", again) from error
    if len(tensors) > limits.tensors:
        raise UploadError(
            f"the file holds {len(tensors)} tensors; at most {limits.tensors} are read", "Upload a smaller network."
        )
    wrong = next((name for name in sizes if sizes[name] != spans[name]), None)
    if wrong is not None:
        raise UploadError(f"the tensor {wrong[:100]!r} does not have the bytes that its shape asks for", again)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _header_bytes(entry: Mapping[str, Any]) -> int:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"numbers of type {entry['dtype']} are not read; save the weights as F32, F16 or BF16")
    if not all(type(length) is int and 0 <= length < 2**40 for length in entry["shape"]):
        raise ValueError("a shape is not a list of lengths")
    return math.prod(entry["shape"]) * DTYPES[entry["dtype"]]


def _read_torch(path: Path, limits: UploadLimits) -> Any:
    loaded = torch_files.load(path, limits)
    for tensor in _tensors(loaded):
        _check_storage(tensor)
    return loaded


_READERS = {"safetensors": _read_safetensors, "torch": _read_torch}


def _tensors(root: Any) -> Iterator[Tensor]:
    """Every tensor of nested plain data once.

    The walk remembers what it has seen, since a list that holds one list twice, 60 levels deep, has 2^60 paths.
    """
    seen: set[int] = set()
    level = [root]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for node in level:
            if id(node) in seen or isinstance(node, PLAIN):
                continue
            seen.add(id(node))
            if len(seen) > NODES_AT_MOST:
                raise UploadError("the checkpoint holds too many objects", SAVE_STATE_DICT)
            if isinstance(node, Tensor):
                yield node
            else:
                below.extend(_children(node))
        level = below
    if any(not isinstance(node, PLAIN) and id(node) not in seen for node in level):
        raise UploadError(f"the checkpoint is nested more than {DEEPEST} levels deep", SAVE_STATE_DICT)


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        if not all(isinstance(key, (str, int, float, bool, tuple)) for key in node):
            raise UploadError("the checkpoint holds a dictionary whose keys are not names", SAVE_STATE_DICT)
        return list(node.values())
    if type(node) in (list, tuple, set):
        return list(node)
    raise UploadError(f"the checkpoint holds a {type(node).__name__}, which is not plain data", SAVE_STATE_DICT)


def _check_storage(tensor: Tensor) -> None:
    """See that a tensor is dense and that its elements fit its storage; views that repeat elements do not."""
    if (
        type(tensor) not in (Tensor, nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.device.type != "cpu"
    ):
        raise UploadError(
            "the checkpoint holds a sparse, quantised or otherwise unusual tensor; only dense ones are read",
            SAVE_STATE_DICT,
        )
    reach = (
        tensor.storage_offset()
        + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
        + 1
    )
    if tensor.numel() and max(reach, tensor.numel()) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UploadError(
            f"a tensor of shape {tuple(tensor.shape)} claims more elements than the checkpoint stores", SAVE_STATE_DICT
        )


def _unwrap(loaded: Any) -> dict[str, Tensor]:
    """The state dict in what was loaded, which may lie under a few wrappers."""
    node = loaded
    for _ in range(4):
        if not isinstance(node, dict):
            break
        state = {key: value for key, value in node.items() if isinstance(value, Tensor) and isinstance(key, str)}
        if state:
            return state
        node = next((node[key] for key in WRAPPERS if isinstance(node.get(key), dict)), None)
    raise UploadError("the file holds no state dict", SAVE_STATE_DICT)


def _checked(name: str, tensor: Tensor) -> Tensor:
    if len(name) > 512 or not name.isprintable():
        raise UploadError(f"a tensor has the name {name[:80]!r}", SAVE_STATE_DICT)
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.element_size() < 2):
        raise UploadError(
            f"the tensor `{name}` holds numbers of type {tensor.dtype}; save the weights as float32 or half precision",
            SAVE_STATE_DICT,
        )
    tensor = tensor.detach()
    if not bool(torch.isfinite(tensor).all()):
        raise UploadError(
            f"the tensor `{name}` holds NaN or infinite values, so the network cannot work",
            "Upload a checkpoint from before training diverged.",
        )
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
