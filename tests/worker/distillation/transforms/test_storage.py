"""Codes and tables: they decode to the very weights, and their sizes are those of the formulas."""

import json
import struct
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.distillation.compression.quantisers import SCHEMES
from worker.distillation.compression.storage import Stored, bits_of, encode, encodings, forget, nearest, note
from worker.distillation.compression.unpacking import integers, unpacked
from worker.distillation.contract import InputContract
from worker.distillation.errors import EngineError
from worker.distillation.export import export
from worker.distillation.export.huffman import code_lengths, gaps_of, stream
from worker.distillation.export.huffman_reading import BadFile, canonical_codes, decoded, to_safetensors
from worker.distillation.export.safetensors import metadata_of, read

CONTRACT = InputContract(1, 16, 16, (0.5,), (0.25,))
META = {"network": "lenet5", "options": {}, "task": "classification", "output": "logits"}


def weight_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def finished(scheme: str, bits: int, weight: torch.Tensor) -> nn.Module:
    module = nn.Linear(weight.shape[1], weight.shape[0])
    quantiser = SCHEMES[scheme](tuple(weight.shape), bits)
    quantiser.start(weight)
    note(module, quantiser.stored(), **quantiser.tables(weight))
    module.weight.data = quantiser.quantised(weight)
    return module


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_integers_are_read_again(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (1001,))
    packed = bits_of(codes, bits)
    assert packed.dtype == torch.uint8 and len(packed) == -(-1001 * bits // 8)
    assert torch.equal(integers(packed, bits, 1001), codes)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_every_scheme_decodes_bit_for_bit(scheme: str, bits: int) -> None:
    module = finished(scheme, bits, weight_of(7, 41))
    encoding = encode(module)
    assert torch.equal(encoding.decode().view(torch.int32), module.weight.data.view(torch.int32))
    assert len(encoding.parts["codes"]) == -(-7 * 41 * encoding.stored.bits // 8)


def test_a_weight_that_is_no_code_is_refused() -> None:
    module = finished("minmax", 4, weight_of(7, 41))
    module.weight.data[3, 5] += 1e-4
    with pytest.raises(EngineError, match="cannot be decoded"):
        encode(module)


def test_zeros_are_left_out_of_sparse_weights() -> None:
    module = nn.Linear(41, 7)
    note(module, Stored("float", sparse=True))
    module.weight.data = weight_of(7, 41) * (weight_of(7, 41, seed=1) > 1)
    encoding = encode(module)
    kept = int((module.weight != 0).sum())
    assert torch.equal(encoding.decode(), module.weight.data)
    assert encoding.bytes() == 4 * kept + -(-7 * 41 // 8)
    quantiser = SCHEMES["minmax"]((7, 41), 4)
    note(module, quantiser.stored(), **quantiser.tables(module.weight))  # remembers that zeros are left out
    module.weight.data = quantiser.quantised(module.weight)
    assert torch.equal(encode(module).decode(), module.weight.data)
    assert len(encode(module).parts["codes"]) == -(-int((module.weight != 0).sum()) * 4 // 8)


def test_nearest_is_the_nearest() -> None:
    values, table = weight_of(500), weight_of(9, seed=1)
    assert torch.equal(nearest(values, table), (values[:, None] - table).abs().argmin(1))


def test_values_that_differ_by_one_bit_keep_their_codes() -> None:
    """The middle of two neighbours is one of them, so the nearest entry is not always the equal one."""
    one = torch.tensor(1.0)
    table = torch.stack([one, torch.nextafter(one, 2 * one), torch.nextafter(one, 0 * one), 2 * one, one])
    module = nn.Linear(5, 4)
    note(module, Stored("codebook", 3), table=table)
    module.weight.data = table.expand(4, 5).clone()
    assert torch.equal(encode(module).decode().view(torch.int32), module.weight.data.view(torch.int32))


def test_huffman_codes_are_optimal_and_complete() -> None:
    """Kraft's sum is 1, and the mean length is between the entropy and the entropy + 1."""
    counts = Counter(torch.randint(0, 256, (20_000,)).sqrt().int().tolist())
    lengths = code_lengths(counts)
    total = sum(counts.values())
    entropy = -sum(count / total * torch.tensor(count / total).log2().item() for count in counts.values())
    mean = sum(counts[symbol] * length for symbol, length in lengths.items()) / total
    assert sum(2.0**-length for length in lengths.values()) == 1
    assert entropy <= mean < entropy + 1
    codes = canonical_codes([lengths.get(symbol, 0) for symbol in range(max(lengths) + 1)])
    texts = [f"{code:0{length}b}" for length, code in codes.values()]
    assert not any(other.startswith(text) for text in texts for other in texts if other is not text)


def test_gaps_skip_long_runs_of_zeros() -> None:
    assert gaps_of([0, 1, 5, 261, 1000]) == [0, 0, 3, 255, 0, 255, 255, 228]
    assert gaps_of([]) == []


def test_one_symbol_takes_no_bits() -> None:
    entry, data = stream([7] * 100)
    assert entry["count"] == 100 and len(data) == 8  # only the lengths of the codes of 0 to 7


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_files_decode_to_the_students_weights(scheme: str, sparse: bool, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), finished(scheme, 3, weight_of(9, 256)), nn.ReLU(), nn.BatchNorm1d(9))
    network.append(nn.Linear(9, 4))
    if sparse:
        weight = network[1].weight.data * (weight_of(9, 256, seed=4) > 1)
        quantiser = SCHEMES[scheme]((9, 256), 3)
        quantiser.start(weight)
        network[1].stored = Stored("float", sparse=True)
        note(network[1], quantiser.stored(), **quantiser.tables(weight))
        network[1].weight.data = quantiser.quantised(weight)
    files = export(
        network.eval(),
        contract=CONTRACT,
        class_names="abcd",
        formats=["safetensors", "packed", "huffman"],
        folder=tmp_path,
        meta=META,
    )
    plain = read(tmp_path / "student.safetensors")
    packed = tmp_path / "student.packed.safetensors"
    decoded_packed = unpacked(read(packed), metadata_of(packed)["packed"])
    content = (tmp_path / "student.huffman").read_bytes()
    (tmp_path / "again.safetensors").write_bytes(to_safetensors(content))
    again = read(tmp_path / "again.safetensors")
    for given in (decoded_packed, again):
        assert given.keys() == plain.keys() == set(forget(network).state_dict())
        assert all(torch.equal(given[name], plain[name]) for name in plain)
    assert metadata_of(tmp_path / "again.safetensors")["network"] == "lenet5"
    assert [file["name"] for file in files] == ["student.safetensors", "student.packed.safetensors", "student.huffman"]


def test_a_damaged_huffman_file_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), finished("lsq", 4, weight_of(4, 256)))
    export(network, contract=CONTRACT, class_names="abcd", formats=["huffman"], folder=tmp_path, meta=META)
    content = (tmp_path / "student.huffman").read_bytes()
    for damaged in (content[:-9], content[:20], b"no" + content, content[:12] + bytes(40) + content[52:]):
        with pytest.raises(BadFile):
            to_safetensors(damaged)
    header, tensors = decoded(content)
    assert [name for name, *_ in tensors] == ["1.weight", "1.bias"]
    bias = next(data for name, *_, data in tensors if name == "1.bias")
    assert struct.unpack("<4f", bias) == tuple(network[1].bias.tolist())
    assert json.loads(header["metadata"]["classes"]) == 4


def test_a_student_without_codes_cannot_be_packed(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
    assert encodings(network) == {}
    for name in ("packed", "huffman"):
        with pytest.raises(EngineError, match="no weights that are stored as codes"):
            export(network, contract=CONTRACT, class_names="abcd", formats=[name], folder=tmp_path, meta=META)


def test_the_client_has_the_same_reader() -> None:
    here = Path(__file__).parents[4]
    own = (here / "worker/distillation/export/huffman_reading.py").read_bytes()
    assert own == (here / "client/distillery_client/huffman_reading.py").read_bytes()
