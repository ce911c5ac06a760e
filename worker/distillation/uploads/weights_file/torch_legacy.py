"""The format that `torch.save` wrote before torch 1.6, and plain pickles.

An old file is five pickles (a magic number, the protocol, system information, the object, the storages' keys), then each
storage's length (8 bytes) and elements, in the order of the keys. A plain pickle contains only the object.
"""

import io
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT, Contents
from worker.distillation.uploads.weights_file.inert import Storage
from worker.distillation.uploads.weights_file.leaves import Span
from worker.distillation.uploads.weights_file.pickle_machine import CutShort, read_pickle
from worker.distillation.uploads.weights_file.pickle_stack import Malformed
from worker.distillation.uploads.weights_file.rebuilding import Rebuilding

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LENGTH_BYTES = 8
AGAIN = "Upload the complete file."


def read(file: BinaryIO, size: int, limits: UploadLimits) -> Contents:
    """Read an old file or a plain pickle.

    Raises:
        UploadError: the file is damaged, cut short or too large.
    """
    file.seek(0)
    stream = io.BytesIO(file.read(min(size, limits.pickle_bytes)))
    try:
        return _Reading(file, size, stream, Budget(limits.steps), may_nest=True).read()
    except CutShort as error:
        if size <= limits.pickle_bytes:
            raise
        message = f"the file's pickle is larger than {limits.pickle_bytes} bytes"
        raise UploadError(message, SAVE_STATE_DICT) from error


class _Reading:
    """One file, from its first pickle to its last storage."""

    def __init__(self, file: BinaryIO, size: int, stream: io.BytesIO, budget: Budget, may_nest: bool):
        self._file = file
        self._size = size
        self._stream = stream
        self._budget = budget
        self._storages: dict[str, Storage] = {}
        self._spans: dict[str, Span] = {}
        self._nested = 0
        self._rebuilding = Rebuilding(budget, self._span_of, self._inner if may_nest else _too_deep)

    def read(self) -> Contents:
        first = self._next()
        if type(first) is not int or first != MAGIC:
            return Contents("plain pickle", first, frozenset(self._rebuilding.unknown))
        protocol, machine = self._next(), self._next()
        if protocol != PROTOCOL or type(machine) is not dict:
            raise UploadError(f"the checkpoint has an unknown protocol ({protocol!r:.40})", SAVE_STATE_DICT)
        if machine.get("little_endian") is not True:
            message = "the checkpoint is big-endian, which is not supported"
            raise UploadError(message, "Save it on a little-endian machine.")
        root = self._next()
        keys = self._next()
        self._place(keys)
        return Contents("torch legacy", root, frozenset(self._rebuilding.unknown))

    def _next(self) -> Any:
        return read_pickle(self._stream, self._budget, self._rebuilding, self._fetched)

    def _fetched(self, identifier: Any) -> Any:
        if type(identifier) is tuple and identifier and identifier[0] == "module":
            return identifier[1] if len(identifier) > 1 else None  # a class with its source code
        storage = self._rebuilding.storage(identifier)
        known = self._storages.setdefault(storage.key, storage)
        if (known.dtype, _root_numel(known)) != (storage.dtype, _root_numel(storage)):
            raise Malformed(f"the storage {storage.key[:40]!r} has two contradictory descriptions")
        return storage

    def _place(self, keys: Any) -> None:
        """Find each storage's elements after the pickles."""
        if type(keys) is not list or not all(type(key) is str and key in self._storages for key in keys):
            raise UploadError("the checkpoint's list of storages does not match its tensors", AGAIN)
        place = self._stream.tell()
        for key in keys:
            storage = self._storages[key]
            count = _root_numel(storage)
            size = count * _bytes_each(storage)
            missing = place + LENGTH_BYTES + size - self._size
            if missing > 0:
                raise UploadError(f"the checkpoint is cut short: at least {missing} bytes are missing", AGAIN)
            stored = int.from_bytes(
                Span(self._file, place, LENGTH_BYTES).bytes_of(0, LENGTH_BYTES), "little", signed=True
            )
            if stored != count:
                message = f"the storage {key[:40]!r} has {stored} elements, but its description says {count}"
                raise UploadError(message, AGAIN)
            self._spans[key] = Span(self._file, place + LENGTH_BYTES, size)
            place += LENGTH_BYTES + size

    def _span_of(self, storage: Storage) -> Span:
        if type(storage.held) is Span:
            return storage.held
        if storage.key not in self._spans:
            raise UploadError("the checkpoint does not contain the storage of one of its tensors", SAVE_STATE_DICT)
        return self._spans[storage.key]

    def _inner(self, data: bytes) -> Storage:
        return nested_storage(data, self._budget)

    def storage_alone(self) -> Storage:
        """The storage that this file contains as its only object, with its bytes."""
        contents = self.read()
        if contents.container != "torch legacy" or type(contents.root) is not Storage:
            raise Malformed("a storage within the pickle is invalid")
        span = self._span_of(contents.root)
        return _held(contents.root, span)


def nested_storage(data: bytes, budget: Budget) -> Storage:
    """Read a storage from bytes within a pickle, as `pickle.dump` of tensors writes it.

    Raises:
        Malformed: the bytes are not a storage.
    """
    budget.spend(1 + len(data) // 4096)  # a pickle may refer to the same bytes often
    stream = io.BytesIO(data)
    return _Reading(io.BytesIO(data), len(data), stream, budget, may_nest=False).storage_alone()


def _held(storage: Storage, span: Span) -> Storage:
    key = f"{storage.key} within the pickle at {id(span)}"
    return Storage(key, storage.dtype, storage.numel, storage.start, storage.root_numel, storage.refusal, span)


def _too_deep(data: bytes) -> Any:
    raise Malformed("a storage within the pickle contains another storage")


def _root_numel(storage: Storage) -> int:
    return storage.numel if storage.root_numel is None else storage.root_numel


def _bytes_each(storage: Storage) -> int:
    if storage.refusal:
        raise UploadError(storage.refusal, SAVE_STATE_DICT)
    return storage.itemsize
