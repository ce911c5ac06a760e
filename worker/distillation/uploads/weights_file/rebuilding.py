"""Replacements of calls in a pickle: tensors for torch's rebuilding functions, plain data for a few Python functions, and
inert objects for all others.

Names are compared with a fixed list; nothing is imported or looked up, so the list defines all possible results of calls.
"""

from collections.abc import Callable
from typing import Any

import torch

from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.inert import Global, Made, Storage
from worker.distillation.uploads.weights_file.leaves import (
    LEAVES,
    READABLE,
    Leaf,
    Span,
    Strided,
    Unreadable,
    lengths,
)
from worker.distillation.uploads.weights_file.numpy_arrays import array_of, bytes_of
from worker.distillation.uploads.weights_file.pickle_stack import Malformed, key_of

QUANTISED = "Load the float network, before `torch.ao.quantization.convert`, and save its `state_dict()`."
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Float8_e4m3fn": "float8_e4m3fn", "Float8_e5m2": "float8_e5m2",
}  # fmt: skip
"""Storage classes, without the suffix `Storage`, and their dtypes."""
_TENSOR_TYPES = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
_REFUSED = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_meta_tensor_no_storage": "on the meta device and has no values",
    "_rebuild_wrapper_subclass": "a subclass",
    "_rebuild_qtensor": "quantised",
}


def is_leaf(value: Any) -> bool:
    """Whether a value stands for a tensor."""
    return type(value) in LEAVES


class Rebuilding:
    """Replaces the calls of one file. `span_of(storage)` returns the range of a storage's bytes; `nested(bytes)` reads a
    storage that is pickled as a separate file within the pickle."""

    def __init__(self, budget: Budget, span_of: Callable[[Storage], Span], nested: Callable[[bytes], Any]):
        self._budget = budget
        self._span_of = span_of
        self._nested = nested
        self.unknown: set[str] = set()

    def __call__(self, of: Any, args: tuple[Any, ...]) -> Any:
        if type(of) is not Global:
            return Made(of, args)
        of = Global(_MOVED.get(of.module, of.module), of.name)
        rule = _RULES.get(of.path)
        if rule is None and of.module == "torch._utils" and of.name in _REFUSED:
            return _refused(of.name)
        answer = rule(self, args) if rule is not None else None
        if answer is not None:
            return answer
        self.unknown.add(of.path)
        return Made(of, args)

    def storage(self, identifier: Any) -> Storage:
        """The storage of a persistent id `("storage", class, key, location, numel)`, with a view in old files."""
        if (
            type(identifier) is not tuple
            or len(identifier) not in (5, 6)
            or identifier[0] not in ("storage", b"storage")
        ):
            raise Malformed("a persistent id does not describe a storage")
        _, kind, key, _, numel = identifier[:5]
        if type(kind) is not Global or type(key) is not str or type(numel) is not int or not 0 <= numel < 2**48:
            raise Malformed("a persistent id does not describe a storage")
        dtype, refusal = _storage_type(kind)
        view = identifier[5] if len(identifier) == 6 else None
        if view is None:
            return Storage(key, dtype, numel, refusal=refusal)
        place = lengths(view[1:]) if type(view) is tuple and len(view) == 3 else None
        if place is None or place[0] + place[1] > numel:
            raise Malformed("a view of a storage is out of its range")
        return Storage(key, dtype, place[1], place[0], numel, refusal)

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: torch.dtype | None = None) -> Leaf:
        """A tensor as a view of a storage."""
        size = lengths(shape)
        steps = lengths(strides)
        offset = lengths([offset])
        if type(storage) is not Storage or size is None or steps is None or offset is None or len(size) != len(steps):
            return Unreadable("the checkpoint contains a tensor with an invalid shape, strides or storage")
        kind = dtype or storage.dtype
        if storage.refusal or kind is None:
            return Unreadable(storage.refusal or "the checkpoint contains a tensor without a dtype", QUANTISED)
        start = offset[0] + storage.start * storage.itemsize // kind.itemsize
        return Strided(size, steps, start, kind, storage.key, lambda: self._span_of(storage))

    def nested(self, args: tuple[Any, ...]) -> Any:
        """A storage within the pickle, as written by `pickle.dump` without `torch.save`."""
        if len(args) != 1:
            return None
        if type(args[0]) is Made and args[0].args and type(args[0].args[0]) is str:
            self.spend(len(args[0].args[0]) // 16)  # encoding creates a copy
        return self._nested(bytes_of(args[0]))

    def spend(self, steps: int) -> None:
        self._budget.spend(steps)


_MOVED = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}


