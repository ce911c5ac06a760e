"""Malicious files of weights. They are assembled here and read in a separate process with a memory limit."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.distillation.uploads.hostile_pickles import (
    Call,
    Name,
    Raw,
    Stored,
    emit,
    legacy,
    numbers,
    pickled,
    storage,
    tensor,
    zipped,
)
from worker.distillation.uploads.weights_file.inert import OtherKey
from worker.distillation.uploads.weights_file.pickle_stack import key_of

MARKER = "was_run"
MEMORY = 6 * 2**30
MOST_SECONDS, MOST_MEGABYTES = 20.0, 700.0
MAKE = ("os", "mkdir")
ARGS = emit((MARKER,))
MAKER = emit(Name(*MAKE))


def beside(extra: Any) -> bytes:
    """A state dict with one valid weight, and another object."""
    return zipped({"state_dict": {"weight": tensor()}, "extra": extra})


def doubled(begin: bytes, times: int = 60) -> Raw:
    """A list that contains a list twice, which contains a list twice, and so on: 2^60 paths."""
    return Raw(begin + b"".join(b"q\x01](h\x01h\x01e" for _ in range(times)))


def module(children: bytes) -> bytes:
    """An object with the attributes of a module, stored at index 1 of the memo before it gets its children."""
    empty = b"X\x0b\0\0\0_parameters}X\x08\0\0\0_buffers}"
    return b"ca\nNet\n)\x81q\x01}(" + empty + b"X\x08\0\0\0_modules" + children + b"ub"


READ: dict[str, bytes] = {
    "reduce": beside(Call(Name(*MAKE), (MARKER,))),
    "posix": beside(Call(Name("posix", "mkdir"), (MARKER,))),
    "stack_global": beside(Raw(emit("os") + emit("mkdir") + b"\x93" + ARGS + b"R")),
    "inst": beside(Raw(b"(" + emit(MARKER) + b"ios\nmkdir\n")),
    "obj": beside(Raw(b"(" + MAKER + emit(MARKER) + b"o")),
    "newobj": beside(Raw(MAKER + ARGS + b"\x81")),
    "newobj_ex": beside(Raw(MAKER + ARGS + b"}\x92")),
    "build": beside(Raw(b"cm\nC\n)\x81" + emit({"__setstate__": Name(*MAKE)}) + b"b")),
    "build_a_call": beside(Call(Call(Name("builtins", "getattr"), (Name("os", ""), "mkdir")), (MARKER,), {"a": 1})),
    "eval": beside(Call(Name("builtins", "eval"), (f"__import__('os').mkdir({MARKER!r})",))),
    "append_to_object": beside(Raw(MAKER + ARGS + b"R](" + MAKER + b"ea")),
    "items_of_object": beside(Raw(MAKER + ARGS + b"R" + emit("k") + MAKER + b"s")),
    "torch_load": beside(Call(Name("torch.serialization", "load"), (MARKER,))),
    "bytearray": beside(Call(Name("builtins", "bytearray"), (2**34,))),
    "numpy_zeros": beside(Call(Name("numpy", "zeros"), (2**34,))),
    "range_list": beside(Call(Name("builtins", "list"), (Call(Name("builtins", "range"), (2**34,)),))),
    "doubled_list": beside(doubled(b"]")),
    "doubled_tuple": beside(Raw(b")" + b"q\x01h\x01h\x01\x86" * 60)),
    "deep_list": beside(Raw(b"]" * 400_000 + b"a" * 399_999)),
    "deep_tuple": beside(Raw(b")" + b"\x85" * 300_000)),
    "deep_tuple_as_key": beside(Raw(b"})" + b"\x85" * 300_000 + b"Ns")),
    "deep_object": beside(Raw(b"cm\nC\n" * 60_000 + b")R" + b"\x85R" * 59_999)),
    "itself": beside(Raw(b"]q\x01h\x01a}q\x02" + emit("k") + b"h\x02s\x86")),
    "same_hashes": beside(
        Raw(b"}(" + b"".join(emit((index + 1) * (2**61 - 1)) + b"N" for index in range(100_000)) + b"u")
    ),
    "integers_that_collide": beside(
        Raw(b"}(" + b"".join(emit(index << 40) + b"N" for index in range(100_000)) + b"u")
    ),
    "huge_frame": beside(Raw(b"\x95" + struct.pack("<Q", 2**63) + b"N")),
    "far_memo": beside(Raw(b"Nr" + b"\xff" * 4)),
    "aliases": zipped(
        {"state_dict": Raw(b"}(" + emit("n") + emit(tensor((1024, 1024), (1024, 1))) .replace(
            emit(storage()), emit(storage(numel=2**20))) + b"q\x01"
            + b"".join(emit(f"n{index}") + b"h\x01" for index in range(1000)) + b"u")},
        {"0": numbers() * 2**18},
    ),
    "shadow": zipped(
        Call(Name("collections", "OrderedDict"), ([["weight", tensor()]],), {"values": Name(*MAKE), "items": {}, "weight": 0})
    ),
}  # fmt: skip
"""Files whose valid weight is read; everything else stays inert."""

REFUSED: dict[str, tuple[bytes, str]] = {
    "alone": (zipped(Call(Name(*MAKE), (MARKER,))), "no state dict"),
    "alone_plain": (pickled(Call(Name(*MAKE), (MARKER,))), "no state dict"),
    "alone_legacy": (legacy(Call(Name(*MAKE), (MARKER,)), keys=()), "no state dict"),
    "ext": (beside(Raw(b"\x82\x01")), "EXT1"),
    "persid": (beside(Raw(b"P0\n")), "PERSID"),
    "next_buffer": (beside(Raw(b"\x97")), "NEXT_BUFFER"),
    "no_opcode": (beside(Raw(b"\xff")), "unknown"),
    "underflow": (zipped(Raw(b"0")), "stack is empty"),
    "below_the_mark": (zipped(Raw(b"}(00")), "stack is empty"),
    "no_mark": (zipped(Raw(b"}t")), "no mark"),
    "memo": (zipped(Raw(b"h\x05")), "memo has no entry"),
    "append_to_tuple": (zipped(Raw(b")Na")), "not a list"),
    "store_in_tensor": (zipped(Raw(emit(tensor()) + emit("k") + b"Ns")), "not a dictionary"),
    "odd_dictionary": (zipped(Raw(b"}(Nu")), "without a value"),
    "twice_built": (beside(Raw(b"cm\nC\n)\x81}b}b")), "state of an object twice"),
    "long4": (beside(Raw(b"\x8b" + struct.pack("<i", 20_000_000) + b"\x7f" * 20_000_000)), "bits"),
    "long4_negative": (beside(Raw(b"\x8b" + struct.pack("<i", -5))), "negative|count"),
    "long_text": (beside(Raw(b"L" + b"9" * 1_000_000 + b"L\n")), "digits"),
    "bytes8": (beside(Raw(b"\x8e" + struct.pack("<Q", 2**62))), "remain|bytes8"),
    "unicode8": (beside(Raw(b"\x8d" + struct.pack("<Q", 2**62))), "remain|bytes|unicode"),
    "bytearray8": (beside(Raw(b"\x96" + struct.pack("<Q", 2**62))), "remain|bytes"),
    "many_opcodes": (beside(Raw(b"]" + b"\x94" * 3_000_001)), "too many objects"),
    "many_lists": (beside(Raw(b"]0" * 1_700_000 + b"N")), "too many objects"),
    "copied_pairs": (
        beside(Raw(b"](" + b"]NaNaq\x02" + b"h\x02" * 20_000 + b"eq\x01"
                   + b"".join(emit(Name("collections", "OrderedDict")) + b"h\x01\x85R0" for _ in range(1000)))),
        "too many objects",
    ),
    "modules_of_itself": (zipped(Raw(module(b"}(" + emit("a") + b"h\x01" + emit("b") + b"h\x01u"))), "too many objects"),
    "stride_0": (zipped({"w": tensor((10**4, 10**4), (0, 0))}), "claims more elements"),
    "hidden_stride_0": (
        zipped(Call(Name("collections", "OrderedDict"), ([["w", tensor((10**4, 10**4), (0, 0))]],),
                    {"values": Name("builtins", "list"), "items": Name("builtins", "list"), "__dict__": {}})),
        "claims more elements",
    ),
    "huge_shape": (zipped({"w": tensor((2**39,) * 16, (0,) * 16)}), "claims more elements"),
    "beyond": (zipped({"w": tensor(offset=1)}), "claims more elements"),
    "far_strides": (zipped({"w": tensor(strides=(2**39, 1))}), "claims more elements"),
    "negative_stride": (zipped({"w": tensor(strides=(-2, 1), offset=2)}), "an invalid shape, strides or storage"),
    "negative_offset": (zipped({"w": tensor(offset=-1)}), "an invalid shape, strides or storage"),
    "boolean_shape": (zipped({"w": tensor((True, 2))}), "an invalid shape, strides or storage"),
    "many_dimensions": (zipped({"w": tensor((1,) * 65, (1,) * 65)}), "an invalid shape, strides or storage"),
    "strides_missing": (zipped({"w": tensor(strides=(1,))}), "an invalid shape, strides or storage"),
    "no_storage": (zipped({"w": tensor(of=[1, 2, 3, 4])}), "an invalid shape, strides or storage"),
    "storage_elsewhere": (zipped({"w": tensor(of=storage("../0"))}), "missing"),
    "storage_lies": (zipped({"w": tensor(of=storage(numel=2**40))}), "claims more elements"),
    "overlapping": (
        zipped({f"w{index}": tensor((900_000,), (1,), index, storage(numel=10**6)) for index in range(300)},
               {"0": bytes(4 * 10**6)}),
        "overlap",
    ),
    "wrong_id": (zipped(Stored(("storage", "torch.FloatStorage", "0", "cpu", 4))), "persistent id"),
    "legacy_numel": (legacy({"w": tensor()}, numel=5), "has 5 elements, but its description says 4"),
    "legacy_claim": (legacy({"w": tensor(of=storage(numel=2**30))}, numel=2**30), "cut short: at least"),
    "legacy_keys": (legacy({"w": tensor()}, keys=("0", "7")), "list of storages"),
    "legacy_no_keys": (legacy({"w": tensor()}, keys=()), "does not contain the storage"),
    "legacy_two_types": (
        legacy({"w": tensor(), "v": tensor(of=storage(kind="DoubleStorage"))}), "two contradictory descriptions"
    ),
    "legacy_byte_order": (legacy({"w": tensor()}, little_endian=False), "big-endian"),
    "nested_twice": (
        pickled(Call(Name("torch.storage", "_load_from_bytes"), (
            legacy(Call(Name("torch.storage", "_load_from_bytes"), (b"\x80\x02N.",))),))),
        "contains another storage",
    ),
    "quantised": (
        zipped({"w": Call(Name("torch._utils", "_rebuild_qtensor"), (storage(), 0, (2, 2), (2, 1), None, False, {}))}),
        "quantised",
    ),
}  # fmt: skip
"""Files that are refused, and a part of the error message."""


def test_a_file_cannot_choose_the_hashes_of_keys():
    """An integer is its own hash, so only those are keys that cannot collide in the table of a dictionary."""
    assert [type(key_of(key)) for key in (0, 2**16 - 1)] == [int, int]
    assert [type(key_of(key)) for key in (-1, 2**16, 2**61 - 1, 1.5, (1,))] == [OtherKey] * 5


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The result of each file, read in one process with an address space of 6 GiB."""
    folder = tmp_path_factory.mktemp("hostile")
    files = folder / "files"
    files.mkdir()
    for name, data in (READ | {name: data for name, (data, _) in REFUSED.items()}).items():
        (files / name).write_bytes(data)
    script = Path(__file__).with_name("measured_reading.py")
    root = Path(__file__).parents[4]
    limited = f"ulimit -v {MEMORY // 1024}; exec {sys.executable} -W error {script} {files}"
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S602  # the shell sets the limit; no argument comes from outside this test
        limited, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    assert not (folder / MARKER).exists(), "code of a file was run"
    return {line["file"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", READ)
def test_the_valid_weight_is_read_and_everything_else_stays_inert(outcomes: dict[str, dict[str, Any]], name: str):
    assert outcomes[name].get("first") == [1.0, 2.0, 3.0, 4.0], outcomes[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_malicious_file_is_refused_with_a_reason(outcomes: dict[str, dict[str, Any]], name: str):
    found = outcomes[name]
    assert any(word in found.get("refused", "") for word in REFUSED[name][1].split("|")), found
    assert found["hint"]


@pytest.mark.parametrize("name", [*READ, *REFUSED])
def test_a_malicious_file_costs_little_time_and_memory(outcomes: dict[str, dict[str, Any]], name: str):
    assert outcomes[name]["seconds"] < MOST_SECONDS and outcomes[name]["megabytes"] < MOST_MEGABYTES, outcomes[name]


def test_a_thousand_names_of_one_tensor_share_its_memory(outcomes: dict[str, dict[str, Any]]):
    assert outcomes["aliases"]["count"] == 1001 and outcomes["aliases"]["megabytes"] < 64
