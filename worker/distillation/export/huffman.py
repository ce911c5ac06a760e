"""The student's weights as codes in Huffman codes: the smallest file, which `distillery unpack` decodes.

Han, Mao, Dally, "Deep compression", arXiv:1510.00149: sparse weights by the distances between them, and both distances and codes by
how frequent they are. The sizes include all tables.
"""

import heapq
import json
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load as load_bytes
from torch import Tensor, nn

from worker.distillation.compression.plain import plain
from worker.distillation.compression.storage import Encoding, encodings
from worker.distillation.compression.unpacking import integers
from worker.distillation.errors import EngineError
from worker.distillation.export.card import Card
from worker.distillation.export.huffman_reading import MAGIC, MOST_BITS, SKIP, canonical_codes, to_safetensors
from worker.distillation.export.packed import NOTHING, verify
from worker.distillation.export.safetensors import state_dict

TYPES = {torch.float32: "F32", torch.int64: "I64", torch.float64: "F64", torch.uint8: "U8", torch.bool: "BOOL"}


def write(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the file, and decode it as the client does.

    Returns the mean number of bits of a code over all encoded weights, with the distances, in `bits_per_weight`.

    Raises:
        EngineError: nothing is encoded, a tensor has a type that the file cannot hold, or it decodes to other weights.
    """
    found = encodings(student)
    if not found:
        raise EngineError(NOTHING, "Remove `huffman` from `exports`, or add a transform such as `share`.")
    state = state_dict(plain(student))
    entries, body, bits = [], [], 0
    for name, tensor in state.items():
        if name not in found:
            entry, data = _raw(name, tensor)
        else:
            entry, data = _encoded(name, found[name])
            bits += 8 * len(data)
        entries.append(entry)
        body.append(data)
    header = {"metadata": {"format": "pt", **card.texts()}, "tensors": entries}
    text = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), 9)
    path.write_bytes(MAGIC + len(text).to_bytes(4, "little") + text + b"".join(body))
    verify(load_bytes(to_safetensors(path.read_bytes())), state, path.name)
    return {"bits_per_weight": bits / sum(state[name].numel() for name in found)}


def _raw(name: str, tensor: Tensor) -> tuple[dict[str, Any], bytes]:
    if tensor.dtype not in TYPES:
        raise EngineError(
            f"`{name}` has a type that the export `huffman` cannot hold", "Remove `huffman` from `exports`."
        )
    entry = {"name": name, "shape": list(tensor.shape), "kind": "raw", "type": TYPES[tensor.dtype]}
    return entry, tensor.contiguous().numpy().tobytes()


def _encoded(name: str, encoding: Encoding) -> tuple[dict[str, Any], bytes]:
    stored, parts = encoding.stored, encoding.parts
    entry: dict[str, Any] = {"name": name, "shape": list(encoding.shape), "kind": stored.kind, "sparse": stored.sparse}
    data, count = b"", int(torch.Size(encoding.shape).numel())
    if stored.sparse:
        places = integers(parts["mask"], 1, count).nonzero()[:, 0].tolist()
        entry["gaps"], data = stream(gaps_of(places))
        count = len(places)
    if stored.kind == "float":
        return entry, data + _floats(parts["values"])
    tables = {part: parts[part] for part in ("scale", "offset", "table") if part in parts}
    entry |= {"least": stored.least, "group": stored.group}
    entry["tables"] = {part: table.numel() for part, table in tables.items()}
    entry["codes"], coded = stream(integers(parts["codes"], stored.bits, count).tolist())
    return entry, data + b"".join(map(_floats, tables.values())) + coded


def _floats(values: Tensor) -> bytes:
    return struct.pack(f"<{values.numel()}f", *values.reshape(-1).tolist())


def gaps_of(places: Sequence[int]) -> list[int]:
    """The number of zeros before each value; 255 zeros without a value after them are `SKIP`."""
    gaps, last = [], -1
    for place in places:
        zeros = place - last - 1
        while zeros >= SKIP:
            gaps.append(SKIP)
            zeros -= SKIP
        gaps.append(zeros)
        last = place
    return gaps


def stream(symbols: Sequence[int]) -> tuple[dict[str, int], bytes]:
    """Symbols from 0 to 255 as Huffman codes: the entry of the header, and the lengths of the codes with the bits."""
    lengths = code_lengths(Counter(symbols))
    most = max(lengths, default=-1) + 1
    listed = bytes(lengths.get(symbol, 0) for symbol in range(most))
    codes = canonical_codes(listed)
    bits = "".join(f"{codes[symbol][1]:0{codes[symbol][0]}b}" for symbol in symbols) if len(codes) > 1 else ""
    packed = numpy.packbits(numpy.frombuffer(bits.encode(), dtype=numpy.uint8) - ord("0")).tobytes() if bits else b""
    return {"symbols": most, "bytes": len(packed), "count": len(symbols)}, listed + packed


def code_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """The length of each symbol's Huffman code, by how often the symbols occur.

    Raises:
        EngineError: a code would be longer than the reader takes.
    """
    if len(counts) == 1:
        return dict.fromkeys(counts, 1)
    heap = [(count, symbol, {symbol: 0}) for symbol, count in counts.items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        joined = {symbol: length + 1 for symbol, length in {**first[2], **second[2]}.items()}
        heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), joined))
    lengths = heap[0][2] if heap else {}
    if any(length > MOST_BITS for length in lengths.values()):
        raise EngineError("a Huffman code is too long for the file", "Remove `huffman` from `exports`.")
    return lengths
