"""The directory of a zip file whose entries are stored as they are, checked against the entries themselves.

Two readers of one zip file may see two different files if its headers disagree. So they must agree here: directory and entries
say the same, nothing overlaps, and nothing lies before the first entry or behind the directory.
"""

import struct
import zipfile
from typing import BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT
from worker.distillation.uploads.weights_file.leaves import Span

END, END_64, LOCATOR_64, LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x03\x04"
END_BYTES, LOCATOR_BYTES, END_64_BYTES, LOCAL_BYTES = 22, 20, 56, 30
FARTHEST = 2**42
"""Places beyond it are in no file; file systems refuse to be asked for them."""
MOST_DIRECTORY_BYTES = 32 * 2**20
UNSAID, UNSAID_COUNT = 2**32 - 1, 2**16 - 1
AGAIN = "Upload the whole file again."


def directory_start(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the directory of a zip file begins, and how many entries it has, by the file's last bytes.

    Raises:
        UploadError: the end is missing, or the directory is too large or lies elsewhere than it says.
    """
    tail = _at(file, max(0, size - END_BYTES), END_BYTES)
    if not tail.startswith(END) or len(tail) < END_BYTES:
        raise UploadError("the zip file is cut short (its directory is missing), or something follows its end", AGAIN)
    count, length, start = struct.unpack("<HII", tail[10:20])
    end = size - END_BYTES
    locator = _at(file, end - LOCATOR_BYTES, LOCATOR_BYTES)
    if locator.startswith(LOCATOR_64):
        place = struct.unpack("<Q", locator[8:16])[0]
        record = _at(file, place, END_64_BYTES)
        if not record.startswith(END_64) or place + END_64_BYTES != end - LOCATOR_BYTES:
            raise UploadError("the zip file's end is malformed", AGAIN)
        count_64, length_64, start_64 = struct.unpack("<QQQ", record[32:56])
        said = ((count, count_64, UNSAID_COUNT), (length, length_64, UNSAID), (start, start_64, UNSAID))
        if any(short not in (long, unsaid) for short, long, unsaid in said):
            raise UploadError("the zip file has two ends that contradict each other", AGAIN)
        count, length, start, end = count_64, length_64, start_64, place
    if start + length != end or length > MOST_DIRECTORY_BYTES:
        raise UploadError("the zip file's directory is malformed or larger than is read", AGAIN)
    return int(start), int(count)


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    if not 0 <= place < FARTHEST:
        return b""
    file.seek(place)
    return file.read(count)


def entries(file: BinaryIO, size: int, limits: UploadLimits) -> list[zipfile.ZipInfo]:
    """All entries of a zip file, in the order of their places.

    Raises:
        UploadError: it is not a whole zip file, or has too many entries.
    """
    _, count = directory_start(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise UploadError(f"the file is not a whole zip file: {error}", AGAIN) from error
    if len(found) != count:
        raise UploadError("the zip file's directory has not as many entries as its end says, so it is malformed", AGAIN)
    if len(found) > limits.tensors:
        raise UploadError(f"the zip file has {len(found)} entries; at most {limits.tensors} are read", SAVE_STATE_DICT)
    return sorted(found, key=lambda entry: entry.header_offset)


def stored(file: BinaryIO, size: int, listed: list[zipfile.ZipInfo]) -> dict[str, Span]:
    """Where the bytes of each entry lie.

    Raises:
        UploadError: an entry is compressed, encrypted or oddly named, or contradicts the directory or another entry.
    """
    end, _ = directory_start(file, size)
    if listed and listed[0].header_offset != 0:
        raise UploadError("something precedes the zip file's first entry", SAVE_STATE_DICT)
    spans: dict[str, Span] = {}
    bounds = [*(entry.header_offset for entry in listed[1:]), end]
    for entry, bound in zip(listed, bounds, strict=True):
        _check_entry(entry)
        if entry.filename in spans:
            raise UploadError("the checkpoint holds two entries of the same name", SAVE_STATE_DICT)
        start = _data_start(file, entry)
        if start + entry.file_size > bound:
            raise UploadError("the sizes of the checkpoint's entries do not add up to the file", SAVE_STATE_DICT)
        spans[entry.filename] = Span(file, start, entry.file_size)
    return spans


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise UploadError(
            f"the checkpoint's entry {name[:80]!r} is compressed or encrypted; `torch.save` stores entries as they are",
            SAVE_STATE_DICT,
        )
    odd = name != entry.orig_filename or len(name) > 512 or "\\" in name or not name.isprintable()
    if odd or {"", ".", ".."} & set(name.split("/")):
        raise UploadError(
            f"the checkpoint has an entry with the name {name[:80]!r}, which `torch.save` does not write",
            SAVE_STATE_DICT,
        )


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin; its own header must say what the directory says."""
    header = _at(file, entry.header_offset, LOCAL_BYTES)
    if not header.startswith(LOCAL) or len(header) < LOCAL_BYTES:
        raise UploadError("an entry of the zip file is not where its directory says", AGAIN)
    flags, method = struct.unpack("<HH", header[6:10])
    packed, unpacked, name_length, extra_length = struct.unpack("<IIHH", header[18:30])
    name = _at(file, entry.header_offset + LOCAL_BYTES, name_length)
    silent = flags & 8  # the sizes follow the bytes
    sizes_agree = all(said in (entry.file_size, UNSAID) or (silent and said == 0) for said in (packed, unpacked))
    expected = {entry.orig_filename.encode("utf-8"), entry.orig_filename.encode("cp437", errors="replace")}
    if flags & 1 or method != entry.compress_type or not sizes_agree or name not in expected:
        raise UploadError(
            f"the entry {entry.filename[:80]!r} and the zip file's directory contradict each other", AGAIN
        )
    return entry.header_offset + LOCAL_BYTES + name_length + extra_length
