"""The numbers of a tensor in a file, checked: real, finite, and of a precision that weights have."""

import torch
from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT
from worker.distillation.uploads.weights_file.leaves import Computed, Leaf


def checked(name: str, leaf: Leaf) -> Tensor:
    """The tensor in memory of its own, half precision widened to float32.

    Raises:
        UploadError: its numbers cannot be read, are complex or of 8 bits, or are not finite.
    """
    _check_type(name, leaf)
    tensor = leaf.read().detach()
    if not bool(torch.isfinite(tensor).all()):
        raise UploadError(
            f"the tensor `{name}` holds NaN or infinite values, so the network cannot work",
            "Upload a checkpoint from before training diverged.",
        )
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_type(name: str, leaf: Leaf) -> None:
    for part in leaf.parts if type(leaf) is Computed else (leaf,):
        if part.dtype.is_complex or (part.dtype.is_floating_point and part.dtype.itemsize < 2):
            raise UploadError(
                f"the tensor `{name}` holds numbers of type {part.dtype}; save the weights as float32 or half precision",
                SAVE_STATE_DICT,
            )
