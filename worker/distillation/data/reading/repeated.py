"""Warnings of images that a dataset has twice: in training and test, or with different classes.

Shapes: N images.
"""

import hashlib

import torch
from torch import Tensor

from worker.distillation.data.packed import Packed
from worker.distillation.wording import counted

DIGEST_BYTES = 8
"""Bytes of a hash. Of 1.3 million different images, two have the same with a probability of 5e-8."""


def digest(data: bytes | bytearray | memoryview) -> int:
    """A hash of an image's bytes, as a signed number of 64 bits; two images with the same are taken for the same."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), "little", signed=True)


def warn(packed: Packed) -> None:
    """Add warnings of test images that are also training images, and of training images that have several classes."""
    keys = {split: _keys(packed, image) for split, (image, _) in packed.splits.items()}
    if "test" in keys and (both := int(torch.isin(keys["test"], keys["train"]).sum())):
        words = "{n} of {all} test images [is|are] also in `train`: what a job measures on [it|them] is no measure of new images"
        packed.warnings.append(counted(both, words, all=len(keys["test"])))
    if packed.labels == "class" and (several := _with_several(keys["train"], packed.splits["train"][1])):
        words = "{n} training image[s] [is|are] there several times with different classes"
        packed.warnings.append(counted(several, words))


def _with_several(key_N: Tensor, label_N: Tensor) -> int:
    """Number of different keys that have more than one label."""
    by_label = label_N.argsort(stable=True)
    order = by_label[key_N[by_label].argsort(stable=True)]  # by key, then by label
    key, label = key_N[order], label_N[order]
    differs = (key[1:] == key[:-1]) & (label[1:] != label[:-1])
    return len(key[1:][differs].unique())


def _keys(packed: Packed, image: Tensor) -> Tensor:
    """A key of each image (N,) int64: a hash of its pixels, or of its file."""
    if packed.photographs is None:
        plain = image.contiguous().flatten(1)
        return torch.tensor([digest(row.numpy().data) for row in plain.unbind(0)], dtype=torch.int64)
    return packed.photographs.digests_of(image)
