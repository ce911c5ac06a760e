"""Decoding of packed weights. It uses torch alone, since every `student.py` that reads a packed file contains it."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def unpacked(state: Mapping[str, Tensor], text: str) -> dict[str, Tensor]:
    """The plain tensors of a packed file. `text` is its metadata `packed`: for each weight that is stored as codes its shape, its
    kind (`uniform`, `codebook` or `float`), the bits of a code, the least code, the values that share a scale, and whether zeros
    are left out."""
    entries = json.loads(text)
    parts = {f"{name}.{part}" for name in entries for part in PARTS}
    plain = {name: tensor for name, tensor in state.items() if name not in parts}
    for name, entry in entries.items():
        own = {part: state[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in state}
        plain[name] = weight_of(own, entry)
    return plain


def weight_of(parts: Mapping[str, Tensor], entry: Mapping[str, Any]) -> Tensor:
    """One weight from its parts."""
    count = 1
    for size in entry["shape"]:
        count *= size
    kept = torch.arange(count)
    if "mask" in parts:
        kept = integers(parts["mask"], 1, count).nonzero()[:, 0]
    if entry["kind"] == "float":
        values = parts["values"]
    else:
        codes = integers(parts["codes"], entry["bits"], len(kept))
        values = values_of(codes, kept, entry, parts.get("scale"), parts.get("offset"), parts.get("table"))
    weight = torch.zeros(count)
    weight[kept] = values
    return weight.reshape(entry["shape"])


def values_of(codes: Tensor, places: Tensor, entry: Mapping[str, Any], scale: Any, offset: Any, table: Any) -> Tensor:
    """The values (N,) of codes (N,) at places (N,) of the flattened weight: `table[code]`, or `code * scale + offset` with the scale
    and the offset of the place."""
    if entry["kind"] == "codebook":
        return table[codes]
    group = places // entry["group"]
    values = (codes + entry["least"]).float() * scale[group]
    return values if offset is None else values + offset[group]


def integers(packed: Tensor, bits: int, count: int) -> Tensor:
    """`count` integers of at most 8 bits each from bytes (uint8), lowest bit first."""
    if bits == 8:
        return packed[:count].long()
    flat = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).reshape(-1)[: count * bits]
    shifted = flat.reshape(count, bits) << torch.arange(bits, dtype=torch.uint8)
    return shifted.sum(1, dtype=torch.uint8).long()


PARTS = ("codes", "scale", "offset", "table", "mask", "values")
