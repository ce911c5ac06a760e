"""How the weights of a finalised network can be written as codes: a note on each module, and tables in its buffers.

A finalised weight holds decoded values. The codes are found again by rounding, and `encode` checks that they decode to the very
same bits.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.compression.unpacking import values_of, weight_of
from worker.distillation.errors import EngineError

TABLES = ("scale", "offset", "table")


@dataclass(frozen=True)
class Stored:
    """The weight of a module as codes.

    `uniform`: `code * scale + offset`, codes from `least` on, one scale (and offset, if there is one) for `group` consecutive values
    of the flattened weight. `codebook`: `table[code]`. `float`: no codes. `sparse`: zeros are left out.
    """

    kind: Literal["uniform", "codebook", "float"]
    bits: int = 32
    least: int = 0
    group: int = 1
    sparse: bool = False


@dataclass(frozen=True)
class Encoding:
    """A weight as codes. `parts` are tensors by name: `codes` and `mask` are packed bits in bytes, others are as in `Stored`."""

    shape: tuple[int, ...]
    stored: Stored
    parts: Mapping[str, Tensor]

    def entry(self) -> dict[str, Any]:
        """The part of a packed file's metadata that `unpacking.weight_of` reads."""
        return {"shape": list(self.shape)} | asdict(self.stored)

    def decode(self) -> Tensor:
        """The weight, bit for bit."""
        return weight_of(self.parts, self.entry())

    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())


def note(module: nn.Module, stored: Stored, **tables: Tensor) -> None:
    """Say how a module's weight is stored; `tables` (one dimension each) become its buffers `weight_scale` and so on.

    Zeros are left out if an earlier note said so."""
    earlier = stored_of(module)
    if earlier is not None and earlier.sparse:
        stored = replace(stored, sparse=True)
    for name in TABLES:
        module._buffers.pop(f"weight_{name}", None)
    module.stored = stored  # type: ignore[assignment]
    for name, table in tables.items():
        module.register_buffer(f"weight_{name}", table.detach().reshape(-1).clone())


def stored_of(module: nn.Module) -> Stored | None:
    """How a module's weight is stored, if it is stored as codes."""
    found = getattr(module, "stored", None)
    return found if isinstance(found, Stored) else None


def table_of(module: nn.Module, name: str) -> Tensor | None:
    """One of the tables of a module's weight."""
    table = module._buffers.get(f"weight_{name}")
    return None if table is None else table.detach().cpu()


def forget(network: nn.Module) -> nn.Module:
    """Remove all notes and tables from a network, in place."""
    for module in network.modules():
        if stored_of(module) is not None:
            del module.stored
            for name in TABLES:
                module._buffers.pop(f"weight_{name}", None)
    return network


def uniform_values(weight: Tensor, stored: Stored, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """A weight rounded to its nearest codes, as the file's reader computes it; same shape."""
    codes = uniform_codes(weight, stored, scale, offset)
    places = torch.arange(weight.numel(), device=weight.device)
    entry = asdict(stored)
    return values_of(codes, places, entry, scale, offset, None).reshape(weight.shape)


def uniform_codes(weight: Tensor, stored: Stored, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """The codes (N,) int64 from 0 on of a flattened weight."""
    flat = weight.detach().reshape(-1)
    group = torch.arange(len(flat), device=flat.device) // stored.group
    shifted = flat if offset is None else flat - offset[group]
    divided = torch.nan_to_num(shifted / scale[group], nan=0.0, posinf=0.0, neginf=0.0)
    return (divided.round() - stored.least).clamp(0, 2**stored.bits - 1).long()


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """The index of the nearest entry of a table (K,) for each of the values (N,); ties go to the smaller entry."""
    order = table.argsort()
    ordered = table[order]
    middles = (ordered[1:] + ordered[:-1]) / 2
    return order[torch.searchsorted(middles, values.contiguous())]


def exact(values: Tensor, table: Tensor) -> Tensor:
    """The index of the entry of a table (K,) that equals each of the values (N,); of neighbours that differ by one bit too."""
    order = table.argsort(stable=True)
    places = torch.searchsorted(table[order], values.contiguous()).clamp(max=len(table) - 1)
    return order[places]


def encode(module: nn.Module) -> Encoding:
    """The weight of a module that says how it is stored.

    Raises:
        EngineError: the codes decode to other values than the weight's.
    """
    stored = stored_of(module)
    assert stored is not None
    weight: Tensor = module.weight.detach().cpu()  # type: ignore[operator]
    flat = weight.reshape(-1)
    parts: dict[str, Tensor] = {}
    kept = torch.arange(len(flat))
    if stored.sparse:
        kept = flat.nonzero()[:, 0]
        parts["mask"] = bits_of((flat != 0).long(), 1)
    if stored.kind == "float":
        parts["values"] = flat[kept].clone()
    else:
        parts |= {name: table for name in TABLES if (table := table_of(module, name)) is not None}
        parts["codes"] = bits_of(_codes(flat, stored, parts)[kept], stored.bits)
    encoding = Encoding(tuple(weight.shape), stored, parts)
    if not torch.equal(encoding.decode(), weight):
        raise EngineError("a weight cannot be decoded from its codes", "Submit the job again.")
    return encoding


def _codes(flat: Tensor, stored: Stored, parts: Mapping[str, Tensor]) -> Tensor:
    if stored.kind == "codebook":
        return exact(flat, parts["table"])
    return uniform_codes(flat, stored, parts["scale"], parts.get("offset"))


def encodings(network: nn.Module) -> dict[str, Encoding]:
    """All weights of a finalised network that are stored as codes, by the names of their parameters."""
    return {
        f"{path}.weight" if path else "weight": encode(module)
        for path, module in network.named_modules()
        if stored_of(module) is not None
    }


def bits_of(codes: Tensor, bits: int) -> Tensor:
    """Codes (N,) of at most 8 bits as bytes, lowest bit first; the last byte is filled with zeros."""
    small = codes.to(torch.uint8)
    if bits == 8:
        return small
    flat = ((small[:, None] >> torch.arange(bits, dtype=torch.uint8)) & 1).reshape(-1)
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).reshape(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
