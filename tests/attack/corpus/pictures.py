"""Pictures whose heads lie, that grow when they are decoded, or that are programs; in datasets beside good ones."""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.attack.corpus.archives import deflated
from tests.attack.corpus.case import Canary, Case
from tests.worker.distillation.data.made_files import folders, picture, zipped


def pictures(canary: Canary) -> Iterator[Case]:
    """Datasets with one such picture: refused by default, and left out if the sender asks for that."""
    for name, data in {**_png(), **_jpeg(), **_others(), **_programs(canary)}.items():
        files = folders("a", "b", each=3) | {"a/hostile.png": data}
        yield Case("pictures", name, lambda files=files: zipped(files), "datasets", {})
        yield Case(
            "pictures", f"{name}-skip", lambda files=files: zipped(files), "datasets", {"options": {"broken": "skip"}}
        )


def _png() -> dict[str, bytes]:
    def chunk(kind: bytes, data: bytes, length: int | None = None, crc: int | None = None) -> bytes:
        size = len(data) if length is None else length
        check = zlib.crc32(kind + data) if crc is None else crc
        return struct.pack(">I", size & 0xFFFFFFFF) + kind + data + struct.pack(">I", check)

    def png(*chunks: bytes, **head: int) -> bytes:
        fields = {"width": 8, "height": 8, "bits": 8, "colour": 0, "compression": 0, "filter": 0, "interlace": 0} | head
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", *fields.values()))
            + b"".join(chunks)
            + chunk(b"IEND", b"")
        )

    rows = chunk(b"IDAT", zlib.compress(bytes(72)))
    bomb = chunk(b"IDAT", b"\x78\xda" + deflated(2 * 10**9)[:-2] + b"\x03\x00" + bytes(4))
    grown = b"\x78\xda" + deflated(2 * 10**9) + bytes(4)
    return {
        "png_bomb": png(bomb, width=40_000, height=40_000),
        "png_bomb_within_limits": png(bomb, width=9000, height=9000),
        "png_huge": png(rows, width=2**31 - 1, height=2**31 - 1),
        "png_wide": png(rows, width=2**31 - 1, height=1),
        "png_nothing": png(rows, width=0, height=0),
        "png_more_rows": png(rows, height=5000),
        "png_bits": png(rows, bits=77),
        "png_colour": png(rows, colour=5),
        "png_interlace": png(rows, interlace=9),
        "png_length": png(chunk(b"IDAT", b"", length=2**32 - 1)),
        "png_crc": png(chunk(b"IDAT", zlib.compress(bytes(72)), crc=1)),
        "png_no_data": png(),
        "png_text_bomb": png(chunk(b"zTXt", b"a\0\0" + grown), rows),
        "png_profile_bomb": png(chunk(b"iCCP", b"a\0\0" + grown), rows),
        "png_itxt_bomb": png(chunk(b"iTXt", b"a\0\1\0\0\0" + grown), rows),
        "png_many_chunks": png(*[chunk(b"tEXt", b"a\0b")] * 100_000, rows),
        "png_many_parts": png(*[chunk(b"IDAT", b"")] * 100_000, rows),
        "png_palette": png(chunk(b"PLTE", b"x" * 7), rows, colour=3),
        "png_transparency": png(chunk(b"tRNS", b"x" * 500), rows),
        "png_frames": png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), rows),
        "png_exif": png(chunk(b"eXIf", _looping_exif()), rows),
        "png_cut": picture()[:40],
    }


def _jpeg() -> dict[str, bytes]:
    good = picture(0, "JPEG")
    frame = good.index(b"\xff\xc0")
    scan = good.index(b"\xff\xda")

    def sized(height: int, width: int) -> bytes:
        return good[: frame + 5] + struct.pack(">HH", height, width) + good[frame + 9 :]

    exif = b"Exif\0\0" + _looping_exif()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    progressive = good[:frame] + b"\xff\xc2" + good[frame + 2 :]
    return {
        "jpeg_huge": sized(65535, 65535),
        "jpeg_nothing": sized(0, 0),
        "jpeg_wide": sized(1, 65535),
        "jpeg_large": sized(9000, 9000),
        "jpeg_cut": good[: scan + 20],
        "jpeg_no_scan": good[:scan],
        "jpeg_scans": progressive[:-2] + progressive[scan:-2] * 5000 + b"\xff\xd9",
        "jpeg_restarts": good[:-2] + b"\xff\xd0" * 500_000,
        "jpeg_exif_loop": good[:2] + segment + good[2:],
        "jpeg_segments": good[:2] + (b"\xff\xfe\x00\x02") * 100_000 + good[2:],
        "jpeg_tables": good[:frame] + b"\xff\xc4\x00\x13" + b"\xff" * 17 + good[frame:],
        "jpeg_components": good[: frame + 9] + b"\xff" + good[frame + 10 :],
        "jpeg_profile": good[:2] + b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0\xff\xff    " + good[2:],
    }


