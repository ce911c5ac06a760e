"""Image classifiers of Hugging Face's transformers under the names of timm (ViT, ConvNeXt) and torchvision (ResNet).

The rules follow the published key names of `ViTForImageClassification`, `ResNetForImageClassification` and
`ConvNextForImageClassification`. ResNets have their strides in the 3x3 convolutions, as in torchvision.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.selection import common_prefix
from worker.distillation.uploads.weights_file.leaves import Computed, Leaf

NAME = "transformers"
ATTENTION = ("query", "key", "value")
"""Linear layers that timm has as one, in its order."""
Target = str | Callable[[re.Match[str]], str]
LAYER = r"vit\.encoder\.layer\.(\d+)\."
STAGE = r"encoder\.stages\.(\d+)\."


def _numbered(name: str) -> Callable[[re.Match[str]], str]:
    """A layer of a block of a residual network, which torchvision counts from 1."""
    return lambda found: f"layer{int(found[1]) + 1}.{found[2]}.{name}{int(found[3]) + 1}."


def _shortcut(number: int) -> Callable[[re.Match[str]], str]:
    return lambda found: f"layer{int(found[1]) + 1}.{found[2]}.downsample.{number}."


RULES: Mapping[str, Mapping[str, Target]] = {
    "vit": {
        r"vit\.embeddings\.cls_token$": "cls_token",
        r"vit\.embeddings\.position_embeddings$": "pos_embed",
        r"vit\.embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
        rf"{LAYER}attention\.attention\.": r"blocks.\1.attn.",
        rf"{LAYER}attention\.output\.dense\.": r"blocks.\1.attn.proj.",
        rf"{LAYER}intermediate\.dense\.": r"blocks.\1.mlp.fc1.",
        rf"{LAYER}output\.dense\.": r"blocks.\1.mlp.fc2.",
        rf"{LAYER}layernorm_before\.": r"blocks.\1.norm1.",
        rf"{LAYER}layernorm_after\.": r"blocks.\1.norm2.",
        r"vit\.layernorm\.": "norm.",
        r"classifier\.": "head.",
    },
    "resnet": {
        r"resnet\.embedder\.embedder\.convolution\.": "conv1.",
        r"resnet\.embedder\.embedder\.normalization\.": "bn1.",
        rf"resnet\.{STAGE}layers\.(\d+)\.shortcut\.convolution\.": _shortcut(0),
        rf"resnet\.{STAGE}layers\.(\d+)\.shortcut\.normalization\.": _shortcut(1),
        rf"resnet\.{STAGE}layers\.(\d+)\.layer\.(\d+)\.convolution\.": _numbered("conv"),
        rf"resnet\.{STAGE}layers\.(\d+)\.layer\.(\d+)\.normalization\.": _numbered("bn"),
        r"classifier\.1\.": "fc.",
    },
    "convnext": {
        r"convnext\.embeddings\.patch_embeddings\.": "stem.0.",
        r"convnext\.embeddings\.layernorm\.": "stem.1.",
        rf"convnext\.{STAGE}downsampling_layer\.": r"stages.\1.downsample.",
        rf"convnext\.{STAGE}layers\.(\d+)\.dwconv\.": r"stages.\1.blocks.\2.conv_dw.",
        rf"convnext\.{STAGE}layers\.(\d+)\.layernorm\.": r"stages.\1.blocks.\2.norm.",
        rf"convnext\.{STAGE}layers\.(\d+)\.pwconv([12])\.": r"stages.\1.blocks.\2.mlp.fc\3.",
        rf"convnext\.{STAGE}layers\.(\d+)\.layer_scale_parameter$": r"stages.\1.blocks.\2.gamma",
        r"convnext\.layernorm\.": "head.norm.",
        r"classifier\.": "head.fc.",
    },
}
"""What the beginning of a name becomes, by the first part of the names of a network."""


def translated(candidate: Candidate) -> Candidate | None:
    """The candidate with the names of the library; None if its names are not all those of a classifier of transformers."""
    prefix = common_prefix(candidate.tensors)
    short = {name.removeprefix(prefix): leaf for name, leaf in candidate.tensors.items()}
    first = next((each for each in RULES if any(name.startswith(f"{each}.") for name in short)), None)
    renamed = {_renamed(name, RULES[first]): leaf for name, leaf in short.items()} if first else {}
    known = {name: leaf for name, leaf in renamed.items() if name is not None}
    if not renamed or len(known) < len(short):
        return None
    return replace(candidate, tensors=_joined(known), names_of=NAME)


def _renamed(name: str, rules: Mapping[str, Target]) -> str | None:
    for pattern, target in rules.items():
        if found := re.match(pattern, name):
            return (target(found) if callable(target) else found.expand(target)) + name[found.end() :]
    return None


def _joined(tensors: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The same with one layer in place of the three of an attention."""
    joined: dict[str, Leaf] = {}
    for name, leaf in tensors.items():
        path, _, part = name.rpartition(".")
        parent, _, last = path.rpartition(".")
        parts = [tensors.get(f"{parent}.{each}.{part}") for each in ATTENTION] if last in ATTENTION else []
        present: Any = tuple(each for each in parts if each is not None and each.shape == leaf.shape)
        if not parts:
            joined[name] = leaf
        elif len(present) == len(ATTENTION):
            shape = (len(ATTENTION) * leaf.shape[0], *leaf.shape[1:])
            joined.setdefault(f"{parent}.qkv.{part}", Computed(shape, leaf.dtype, present, _in_a_row))
    return joined


def _in_a_row(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
