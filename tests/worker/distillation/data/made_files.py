"""Files that people send as datasets, made in memory: images of every kind, archives, arrays."""

import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

Files = Mapping[str, bytes]


def shade(number: int, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An image of a gradient that differs for each number."""
    row = np.linspace(0, 255, size[0]).astype(np.uint8)
    pixels = np.stack([np.roll(np.tile(row, (size[1], 1)), number + channel) for channel in range(3)], axis=-1)
    image = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(np.tile(row, (size[1], 1))))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **saving: Any) -> bytes:
    """The image as a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **saving)
    return stream.getvalue()


def picture(number: int = 0, kind: str = "PNG", mode: str = "RGB", **saving: Any) -> bytes:
    """An image file."""
    return encoded(shade(number, mode), kind, **saving)


def turned(number: int = 0, orientation: int = 6) -> bytes:
    """A JPEG of 12 x 8 pixels with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(shade(number, size=(12, 8)), "JPEG", exif=exif.tobytes())


def sixteen_bit() -> bytes:
    """A PNG of 16 bits for each value: the multiples of 257 from 0 to 63 * 257."""
    return encoded(Image.fromarray((np.arange(64) * 257).astype(np.uint16).reshape(8, 8)))


def many_bands(bands: int) -> bytes:
    """A TIFF of 8 x 8 pixels with 16 bits for each of its bands."""
    pixels, after = bytes(128 * bands), 8 + 2 + 12 * 9 + 4
    tags = {256: 8, 257: 8, 258: after, 259: 1, 262: 1, 273: after + 2 * bands, 277: bands, 278: 8, 279: len(pixels)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, bands if tag == 258 else 1, value)
        for tag, value in tags.items()
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + bytes(4) + struct.pack(f"<{bands}H", *[16] * bands) + pixels


def animation() -> bytes:
    """A GIF of two frames."""
    return encoded(shade(0), "GIF", save_all=True, append_images=[shade(3)])


def folders(*names: str, each: int = 2) -> dict[str, bytes]:
    """Images in these folders, each another one."""
    return {
        path: encoded(marked(path)) for name in names for number in range(each) for path in [f"{name}/{number}.png"]
    }


def marked(path: str) -> Image.Image:
    """An image that no other path has."""
    pixels = np.array(shade(0))
    pixels[0, :2] = np.frombuffer(hashlib.blake2b(path.encode(), digest_size=6).digest(), np.uint8).reshape(2, 3)
    return Image.fromarray(pixels)


def zipped(files: Files, *empty: str) -> bytes:
    """A zip of files and of empty folders."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in empty:
            archive.writestr(name, b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def flagless(files: Mapping[bytes, bytes]) -> bytes:
    """A zip whose names are bytes without the flag for UTF-8, as old programs write them."""
    stands = {f"{number:0{len(name)}d}": (name, data) for number, (name, data) in enumerate(files.items())}
    made = zipped({stand: data for stand, (_, data) in stands.items()})
    for stand, (name, _) in stands.items():
        made = made.replace(stand.encode(), name)
    return made


def tarred(files: Files, mode: str = "w", style: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files; `mode` as in `tarfile.open`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=style) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def arrays(**named: Any) -> bytes:
    """An npz file."""
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def array(values: Any) -> bytes:
    """An npy file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def numbers(count: int = 6, *shape: int, kind: Any = np.uint8) -> np.ndarray:
    """`count` images as an array, (count, 8, 8) unless `shape` is given."""
    values = np.random.default_rng(0).integers(0, 256, (count, *(shape or (8, 8))))
    values.flat[:2] = 0, 255
    return values.astype(kind)


def parquet(label: Sequence[Any] | None, image: str = "image", names: Sequence[str] = (), bare: bool = False) -> bytes:
    """A Parquet file with a row for each label, as hubs write it: structs of bytes and path, or `bare` bytes."""
    import pyarrow
    import pyarrow.parquet

    rows = range(4 if label is None else len(label))
    pictures = [picture(row) if bare else {"bytes": picture(row), "path": f"{row}.png"} for row in rows]
    table = pyarrow.table({image: pictures, **({} if label is None else {"label": list(label)})})
    if names:
        features = {image: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()
