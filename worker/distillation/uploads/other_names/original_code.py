"""Weights as the code of their paper names them, where timm renames them when it loads such a file.

timm's own filter renames. It reads a network of the shapes of the file, and tensors without numbers. Only what it returns as it was, or
in another shape, is taken: tensors that a filter makes new, such as resized tables of positions, are none of the file's.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isqrt

import torch
from torch import Tensor, nn

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.selection import common_prefix
from worker.distillation.uploads.weights_file.leaves import Computed, Leaf

NAME = "the original code"
MOST_STAGES, MOST_BLOCKS = 8, 200
FAILURES = (KeyError, RuntimeError, AttributeError, IndexError, ValueError, AssertionError, TypeError)
"""What building a network of these shapes, or its filter, raises for weights of another network."""
Shapes = Mapping[str, tuple[int, ...]]
Filter = Callable[[dict[str, Tensor], nn.Module], Mapping[str, Tensor]]


def _convnext(shapes: Shapes) -> tuple[nn.Module, Filter]:
    """ConvNeXt (facebookresearch/ConvNeXt and ConvNeXt-V2)."""
    from timm.models import convnext

    depths = _depths(shapes, "stages.{}.{}.dwconv.weight")
    dims = [shapes[f"stages.{stage}.0.dwconv.weight"][0] for stage in range(len(depths))]
    return convnext.ConvNeXt(depths=tuple(depths), dims=tuple(dims)), convnext.checkpoint_filter_fn


def _swin(shapes: Shapes) -> tuple[nn.Module, Filter]:
    """Swin Transformer (microsoft/Swin-Transformer)."""
    from timm.models import swin_transformer

    table = "layers.{}.blocks.{}.attn.relative_position_bias_table"
    depths = _depths(shapes, table)
    rows = shapes[table.format(0, 0)][0]
    window, width = (isqrt(rows) + 1) // 2, shapes["patch_embed.proj.weight"][0]
    network = swin_transformer.SwinTransformer(
        img_size=window * 2 ** (len(depths) + 1),
        embed_dim=width,
        depths=tuple(depths),
        num_heads=tuple(shapes[table.format(stage, 0)][1] for stage in range(len(depths))),
        window_size=window,
    )
    return network, swin_transformer.checkpoint_filter_fn


FORMS = {"downsample_layers.0.0.weight": _convnext, "layers.0.downsample.reduction.weight": _swin}
"""By a name that only the original code has: a network of timm with these shapes, and timm's filter."""


def translated(candidate: Candidate) -> Candidate | None:
    """The candidate with timm's names; None if they are not those of original code that timm can rename."""
    prefix = common_prefix(candidate.tensors)
    short = {name.removeprefix(prefix): leaf for name, leaf in candidate.tensors.items()}
    make = next((FORMS[mark] for mark in FORMS if mark in short), None)
    if make is None:
        return None
    try:
        with torch.device("meta"):
            network, change = make({name: tuple(leaf.shape) for name, leaf in short.items()})
            given = {name: torch.empty(leaf.shape, dtype=leaf.dtype) for name, leaf in short.items()}
            changed = change(dict(given), network)
    except FAILURES:
        return None
    found = _taken(changed, given, short)
    return None if found is None else replace(candidate, tensors=found, names_of=NAME)


def _depths(shapes: Shapes, name: str) -> list[int]:
    """Number of blocks in each stage, by the names that they have with `name`.

    Raises:
        ValueError: there are none, or too many.
    """
    depths = []
    for stage in range(MOST_STAGES):
        blocks = next((block for block in range(MOST_BLOCKS) if name.format(stage, block) not in shapes), 0)
        if not blocks:
            break
        depths.append(blocks)
    if not depths:
        raise ValueError("there are no blocks, or too many")
    return depths


def _taken(
    changed: Mapping[str, Tensor], given: Mapping[str, Tensor], leaves: Mapping[str, Leaf]
) -> dict[str, Leaf] | None:
    """The file's tensors by their new names, in their new shapes; None if one of them is new."""
    names = {id(tensor): name for name, tensor in given.items()}
    found: dict[str, Leaf] = {}
    for name, tensor in changed.items():
        own = names.get(id(tensor)) or names.get(id(tensor._base))
        if own is None or tensor.numel() != given[own].numel():
            return None
        leaf, shape = leaves[own], tuple(tensor.shape)
        same = shape == tuple(leaf.shape)
        found[name] = leaf if same else Computed(shape, leaf.dtype, (leaf,), partial(torch.reshape, shape=shape))
    return found