def _looping_exif() -> bytes:
    """Tags whose folders refer to themselves, with counts that lie."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x0112, 3, 2**31, 2**32 - 1)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entry + struct.pack("<I", 8)


def _others() -> dict[str, bytes]:
    def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
        entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)

    size = [(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    gif = picture(0, "GIF")
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 8, 1, 0, 0, 0, 0, 0)
    return {
        "tiff_loop": tiff((256, 4, 1, 8), following=8),
        "tiff_huge": tiff(*size, (273, 4, 1, 8), (279, 4, 1, 2**32 - 1)),
        "tiff_counts": tiff(*size, (273, 4, 2**31, 8)),
        "tiff_tags": tiff(*[(270, 2, 2**31, 8)] * 60_000),
        "tiff_tiles": tiff(*size, (322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8)),
        "gif_huge": gif[:6] + b"\xff" * 4 + gif[10:],
        "gif_frames": gif[:-1] + gif[gif.index(b"\x2c") : -1] * 20_000 + b"\x3b",
        "bmp_huge": b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + head,
        "bmp_negative": b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, -5, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0),
        "webp_huge": b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + bytes(80),
        "webp_cut": picture(0, "WEBP")[:30],
        "ppm_huge": b"P6 99999999 99999999 255\n",
        "ppm_digits": b"P6 " + b"9" * 10_000 + b" 1 255\n",
        "ppm_large": b"P5 12000 12000 255\n" + bytes(1000),
        "pfm": b"PF 60000 60000 -1\n",
        "nothing": b"",
        "zeros": bytes(1000),
        "html": b"<html><script>alert(1)</script>",
        "svg": b"<svg><image href='file:///etc/passwd'/></svg>",
        "ico": b"\0\0\1\0\xff\xff" + b"\xff" * 5000,
        "icns": b"icns\xff\xff\xff\xffic10\0\0\0\x08",
        "psd": b"8BPS\0\1" + b"\xff" * 100,
        "fli": b"\xff\xff\xff\xff\x11\xaf" + b"\xff" * 200,
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        "avif": b"\0\0\0\x1cftypavif" + b"\xff" * 200,
        "dds": b"DDS " + b"\xff" * 124,
        "sgi": b"\x01\xda\1\1\0\3\xff\xff\xff\xff\0\4" + bytes(500),
        "pcx": b"\x0a\5\1\x08\0\0\0\0\xff\xff\xff\xff" + bytes(116),
        "tga": bytes(2) + b"\x0a" + bytes(9) + b"\xff\xff\xff\xff\x18\0" + b"\xff" * 100,
    }


def _programs(canary: Canary) -> dict[str, bytes]:
    path = canary.mark("picture").encode()
    script = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%touch "
        + path
        + b") (w) file closefile\nshowpage\n%%EOF\n"
    )
    lines = [b"push graphic-context", b"image over 0,0 0,0 'ephemeral:|touch " + path + b"'", b"pop graphic-context"]
    return {
        "postscript": script,
        "pdf": b"%PDF-1.4\n" + script,
        "mvg": b"\n".join(lines),
        "shell": b"#!/bin/sh\ntouch " + path + b"\n",
        "elf": b"\x7fELF\2\1\1" + bytes(200),
        "xpm": b'/* XPM */\nstatic char *x[] = {"99999 99999 1 9",\n',
        "im": b"Image type: L image\r\nImage size (x*y): 99999*99999\r\nLut: 1\r\n" + bytes(600),
        "wmf": b"\xd7\xcd\xc6\x9a" + b"\xff" * 200,
        "xbm": b"#define a_width 99999\n#define a_height 99999\nstatic char a_bits[] = {\n",
        "spider": struct.pack(">27f", *[60_000.0] * 27) + bytes(1000),
        "msp": b"DanM" + b"\xff" * 60,
    }


def dataset_options() -> Iterator[Case]:
    """Good pictures with absurd options."""
    absurd: list[dict[str, Any]] = [
        {"height": 1, "width": 1},
        {"height": 1024, "width": 1024},
        {"test_fraction": 0.9},
        {"channels": 1},
        {"first_label": 2**31 - 1},
    ]
    for number, options in enumerate(absurd):
        yield Case(
            "pictures", f"options-{number}", lambda: zipped(folders("a", "b", each=3)), "datasets", {"options": options}
        )
