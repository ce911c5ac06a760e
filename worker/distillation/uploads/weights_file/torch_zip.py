"""The zip format that `torch.save` writes since torch 1.6: `NAME/data.pkl`, and an entry for each storage."""

import io
import zipfile
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file import zip_directory
from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT, Contents
from worker.distillation.uploads.weights_file.inert import Storage
from worker.distillation.uploads.weights_file.leaves import Span
from worker.distillation.uploads.weights_file.pickle_machine import read_pickle
from worker.distillation.uploads.weights_file.rebuilding import Rebuilding
from worker.distillation.uploads.weights_file.torch_legacy import nested_storage

BIG = "Save it on a little-endian machine with `torch.save(network.state_dict(), path)`."


def is_torch(names: list[str]) -> bool:
    """Whether a zip file with these entries was written by torch."""
    return any(PurePosixPath(name).name == "data.pkl" and name.count("/") <= 1 for name in names)


def read(file: BinaryIO, size: int, listed: list[zipfile.ZipInfo], limits: UploadLimits) -> Contents:
    """Read a checkpoint.

    Raises:
        UploadError: the zip file's layout is not that of `torch.save`, or its pickle is damaged.
    """
    spans = zip_directory.stored(file, size, listed)
    if len({name.split("/")[0] for name in spans}) != 1 or sum(_base(name) == "data.pkl" for name in spans) != 1:
        raise UploadError("the zip file is not a checkpoint written by `torch.save`", SAVE_STATE_DICT)
    place = next(name for name in spans if _base(name) == "data.pkl")
    pickle = spans[place]
    folder = place.removesuffix("data.pkl")
    if pickle.size > limits.pickle_bytes:
        message = f"the checkpoint's pickle has {pickle.size} bytes; the maximum is {limits.pickle_bytes}"
        raise UploadError(message, SAVE_STATE_DICT)
    order = spans.get(f"{folder}byteorder")
    if order is not None and bytes(order.bytes_of(0, min(order.size, 16))) != b"little":
        raise UploadError("the checkpoint is big-endian, which is not supported", BIG)
    return _read(bytes(pickle.bytes_of(0, pickle.size)), spans, folder, limits)


def _read(pickle: bytes, spans: dict[str, Span], folder: str, limits: UploadLimits) -> Contents:
    def span_of(storage: Storage) -> Span:
        if type(storage.held) is Span:
            return storage.held
        span = spans.get(f"{folder}data/{storage.key}")
        if span is None or span.size != storage.numel * storage.itemsize:
            raise UploadError(
                "a storage of the checkpoint is missing or has a wrong size, so a tensor claims more elements than the "
                "checkpoint stores",
                SAVE_STATE_DICT,
            )
        return span

    budget = Budget(limits.steps)
    rebuilding = Rebuilding(budget, span_of, lambda data: nested_storage(data, budget))

    def fetched(identifier: Any) -> Storage:
        return rebuilding.storage(identifier)

    root = read_pickle(io.BytesIO(pickle), budget, rebuilding, fetched)
    return Contents("torch zip", root, frozenset(rebuilding.unknown))


def _base(name: str) -> str:
    return PurePosixPath(name).name
