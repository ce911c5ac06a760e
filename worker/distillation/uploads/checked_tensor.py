"""Checks of a tensor's values: they must be real, finite, and of a precision that is usual for weights."""

import torch
from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT
from worker.distillation.uploads.weights_file.leaves import Computed, Leaf


def checked(name: str, leaf: Leaf) -> Tensor:
    """Read the tensor into its own memory, with half precision converted to float32.

    Raises:
        UploadError: its values cannot be read, are complex or 8-bit floats, or are not finite.
    """
    _check_type(name, leaf)
    tensor = leaf.read().detach()
    if not bool(torch.isfinite(tensor).all()):
        raise UploadError(
            f"the tensor `{name}` contains NaN or infinite values",
            "Upload a checkpoint that was saved before training diverged.",
        )
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _check_type(name: str, leaf: Leaf) -> None:
    for part in leaf.parts if type(leaf) is Computed else (leaf,):
        if part.dtype.is_complex or (part.dtype.is_floating_point and part.dtype.itemsize < 2):
            raise UploadError(
                f"the tensor `{name}` has the type {part.dtype}; save the weights as float32 or half precision",
                SAVE_STATE_DICT,
            )
