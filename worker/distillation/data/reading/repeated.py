"""Warnings of images that a dataset has twice: in training and test, or with different classes.

Shapes: N images.
"""

import hashlib
from collections.abc import Iterator

from torch import Tensor

from worker.distillation.data.packed import Packed
from worker.distillation.wording import counted

DIGEST_BYTES = 16


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """A short hash of an image's bytes; two images with the same are the same."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def warn(packed: Packed) -> None:
    """Add warnings of test images that are also training images, and of training images that have several classes."""
    keys = {split: list(_keys(packed, image)) for split, (image, _) in packed.splits.items()}
    trained = set(keys["train"])
    if both := sum(key in trained for key in keys.get("test", ())):
        words = "{n} of {all} test images [is|are] also in `train`: what a job measures on [it|them] is no measure of new images"
        packed.warnings.append(counted(both, words, all=len(keys["test"])))
    if packed.labels == "class":
        classes: dict[bytes, set[int]] = {}
        for key, label in zip(keys["train"], packed.splits["train"][1].tolist(), strict=True):
            classes.setdefault(key, set()).add(label)
        if several := sum(len(each) > 1 for each in classes.values()):
            words = "{n} training image[s] [is|are] there several times with different classes"
            packed.warnings.append(counted(several, words))


def _keys(packed: Packed, image: Tensor) -> Iterator[bytes]:
    """A key of each image: a hash of its pixels, or of its file."""
    if packed.photographs is None:
        plain = image.contiguous().flatten(1)
        return (digest(row.numpy().data) for row in plain.unbind(0))
    digests = packed.photographs.digests
    return (digests[shard, offset] for shard, offset in image[:, :2].tolist())
