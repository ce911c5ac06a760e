"""The file that `torch.save` wrote before torch 1.6, and plain pickles.

The old file is five pickles (a magic number, the protocol, the writer's machine, the object, the storages' keys), then each
storage's length (8 bytes) and numbers, in the order of the keys. A plain pickle holds the object alone.
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
AGAIN = "Upload the whole file again."


def read(file: BinaryIO, size: int, limits: UploadLimits) -> Contents:
    """The tree of an old file or of a plain pickle.

    Raises:
        UploadError: the file is damaged, cut short, or larger than is read.
    """
    file.seek(0)
    stream = io.BytesIO(file.read(min(size, limits.pickle_bytes)))
    try:
        return _Reading(file, size, stream, Budget(limits.steps), may_nest=True).read()
    except CutShort as error:
        if size <= limits.pickle_bytes:
            raise
        words = f"the file is a pickle of more than {limits.pickle_bytes} bytes"
        raise UploadError(words, SAVE_STATE_DICT) from error


class _Reading:
    """One file, from its first pickle to its last storage."""

    def __init__(self, file: BinaryIO, size: int, stream: io.BytesIO, budget: Budget, may_nest: bool):
        self._file, self._size, self._stream, self._budget = file, size, stream, budget
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
            raise UploadError(f"the checkpoint is of a form that torch never wrote (protocol {protocol!r:.40})", AGAIN)
        if machine.get("little_endian") is not True:
            words = "the checkpoint's numbers are in big-endian byte order, which is not read"
            raise UploadError(words, "Save it on a machine of the usual byte order.")
        root = self._next()
        keys = self._next()
        self._place(keys)
        return Contents("torch legacy", root, frozenset(self._rebuilding.unknown))

    def _next(self) -> Any:
        return read_pickle(self._stream, self._budget, self._rebuilding, self._fetched)

    def _fetched(self, identifier: Any) -> Any:
        if type(identifier) is tuple and identifier and identifier[0] == "module":
            return identifier[1] if len(identifier) > 1 else None  # a class with its source text
        storage = self._rebuilding.storage(identifier)
        known = self._storages.setdefault(storage.key, storage)
        if (known.dtype, _root_numel(known)) != (storage.dtype, _root_numel(storage)):
            raise Malformed(f"the storage {storage.key[:40]!r} is described in two ways")
        return storage

    def _place(self, keys: Any) -> None:
        """Find each storage's numbers behind the pickles."""
        if type(keys) is not list or not all(type(key) is str and key in self._storages for key in keys):
            raise UploadError("the checkpoint's list of storages does not go with its tensors", AGAIN)
        place = self._stream.tell()
        for key in keys:
            storage = self._storages[key]
            count = _root_numel(storage)
            size = count * _bytes_each(storage)
            missing = place + LENGTH_BYTES + size - self._size
            if missing > 0:
                raise UploadError(f"the checkpoint is cut short: at least {missing} bytes are missing", AGAIN)
            said = int.from_bytes(
                Span(self._file, place, LENGTH_BYTES).bytes_of(0, LENGTH_BYTES), "little", signed=True
            )
            if said != count:
                words = f"the storage {key[:40]!r} holds {said} numbers, and its tensors claim {count}"
                raise UploadError(f"{words}, so one claims more elements than the checkpoint stores", AGAIN)
            self._spans[key] = Span(self._file, place + LENGTH_BYTES, size)
            place += LENGTH_BYTES + size

    def _span_of(self, storage: Storage) -> Span:
        if type(storage.held) is Span:
            return storage.held
        if storage.key not in self._spans:
            raise UploadError("the checkpoint does not hold the numbers of one of its tensors", SAVE_STATE_DICT)
        return self._spans[storage.key]

    def _inner(self, data: bytes) -> Storage:
        return nested_storage(data, self._budget)

    def storage_alone(self) -> Storage:
        """The storage that is the object of this file, with its bytes."""
        contents = self.read()
        if contents.container != "torch legacy" or type(contents.root) is not Storage:
            raise Malformed("a storage within the pickle is none")
        span = self._span_of(contents.root)
        return _held(contents.root, span)


def nested_storage(data: bytes, budget: Budget) -> Storage:
    """The storage in bytes within a pickle, as `pickle.dump` of tensors writes it.

    Raises:
        Malformed: they are not a storage's.
    """
    budget.spend(1 + len(data) // 4096)  # the same bytes may be named often
    stream = io.BytesIO(data)
    return _Reading(io.BytesIO(data), len(data), stream, budget, may_nest=False).storage_alone()


def _held(storage: Storage, span: Span) -> Storage:
    key = f"{storage.key} within the pickle at {id(span)}"
    return Storage(key, storage.dtype, storage.numel, storage.start, storage.root_numel, storage.refusal, span)


def _too_deep(data: bytes) -> Any:
    raise Malformed("a storage within the pickle holds another")


def _root_numel(storage: Storage) -> int:
    return storage.numel if storage.root_numel is None else storage.root_numel


def _bytes_each(storage: Storage) -> int:
    if storage.refusal:
        raise UploadError(storage.refusal, SAVE_STATE_DICT)
    return storage.itemsize
