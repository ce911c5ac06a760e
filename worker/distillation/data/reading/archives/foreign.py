"""Files that are not read, by their first bytes, and what to send instead."""

import string
from collections.abc import Sequence
from pathlib import PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.errors import UploadError

LOOKED_AT = 20
HEAD_BYTES = 32
ARRAYS = "Save its arrays with `numpy.savez(FILE, x_train=…, y_train=…, x_test=…, y_test=…)`."
IDX_TYPES = (8, 9, 11, 12, 13, 14)
PICKLE = "a Python pickle", f"Pickles are not read, since they run code. {ARRAYS}"
PAGE = "a web page", "The download gave a page instead of the file; download it again."
KINDS = {
    b"7z\xbc\xaf\x27\x1c": ("in the format 7-Zip", "Send a zip or tar archive."),
    b"Rar!": ("in the format RAR", "Send a zip or tar archive."),
    b"\x28\xb5\x2f\xfd": ("in the format Zstandard", "Send a zip, or a tar compressed with gzip, bzip2 or xz."),
    b"\x89HDF": ("in the format HDF5", ARRAYS),
    b"MATLAB": ("in the format MATLAB", f"{ARRAYS} MATLAB puts the images last and counts classes from 1."),
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), PICKLE),
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html"), PAGE),
    b"version https://git-lfs": ("a pointer of Git LFS", "Fetch the file itself with `git lfs pull`."),
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff"), ("a single image", "Send a zip of images.")),
}
"""What a file is, and what to do, by its first bytes."""


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file that is not read is, and what to send instead; None if its first bytes do not tell."""
    if len(head) > 4 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= 4:
        return "in the format IDX, as MNIST's", f"Read it with `torchvision.datasets`. {ARRAYS}"
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), None)


def refuse(head: bytes) -> None:
    """Refuse an uploaded file that begins so, if that tells what it is.

    Raises:
        UploadError: it does.
    """
    if kind := kind_of(head):
        raise UploadError(f"the file is {kind[0]}, which is not read", kind[1])


def refuse_unknown(head: bytes) -> None:
    """Refuse an uploaded file that is no archive.

    Raises:
        UploadError: always.
    """
    text = bool(head) and all(byte in string.printable.encode() for byte in head)
    what = f"a text file: it begins with {head[:20].decode()!r}" if text else "none of the formats that are read"
    raise UploadError(
        f"the file is {what}",
        "Send a zip or tar archive of images (a table goes into it, beside its images), an npz file, or Parquet.",
    )


def described(archive: Archive, files: Sequence[PurePosixPath]) -> tuple[str, str]:
    """The files of an archive without images in words, and what to send instead of them, empty if nobody knows."""
    kinds = {path: kind_of(archive.head(path, HEAD_BYTES)) for path in files[:LOOKED_AT]}
    shown = (f"{str(path)[:60]} ({kind[0]})" if kind else str(path)[:60] for path, kind in list(kinds.items())[:3])
    way = next((kind[1] for kind in kinds.values() if kind), "")
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return ", ".join(shown) + more, way
