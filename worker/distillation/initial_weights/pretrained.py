"""A library's pretrained weights for a network with other classes, another number of input channels or another image size."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.wording import listed

COUNTER = "num_batches_tracked"
POSITIONS = ("pos_embed", "pos_embedding")
"""Last parts of the names of learned position embeddings (1, N, D) of transformers on square images."""
LISTED_AT_MOST = 5


def pretrained(
    network: nn.Module, given: Mapping[str, Tensor], classes: int, channels: int, pointer: str
) -> dict[str, Tensor]:
    """The network's state dict with the given tensors, where only those differ that depend on the classes or the channels.

    A classifier for other classes keeps the network's own weights. The first convolution is adapted so that a grey image gives
    the same maps as in RGB: its weights are summed over the channels, and divided by their number. Position embeddings are
    interpolated to another image size.

    Raises:
        SpecError: other tensors are missing or have another shape; `pointer` is the network's place in the spec.
    """
    state, wrong = dict(network.state_dict()), []
    for name, own in state.items():
        value = given.get(name)
        if value is not None and value.shape == own.shape:
            state[name] = value.to(own.dtype)
        elif value is not None and (resized := resized_positions(name, own, value)) is not None:
            state[name] = resized
        elif value is not None and _differs_in_channels(own, value, channels):
            state[name] = (value.sum(1, keepdim=True) / channels).expand_as(own).contiguous()
        elif name.endswith(COUNTER) or _is_of_classes(own, value, classes):
            continue
        else:
            shape = "missing" if value is None else f"{tuple(value.shape)} instead of {tuple(own.shape)}"
            wrong.append(f"{name} is {shape}")
    if wrong:
        words = f"the pretrained weights do not fit the network: {listed(wrong, LISTED_AT_MOST)}"
        hint = "Use the published network: its stem, its width, its head, and for some transformers its image size."
        raise SpecError([Problem(f"{pointer}/initial_weights", words)], hint)
    return state


def _is_of_classes(own: Tensor, value: Tensor | None, classes: int) -> bool:
    """Whether a tensor has a row for each class, and differs in their number only or is missing."""
    return own.dim() > 0 and own.shape[0] == classes and (value is None or value.shape[1:] == own.shape[1:])


def _differs_in_channels(own: Tensor, value: Tensor, channels: int) -> bool:
    """Whether tensors are those of a first convolution for other numbers of channels."""
    if own.dim() != 4 or value.dim() != 4 or own.shape[1] != channels:
        return False
    return torch.Size((own.shape[0], *own.shape[2:])) == torch.Size((value.shape[0], *value.shape[2:]))


def resized_positions(name: str, own: Tensor, value: Tensor) -> Tensor | None:
    """Position embeddings (1, N, D) for another number of patches; None if the tensors are none, or not of square images.

    Those of the patches are interpolated bicubically, as in DeiT (arXiv:2012.12877); those of class tokens, which come first, stay.
    """
    fits = own.dim() == value.dim() == 3 and own.shape[0] == value.shape[0] == 1 and own.shape[2] == value.shape[2]
    if name.rpartition(".")[2] not in POSITIONS or not fits:
        return None
    for tokens in (1, 0, 2):
        side, given = (math.isqrt(max(each.shape[1] - tokens, 0)) for each in (own, value))
        if side and given and side**2 == own.shape[1] - tokens and given**2 == value.shape[1] - tokens:
            break
    else:
        return None
    grid = value[:, tokens:].float().transpose(1, 2).unflatten(2, (given, given))
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat((value[:, :tokens].float(), resized.flatten(2).transpose(1, 2)), 1).to(own.dtype)
