"""Good files of every kind, damaged at random: an endless row that the seed decides."""

import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from tests.attack.corpus import graphs
from tests.attack.corpus.case import TEACHER, Case
from tests.worker.distillation.data import made_files
from tests.worker.distillation.uploads import hostile_pickles

EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1)
Sample = tuple[bytes, str, Mapping[str, Any]]
"""A good file, the resource that takes it, and its record."""


def samples(inputs: Path) -> dict[str, Sample]:
    """Good files by name; `inputs` holds a trained teacher and images."""
    weights = load_file(inputs / "teacher.safetensors")
    pictures = made_files.folders("a", "b", each=3)
    photos = {name.replace("png", "jpg"): made_files.picture(n, "JPEG") for n, name in enumerate(pictures)}
    arrays = {"x_train": made_files.numbers(), "y_train": np.arange(6) % 2}
    teachers = {
        "safetensors": save(weights),
        "torch": _torch(weights),
        "legacy": _torch(weights, _use_new_zipfile_serialization=False),
        "pickle": hostile_pickles.pickled({"a": [1, "b", b"c", (None, True)]}),
    }
    datasets = {
        "zip": made_files.zipped(pictures),
        "tar": made_files.tarred(pictures),
        "tar_gz": made_files.tarred(pictures, "w:gz"),
        "jpeg": made_files.zipped(photos),
        "npz": made_files.arrays(**arrays),
        "npy": made_files.array(made_files.numbers()),
        "parquet": made_files.parquet([0, 1, 0, 1]),
        "images": (inputs / "images.npz").read_bytes(),
        "gif": made_files.zipped({f"{c}/{n}.gif": made_files.animation() for c in "ab" for n in range(2)}),
    }
    programs = {"program": graphs.changed(lambda program, tensors: None)}
    onnx = {"onnx": graphs.model([]).SerializeToString()}
    return {
        **{name: (data, "teachers", TEACHER) for name, data in teachers.items()},
        **{name: (data, "datasets", {}) for name, data in datasets.items()},
        **{name: (data, "files", graphs.PROGRAM) for name, data in programs.items()},
        **{name: (data, "teachers", {"classes": 4, "input": graphs.INPUT}) for name, data in onnx.items()},
    }


def _torch(value: Any, **options: Any) -> bytes:
    import io

    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def damaged(inputs: Path, dice: random.Random) -> Iterator[Case]:
    """Damaged files without end."""
    good = samples(inputs)
    names = sorted(good)
    number = 0
    while True:
        number += 1
        name = dice.choice(names)
        data, resource, record = good[name]
        made = bytearray(data)
        for _ in range(dice.choice((1, 1, 2, 5, 50))):
            made = _damage(made, dice, good[dice.choice(names)][0])
        yield Case("damaged files", f"{name}-{number}", lambda made=bytes(made): made, resource, record)


def _damage(data: bytearray, dice: random.Random, other: bytes) -> bytearray:
    """One change: bits, a number, a slice removed, repeated or taken from another file, a cut end."""
    # heads and directories are at both ends, and decide most
    at = dice.choice(
        (
            dice.randrange(len(data) + 1),
            dice.randrange(min(len(data), 200) + 1),
            len(data) - dice.randrange(min(len(data), 200) + 1),
        )
    )
    length = min(dice.choice((1, 2, 8, 64, 1024)), len(data) - at)
    kind = dice.randrange(6)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << dice.randrange(8)
    elif kind == 1:
        form = dice.choice(("<H", "<I", "<Q", ">I"))
        value = dice.choice(EXTREMES) % 2 ** (8 * struct.calcsize(form))
        data[at : at + struct.calcsize(form)] = struct.pack(form, value)
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[at : at + length] * dice.choice((1, 10, 1000))
    elif kind == 4:
        start = dice.randrange(len(other))
        data[at : at + length] = other[start : start + length]
    elif dice.random() < 0.3:
        del data[at:]
    return data if data else bytearray(b"\0")
