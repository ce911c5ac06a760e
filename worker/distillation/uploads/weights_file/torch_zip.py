"""The zip file that `torch.save` writes since torch 1.6: `NAME/data.pkl`, and a file of numbers for each storage."""

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

BIG = "Save it on a machine of the usual byte order, with `torch.save(network.state_dict(), path)`."


def is_torch(names: list[str]) -> bool:
    """Whether a zip file with these entries is one of torch's."""
    return any(PurePosixPath(name).name == "data.pkl" and name.count("/") <= 1 for name in names)


def read(file: BinaryIO, size: int, listed: list[zipfile.ZipInfo], limits: UploadLimits) -> Contents:
    """The tree of the zip file.

    Raises:
        UploadError: it is laid out otherwise than `torch.save` lays it out, or its pickle is damaged.
    """
    spans = zip_directory.stored(file, size, listed)
    if len({name.split("/")[0] for name in spans}) != 1 or sum(_base(name) == "data.pkl" for name in spans) != 1:
        raise UploadError("the zip file is not a checkpoint written by `torch.save`", SAVE_STATE_DICT)
    place = next(name for name in spans if _base(name) == "data.pkl")
    pickle = spans[place]
    folder = place.removesuffix("data.pkl")
    if pickle.size > limits.pickle_bytes:
        words = f"the checkpoint's pickle has {pickle.size} bytes; at most {limits.pickle_bytes} are read"
        raise UploadError(words, SAVE_STATE_DICT)
    order = spans.get(f"{folder}byteorder")
    if order is not None and bytes(order.bytes_of(0, min(order.size, 16))) != b"little":
        raise UploadError("the checkpoint's numbers are in big-endian byte order, which is not read", BIG)
    return _read(bytes(pickle.bytes_of(0, pickle.size)), spans, folder, limits)


def _read(pickle: bytes, spans: dict[str, Span], folder: str, limits: UploadLimits) -> Contents:
    def span_of(storage: Storage) -> Span:
        if type(storage.held) is Span:
            return storage.held
        span = spans.get(f"{folder}data/{storage.key}")
        if span is None or span.size != storage.numel * storage.itemsize:
            raise UploadError(
                "the checkpoint's storage is missing or has not the size that its tensors ask for, so a tensor claims more "
                "elements than the checkpoint stores",
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