def _storage_type(kind: Global) -> tuple[torch.dtype | None, str]:
    """The dtype of a storage (None for bytes), and the reason if it is not supported."""
    if kind.path in ("torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.storage._UntypedStorage"):
        return None, ""
    name = kind.name.removesuffix("Storage")
    if kind.module not in ("torch", "torch.cuda", "torch.storage") or name not in STORAGES:
        what = "quantised" if name.startswith("Q") else f"in the unknown storage {kind.path[:100]}"
        return None, f"the checkpoint contains a tensor that is {what}; only dense tensors are supported"
    return READABLE[STORAGES[name]], ""


def _refused(name: str) -> Unreadable:
    kind = _REFUSED[name]
    message = f"the checkpoint contains a tensor that is {kind}; only dense tensors are supported"
    return Unreadable(message, QUANTISED) if kind == "quantised" else Unreadable(message)


def _v2(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    return to.tensor(*args[:4]) if len(args) >= 4 else None


def _v3(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    if len(args) < 7 or type(args[6]) is not Global:
        return None
    kind = READABLE.get(args[6].name) if args[6].module == "torch" else None
    if kind is None:
        return Unreadable(f"the checkpoint contains a tensor of type {args[6].path[:100]}, which is not supported")
    return to.tensor(args[0], args[1], args[2], args[3], dtype=kind)


def _first(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    if args and type(args[0]) is Made:
        return array_of(args[0])
    return args[0] if args and is_leaf(args[0]) else None


def _subclass(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    if len(args) < 3 or type(args[0]) is not Global or type(args[1]) is not Global or type(args[2]) is not tuple:
        return None
    rule = _RULES.get(args[0].path) if args[0].module == "torch._utils" else None
    if rule is not None and args[1].path in _TENSOR_TYPES:
        return rule(to, args[2])
    message = f"the checkpoint contains a tensor of the class {args[1].path[:100]}; only dense tensors are supported"
    return Unreadable(message)


def _dictionary(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    """An empty dictionary that later opcodes fill, or a dictionary from a list of pairs, as old protocols write it."""
    if not args:
        return {}
    if len(args) == 1 and type(args[0]) is list:
        to.spend(len(args[0]))
        if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in args[0]):
            return {key_of(pair[0]): pair[1] for pair in args[0]}
    return args[0] if len(args) == 1 and type(args[0]) is dict else None


def _list(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    return args[0] if args and type(args[0]) is list else []


def _size(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    return args[0] if len(args) == 1 and type(args[0]) in (tuple, list) else None


def _reconstructed(to: Rebuilding, args: tuple[Any, ...]) -> Any:
    return Made(args[0]) if len(args) == 3 else None


_RULES: dict[str, Callable[[Rebuilding, tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _v2,
    "torch._utils._rebuild_tensor_v2": _v2,
    "torch._utils._rebuild_tensor_v3": _v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._utils._rebuild_xla_tensor": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.storage._load_from_bytes": lambda to, args: to.nested(args),
    "torch.Size": _size,
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _dictionary,
    "collections.defaultdict": lambda to, args: {},
    "builtins.dict": _dictionary,
    "collections.deque": _list,
    "builtins.list": _list,
    "copyreg._reconstructor": _reconstructed,
}
