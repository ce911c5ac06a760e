"""zip, tar and gzip files: bombs, links, names, duplicates, nesting, and heads that lie."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.attack.corpus.case import UNNAMED, Canary, Case
from tests.worker.distillation.data.made_files import folders, picture, tarred, zipped

DATASET: dict[str, Any] = {}
MEGABYTE = bytes(2**20)


def deflated(size: int, start: bytes = b"") -> bytes:
    """A raw deflate stream of `start` and zeros, about `size` bytes, made without compressing all of them."""
    first = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = first.compress(start) + first.flush(zlib.Z_FULL_FLUSH)
    other = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = other.compress(MEGABYTE) + other.flush(zlib.Z_FULL_FLUSH)
    return head + chunk * (size // len(MEGABYTE)) + b"\x03\x00"


def stored_zip(
    files: Mapping[str | bytes, bytes], raw: Mapping[str, tuple[int, int]] | None = None, **lies: Any
) -> bytes:
    """A zip, field by field. `raw` gives method and claimed size of entries whose data is compressed already; `lies` sets
    `flags`, `crc`, `size`, `attributes`, `extra` or `offset` of every entry, or `count` of the directory."""
    body, directory, written = io.BytesIO(), io.BytesIO(), 0
    for name, data in files.items():
        encoded = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
        method, size = (raw or {}).get(name, (0, len(data)))  # type: ignore[arg-type]
        crc = lies.get("crc", zlib.crc32(data) if method == 0 else 0)
        fields = (method, 0, 0, crc, len(data), lies.get("size", size) & 0xFFFFFFFF)
        flags, extra = lies.get("flags", 0x800), lies.get("extra", b"")
        local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, flags, *fields, len(encoded), len(extra))
        offset = lies.get("offset", written)
        directory.write(
            struct.pack(
                "<4sHHHHHHIIIHHHHHII",
                b"PK\1\2",
                0x314,
                20,
                flags,
                *fields,
                len(encoded),
                len(extra),
                0,
                0,
                0,
                lies.get("attributes", 0o100644 << 16),
                offset,
            )
            + encoded
            + extra
        )
        written += body.write(local + encoded + extra + data)
    count = lies.get("count", len(files)) & 0xFFFF
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, directory.tell(), written, 0)
    return body.getvalue() + directory.getvalue() + end


NAMES: dict[str, str | bytes] = {
    "dots": "../../../../tmp/pwned.png",
    "inner_dots": "a/../../b.png",
    "absolute": "/etc/cron.d/pwned.png",
    "windows": "C:\\Windows\\a.png",
    "backslashes": "..\\..\\a.png",
    "nul": b"a\0b.png",
    "none": "",
    "dot": ".",
    "folder_and_file": "a/0.png/",
    "newline": "a/\n\r\x1b[31m.png",
    "long": "a/" + "n" * 10_000 + ".png",
    "deep": "a/" * 5000 + "0.png",
    "unicode": "a/\u202egnp.exe\u200d.png",
    "surrogate": "a/\ud800.png",
    "combining": "a/e\u0301.png",
    "device": "a/CON",
    "home": "~/a.png",
    "proc": "/proc/self/environ",
    "url": "file:///etc/passwd",
    "latin": b"a/\xff\xfe.png",
}


def names(canary: Canary) -> Iterator[Case]:
    """Entries whose names lead elsewhere, or that no file system takes."""
    for name, word in NAMES.items():
        good: dict[str | bytes, bytes] = dict(folders("a", "b"))
        files = good | {word: picture()}
        yield Case("names", f"{name}-zip", lambda files=files: stored_zip(files), "datasets", DATASET)
        text = word.decode("latin-1") if isinstance(word, bytes) else word.encode("utf-8", "replace").decode()
        yield Case("names", f"{name}-tar", lambda text=text: _tar([(text, {})]), "datasets", DATASET)
        yield Case("names", f"{name}-weights", lambda word=word: stored_zip({word: b"\x80\x02N."}), record=UNNAMED)


def zips(canary: Canary) -> Iterator[Case]:
    """Zip files with entries that lie, link, overlap, nest and grow."""
    good = folders("a", "b")
    large: Callable[[int, int], bytes] = lambda method, size: stored_zip(  # noqa: E731
        good | {"a/9.png": deflated(size)}, raw={"a/9.png": (method, size)}
    )
    files: dict[str, Callable[[], bytes]] = {
        "bomb": lambda: large(8, 10**10),
        "bomb_that_lies": lambda: stored_zip(good | {"a/9.png": deflated(10**9)}, raw={"a/9.png": (8, 100)}),
        "overlap": lambda: stored_zip(
            {f"a/{n}.png": deflated(10**6) if n == 0 else b"" for n in range(5000)}, offset=0, size=10**6
        ),
        "links": lambda: stored_zip(good | {"a/7.png": b"/etc/passwd"}, attributes=0o120777 << 16),
        "devices": lambda: stored_zip(good, attributes=0o020666 << 16),
        "pipes": lambda: stored_zip(good, attributes=0o010666 << 16),
        "encrypted": lambda: stored_zip(good, flags=0x801),
        "strong": lambda: stored_zip(good, flags=0x841),
        "crc": lambda: stored_zip(good, crc=1),
        "short": lambda: stored_zip(good, size=3),
        "long": lambda: stored_zip(good, size=10**9),
        "count": lambda: stored_zip(good, count=60_000),
        "no_count": lambda: stored_zip(good, count=0),
        "offset": lambda: stored_zip(good, offset=2**31),
        "extra": lambda: stored_zip(good, extra=b"\1\0\xff\xff"),
        "zip64": lambda: stored_zip(good, size=0xFFFFFFFF, extra=struct.pack("<HHQQ", 1, 16, 2**62, 2**62)),
        "method": lambda: stored_zip(good, raw=dict.fromkeys(good, (99, 10))),
        "no_directory": lambda: zipped(good)[:200],
        "only_end": lambda: b"PK\5\6" + bytes(18),
        "comment": lambda: zipped(good)[:-2] + b"\xff\xff" + bytes(65535),
        "before": lambda: bytes(10**6) + zipped(good),
        "twice": lambda: _double(good),
        "folders_as_files": lambda: stored_zip({"a": b"", "a/0.png": picture(), "a/0.png/1.png": picture()}),
        "many": lambda: stored_zip({f"a/{n}": b"" for n in range(60_000)}),
        "many_pictures": lambda: stored_zip({f"{n % 3}/{n}.png": TINY for n in range(30_000)}),
        "many_folders": lambda: stored_zip({f"{n}/0.png": TINY for n in range(20_000)}),
        "nested": lambda: _nested(30),
        "in_itself": lambda: stored_zip(good | {"b.zip": zipped(good)}),
        "lzma": lambda: stored_zip({"a/0.png": lzma.compress(MEGABYTE)}, raw={"a/0.png": (14, 2**20)}),
        "bz2": lambda: stored_zip({"a/0.png": bz2.compress(MEGABYTE * 50)}, raw={"a/0.png": (12, 2**20 * 50)}),
    }
    for name, make in files.items():
        yield Case("zip", name, make, "datasets", DATASET)
        yield Case("zip", f"{name}-weights", make, record=UNNAMED)


def tars(canary: Canary) -> Iterator[Case]:
    """Tar files with links, devices, sparse files, lying heads and long names; compressed streams that grow."""
    entries: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "symbolic_link": [("a/0.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})],
        "hard_link": [("a/0.png", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})],
        "link_out": [("x", {"type": tarfile.SYMTYPE, "linkname": canary.mark("link")}), ("x/0.png", {})],
        "loop": [("a", {"type": tarfile.SYMTYPE, "linkname": "b"}), ("b", {"type": tarfile.SYMTYPE, "linkname": "a"})],
        "device": [("a/0.png", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})],
        "block": [("a/0.png", {"type": tarfile.BLKTYPE})],
        "pipe": [("a/0.png", {"type": tarfile.FIFOTYPE})],
        "unknown": [("a/0.png", {"type": b"Z"})],
        "setuid": [("a/0.png", {"mode": 0o4777})],
        "twice": [("a/0.png", {})] * 3,
        "pax": [("a/0.png", {"pax_headers": {"path": "../../pwned", "size": str(2**60)}})],
        "pax_large": [("a/0.png", {"pax_headers": {"comment": "x" * 10**7}})],
        "long_name": [("n" * 10**6, {})],
        "many": [(f"a/{n}.png", {}) for n in range(20_000)],
        "sparse": [("a/0.png", {"pax_headers": {"GNU.sparse.size": str(2**50), "GNU.sparse.map": "0,1," * 50_000}})],
    }
    for name, given in entries.items():
        yield Case("tar", name, lambda given=given: _tar(given), "datasets", DATASET)
    plain = tarred(folders("a", "b"))
    heads = {
        "size": _head(plain, 124, b"77777777777\0"),
        "binary_size": _head(plain, 124, b"\x80" + b"\xff" * 11),
        "negative": _head(plain, 124, b"\xff" * 12),
        "checksum": plain[:148] + b"00000000" + plain[156:],
        "no_octal": _head(plain, 124, b"hello world\0"),
        "cut": plain[:700],
        "head_only": plain[:512],
        "sparse_old": _head(_head(plain, 156, b"S"), 386, b"00000000000\0" * 8),
    }
    for name, data in heads.items():
        yield Case("tar", name, lambda data=data: data, "datasets", DATASET)
        yield Case("tar", f"{name}-weights", lambda data=data: data, record=UNNAMED)
    streams: dict[str, Callable[[], bytes]] = {
        "gzip_bomb": lambda: _gzip(deflated(3 * 10**9)),
        "gzip_bomb_of_a_tar": lambda: _gzip(deflated(3 * 10**9, _head(plain, 124, b"77777777777\0")[:512])),
        "gzip_cut": lambda: gzip.compress(plain, mtime=0)[:-9],
        "gzip_crc": lambda: gzip.compress(plain, mtime=0)[:-8] + bytes(8),
        "gzip_name": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 10**6,
        "gzip_members": lambda: gzip.compress(b"", mtime=0) * 50_000,
        "gzip_nested": lambda: _times(gzip.compress, plain, 30),
        "bz2_bomb": lambda: bz2.compress(MEGABYTE * 300),
        "xz_bomb": lambda: lzma.compress(MEGABYTE * 300, preset=0),
        "xz_memory": lambda: b"\xfd7zXZ\0\0\4" + bytes(100),
        "zstd": lambda: b"\x28\xb5\x2f\xfd" + b"\xff" * 100,
        "rar": lambda: b"Rar!\x1a\7\1\0" + bytes(100),
        "7z": lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100),
    }
    for name, make in streams.items():
        yield Case("tar", name, make, "datasets", DATASET)
        yield Case("tar", f"{name}-weights", make, record=UNNAMED)


TINY = picture()


def _tar(entries: list[tuple[str, dict[str, Any]]]) -> bytes:
    stream, data = io.BytesIO(), picture()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, fields in [*entries, *((name, {}) for name in folders("a", "b"))]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _head(data: bytes, at: int, field: bytes) -> bytes:
    """A tar whose first head has another field, and the checksum that fits."""
    head = bytearray(data[:512])
    head[at : at + len(field)] = field
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


def _gzip(stream: bytes) -> bytes:
    return b"\x1f\x8b\x08" + bytes(7) + stream + bytes(8)


def _double(files: Mapping[str, bytes]) -> bytes:
    """A zip in which the second entry has the name of the first."""
    data = zipped(files)
    first, second = list(files)[:2]
    return data.replace(second.encode(), first.encode())


def _nested(depth: int) -> bytes:
    data = zipped(folders("a", "b"))
    for number in range(depth):
        data = stored_zip({f"{number}.zip": data})
    return data


def _times(act: Callable[[bytes], bytes], data: bytes, count: int) -> bytes:
    for _ in range(count):
        data = act(data)
    return data
