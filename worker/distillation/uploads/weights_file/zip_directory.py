"""The directory of a zip file with uncompressed entries, checked against the entries themselves.

If headers disagree, two readers of one zip file may see different content. So this reader requires that directory and
entries agree, that nothing overlaps, and that there are no bytes before the first entry or after the directory.
"""

import struct
import zipfile
from typing import BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT
from worker.distillation.uploads.weights_file.leaves import Span

END = b"PK\x05\x06"
END_64 = b"PK\x06\x06"
LOCATOR_64 = b"PK\x06\x07"
LOCAL = b"PK\x03\x04"
"""Signatures of the end record, the zip64 end record and its locator, and of an entry's own header."""
END_BYTES = 22
LOCATOR_BYTES = 20
END_64_BYTES = 56
LOCAL_BYTES = 30
FARTHEST = 2**42
"""Offsets beyond it are invalid; file systems refuse to seek to them."""
MOST_DIRECTORY_BYTES = 32 * 2**20
IN_ZIP64 = 2**32 - 1
COUNT_IN_ZIP64 = 2**16 - 1
"""Values that mean: see the zip64 record."""
AGAIN = "Upload the complete file."


def directory_start(file: BinaryIO, size: int) -> tuple[int, int]:
    """The offset of the directory of a zip file and its number of entries, from the file's last bytes.

    Raises:
        UploadError: the end record is missing, or the directory is too large or not where the end record says.
    """
    tail = _at(file, max(0, size - END_BYTES), END_BYTES)
    if not tail.startswith(END) or len(tail) < END_BYTES:
        raise UploadError("the zip file is cut short (its directory is missing), or has extra bytes at its end", AGAIN)
    count, length, start = struct.unpack("<HII", tail[10:20])
    end = size - END_BYTES
    locator = _at(file, end - LOCATOR_BYTES, LOCATOR_BYTES)
    if locator.startswith(LOCATOR_64):
        place = struct.unpack("<Q", locator[8:16])[0]
        record = _at(file, place, END_64_BYTES)
        if not record.startswith(END_64) or place + END_64_BYTES != end - LOCATOR_BYTES:
            raise UploadError("the end record of the zip file is malformed", AGAIN)
        count_64, length_64, start_64 = struct.unpack("<QQQ", record[32:56])
        fields = ((count, count_64, COUNT_IN_ZIP64), (length, length_64, IN_ZIP64), (start, start_64, IN_ZIP64))
        if any(short not in (long, absent) for short, long, absent in fields):
            raise UploadError("the two end records of the zip file contradict each other", AGAIN)
        count = count_64
        length = length_64
        start = start_64
        end = place
    if start + length != end or length > MOST_DIRECTORY_BYTES:
        raise UploadError("the zip file's directory is malformed or too large", AGAIN)
    return int(start), int(count)


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    if not 0 <= place < FARTHEST:
        return b""
    file.seek(place)
    return file.read(count)


def entries(file: BinaryIO, size: int, limits: UploadLimits) -> list[zipfile.ZipInfo]:
    """All entries of a zip file, ordered by offset.

    Raises:
        UploadError: the zip file is not complete, or has too many entries.
    """
    _, count = directory_start(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, struct.error) as error:
        raise UploadError(f"the file is not a complete zip file: {error}", AGAIN) from error
    if len(found) != count:
        raise UploadError(
            "the zip file is malformed: its directory and its end record disagree on the number of entries", AGAIN
        )
    if len(found) > limits.tensors:
        raise UploadError(f"the zip file has {len(found)} entries; the maximum is {limits.tensors}", SAVE_STATE_DICT)
    return sorted(found, key=lambda entry: entry.header_offset)


def stored(file: BinaryIO, size: int, listed: list[zipfile.ZipInfo]) -> dict[str, Span]:
    """The byte range of each entry, by name.

    Raises:
        UploadError: an entry is compressed, encrypted or has an invalid name, or contradicts the directory or another entry.
    """
    end, _ = directory_start(file, size)
    if listed and listed[0].header_offset != 0:
        raise UploadError("the zip file has extra bytes before its first entry", SAVE_STATE_DICT)
    spans: dict[str, Span] = {}
    bounds = [*(entry.header_offset for entry in listed[1:]), end]
    for entry, bound in zip(listed, bounds, strict=True):
        _check_entry(entry)
        if entry.filename in spans:
            raise UploadError("the checkpoint contains two entries with the same name", SAVE_STATE_DICT)
        start = _data_start(file, entry)
        if start + entry.file_size > bound:
            raise UploadError("entries of the checkpoint overlap", SAVE_STATE_DICT)
        spans[entry.filename] = Span(file, start, entry.file_size)
    return spans


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
        raise UploadError(
            f"the checkpoint's entry {name[:80]!r} is compressed or encrypted, which `torch.save` never does",
            SAVE_STATE_DICT,
        )
    odd = name != entry.orig_filename or len(name) > 512 or "\\" in name or not name.isprintable()
    if odd or {"", ".", ".."} & set(name.split("/")):
        raise UploadError(
            f"the checkpoint has an entry with the name {name[:80]!r}, which `torch.save` does not write",
            SAVE_STATE_DICT,
        )


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """The offset of an entry's data; its own header must match the directory."""
    header = _at(file, entry.header_offset, LOCAL_BYTES)
    if not header.startswith(LOCAL) or len(header) < LOCAL_BYTES:
        raise UploadError("an entry of the zip file is not where its directory says", AGAIN)
    flags, method = struct.unpack("<HH", header[6:10])
    packed, unpacked, name_length, extra_length = struct.unpack("<IIHH", header[18:30])
    name = _at(file, entry.header_offset + LOCAL_BYTES, name_length)
    sizes_follow = flags & 8  # the sizes are after the data, and 0 in the header
    sizes_agree = all(
        size in (entry.file_size, IN_ZIP64) or (sizes_follow and size == 0) for size in (packed, unpacked)
    )
    expected = {entry.orig_filename.encode("utf-8"), entry.orig_filename.encode("cp437", errors="replace")}
    if flags & 1 or method != entry.compress_type or not sizes_agree or name not in expected:
        raise UploadError(
            f"the entry {entry.filename[:80]!r} and the zip file's directory contradict each other", AGAIN
        )
    return entry.header_offset + LOCAL_BYTES + name_length + extra_length
