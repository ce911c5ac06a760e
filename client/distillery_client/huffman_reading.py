"""Decoding of `student.huffman`, with Python's standard library alone; the client has the same file.

The file is `DISTILH1`, the length of the header (4 bytes, little-endian), the header (JSON, compressed by zlib) and the tensors'
bytes. For each tensor the header has `name`, `shape`, `kind` and the lengths of its parts. A tensor of the kind `raw` is its bytes.
Others are the weights of `codebook` (`table[code]`), `uniform` (`code * scale + offset`, one of each for `group` consecutive values)
or `float`. Codes are written in canonical Huffman codes, highest bit first. Of sparse tensors only values other than zero are
written, with the number of zeros before each in Huffman codes too; 255 stands for 255 zeros without a value after them.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAGIC = b"DISTILH1"
SKIP = 255
MOST_BITS = 48
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class BadFile(ValueError):
    """A file that is no `student.huffman`, or is damaged; the message is a sentence."""


def to_safetensors(content: bytes) -> bytes:
    """The plain weights as a safetensors file, with the metadata of the student.

    Raises:
        BadFile: the content is damaged.
    """
    header, tensors = decoded(content)
    entries: dict[str, Any] = {"__metadata__": dict(sorted(header["metadata"].items()))}
    body, place = [], 0
    for name, kind, shape, data in sorted(tensors, key=lambda each: (-SIZES[each[1]], each[0])):
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + len(data)]}
        body.append(data)
        place += len(data)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(body)


def decoded(content: bytes) -> tuple[dict[str, Any], list[tuple[str, str, list[int], bytes]]]:
    """The header, and name, type, shape and little-endian bytes of each tensor.

    Raises:
        BadFile: the content is damaged.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise BadFile("this is no file of the export `huffman`")
    start = len(MAGIC) + 4
    size = int.from_bytes(content[len(MAGIC) : start], "little")
    try:
        header = json.loads(zlib.decompress(content[start : start + size]))
        reader = _Bytes(content, start + size)
        return header, [_tensor(entry, reader) for entry in header["tensors"]]
    except (zlib.error, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise BadFile(f"the file is damaged: {error}") from error


class _Bytes:
    """The rest of a file."""

    def __init__(self, content: bytes, place: int):
        self.content, self.place = content, place

    def take(self, count: int) -> bytes:
        found = self.content[self.place : self.place + count]
        if len(found) != count:
            raise BadFile("the file ends too early; copy it again")
        self.place += count
        return found

    def floats(self, count: int) -> tuple[float, ...]:
        return struct.unpack(f"<{count}f", self.take(4 * count))


def _tensor(entry: Mapping[str, Any], reader: _Bytes) -> tuple[str, str, list[int], bytes]:
    name, shape = entry["name"], list(entry["shape"])
    count = 1
    for size in shape:
        count *= size
    if entry["kind"] == "raw":
        return name, entry["type"], shape, reader.take(count * SIZES[entry["type"]])
    places: Sequence[int] = range(count)
    if entry["sparse"]:
        places = list(_places(_symbols(reader, entry["gaps"])))
        if places and places[-1] >= count:
            raise BadFile(f"{name} has more values than its shape")
    values = _values(entry, places, reader)
    flat = [0.0] * count
    for place, value in zip(places, values, strict=True):
        flat[place] = value
    return name, "F32", shape, struct.pack(f"<{count}f", *flat)


def _values(entry: Mapping[str, Any], places: Sequence[int], reader: _Bytes) -> Iterator[float]:
    if entry["kind"] == "float":
        return iter(reader.floats(len(places)))
    tables = {part: reader.floats(size) for part, size in entry["tables"].items()}
    codes = _symbols(reader, entry["codes"])
    if len(codes) != len(places):
        raise BadFile(f"{entry['name']} has {len(codes)} codes for {len(places)} values")
    if entry["kind"] == "codebook":
        return (tables["table"][code] for code in codes)
    offsets = tables.get("offset") or (0.0,) * len(tables["scale"])
    least, group = entry["least"], entry["group"]
    return (
        _single(_single((code + least) * tables["scale"][place // group]) + offsets[place // group])
        for code, place in zip(codes, places, strict=True)
    )


def _single(value: float) -> float:
    """Rounded to 32 bits."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _places(gaps: Sequence[int]) -> Iterator[int]:
    place = -1
    for gap in gaps:
        place += gap
        if gap != SKIP:
            place += 1
            yield place


def _symbols(reader: _Bytes, entry: Mapping[str, int]) -> list[int]:
    """The symbols of one stream: the lengths of the codes of symbols 0, 1, ..., then the bits."""
    lengths = reader.take(entry["symbols"])
    data = reader.take(entry["bytes"])
    found: list[int] = []
    codes = canonical_codes(lengths)
    known = {(length, code): symbol for symbol, (length, code) in codes.items()}
    count = entry["count"]
    if len(known) == 1 and count:
        return [next(iter(codes))] * count
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | (byte >> shift & 1), length + 1
            symbol = known.get((length, code))
            if symbol is not None:
                found.append(symbol)
                if len(found) == count:
                    return found
                code = length = 0
            elif length > MOST_BITS:
                raise BadFile("a code is unknown")
    if len(found) != count:
        raise BadFile(f"{count - len(found)} values are missing")
    return found


def canonical_codes(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Length and code of each symbol that has one, by the lengths of all symbols' codes (0: none)."""
    codes: dict[int, tuple[int, int]] = {}
    code = before = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        code <<= length - before
        codes[symbol] = length, code
        code, before = code + 1, length
    return codes
