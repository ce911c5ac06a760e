"""Checkpoints written by `torch.save`, read as weights only and only after their container has been checked.

`weights_only` alone is not enough: a deflated entry turns a small file into a large tensor. So every entry must be
stored as it is, sizes must add up to the file, and the pickle must be small, before torch sees the file.
"""

import pickle
import struct
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import torch

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

SAVE_STATE_DICT = (
    "Save the weights alone with `torch.save(network.state_dict(), path)` or as safetensors, and upload that file."
)
END_OF_ARCHIVE = b"PK\x05\x06"
NAMED_AT_MOST = 5
MALFORMED = (
    RuntimeError,
    ValueError,
    LookupError,
    EOFError,
    OSError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
)
"""What torch's readers raise on bytes that make no sense."""


def load(path: Path, limits: UploadLimits) -> Any:
    """What `torch.save` wrote to a zip file, by `torch.load(weights_only=True)`.

    Raises:
        UploadError: the container is not one that `torch.save` writes, or it holds anything but tensors and plain data.
    """
    check_container(path, limits)
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if unsafe:
            _refuse_objects(sorted(unsafe))
        return _load_weights(path)
    except pickle.UnpicklingError as error:
        raise UploadError(
            f"the checkpoint holds more than tensors and plain data: {_first_line(error)}", SAVE_STATE_DICT
        ) from error
    except MALFORMED as error:
        raise UploadError(f"the checkpoint cannot be read: {_first_line(error)}", SAVE_STATE_DICT) from error


def _load_weights(path: Path) -> Any:
    """`torch.load` of weights only, mapped from the file where possible.

    A path that ends in `.safetensors` would send torch to another reader, so such a file is read by its handle.
    """
    misnamed = path.suffix == ".safetensors"
    with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
        return torch.load(file if misnamed else path, map_location="cpu", weights_only=True, mmap=not misnamed)


def check_container(path: Path, limits: UploadLimits) -> None:
    """See that a zip file is laid out as `torch.save` lays it out, without inflating or unpickling anything."""
    size = path.stat().st_size
    entries = _entries(path, size)
    if len(entries) > limits.tensors:
        raise UploadError(
            f"the checkpoint has {len(entries)} entries; at most {limits.tensors} are read", SAVE_STATE_DICT
        )
    for entry in entries:
        _check_entry(entry)
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise UploadError("the checkpoint holds two entries of the same name", SAVE_STATE_DICT)
    if sum(entry.file_size for entry in entries) > size:
        raise UploadError("the sizes of the checkpoint's entries do not add up to the file", SAVE_STATE_DICT)
    _check_kind(names)
    pickles = [entry for entry in entries if PurePosixPath(entry.filename).name == "data.pkl"]
    if len(pickles) != 1 or len({name.split("/")[0] for name in names}) != 1:
        raise UploadError("the zip file is not a checkpoint written by `torch.save`", SAVE_STATE_DICT)
    if pickles[0].file_size > limits.pickle_bytes:
        raise UploadError(
            f"the checkpoint's pickle has {pickles[0].file_size} bytes; at most {limits.pickle_bytes} are read",
            SAVE_STATE_DICT,
        )


def _entries(path: Path, size: int) -> list[zipfile.ZipInfo]:
    """The archive's entries; its end must be where torch's own reader and Python's agree on it."""
    with path.open("rb") as file:
        file.seek(max(0, size - 22))
        ends = file.read(4) == END_OF_ARCHIVE
    if not ends:
        raise UploadError("the checkpoint is cut short, or something follows its end", "Upload the whole file again.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise UploadError(f"the checkpoint is not a whole zip file: {error}", "Upload the whole file again.") from error
    if entries and min(entry.header_offset for entry in entries) != 0:
        raise UploadError("something precedes the checkpoint's first entry", SAVE_STATE_DICT)
    return entries


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise UploadError(
            f"the checkpoint's entry {name[:80]!r} is compressed or encrypted; `torch.save` stores entries as they are",
            SAVE_STATE_DICT,
        )
    parts = name.split("/")
    if (
        name != entry.orig_filename
        or len(name) > 512
        or "\\" in name
        or not name.isprintable()
        or {"", ".", ".."} & set(parts)
    ):
        raise UploadError(
            f"the checkpoint has an entry with the name {name[:80]!r}, which `torch.save` does not write",
            SAVE_STATE_DICT,
        )


def _check_kind(names: list[str]) -> None:
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise UploadError("the file is a TorchScript program, which is code and is never run here", SAVE_STATE_DICT)
    programs = ("archive_format", "serialized_exported_program.json", "serialized_state_dict.pt")
    if inner & set(programs) or any(name.startswith("models/") for name in inner):
        raise UploadError(
            "the file is an exported program (`.pt2`), which can run code when it is loaded", SAVE_STATE_DICT
        )


def _refuse_objects(names: list[str]) -> NoReturn:
    listed = ", ".join(f"`{name[:100]}`" for name in names[:NAMED_AT_MOST])
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    raise UploadError(
        f"the checkpoint holds Python objects ({listed}{more}), such as a whole pickled network; nothing of it was run",
        SAVE_STATE_DICT,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
