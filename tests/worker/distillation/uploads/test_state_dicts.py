"""Valid and malicious files of weights; malicious files are created here by hand."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.state_dicts import open_weights, read_state_dict


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def refused(path: Path, words: str, limits: UploadLimits | None = None) -> UploadError:
    with pytest.raises(UploadError, match=words) as caught:
        read_state_dict(path, limits)
    assert caught.value.hint and caught.value.fault == "user"
    return caught.value


def rewrite(path: Path, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> None:
    """Rewrite the archive with other bytes for some entries (by the last part of their names), or compressed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, replaced.get(name.rpartition("/")[2].replace(".", "_"), data))


class Payload:
    """Pickled as a call that creates a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_both_formats_give_the_same_state_under_any_file_name(tmp_path: Path):
    expected = network().state_dict()
    torch.save(expected, tmp_path / "weights.safetensors")
    save_file(expected, tmp_path / "weights.pth")
    for file in tmp_path.iterdir():
        state = read_state_dict(file)
        assert set(state) == set(expected)
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    containers = {}
    for file in tmp_path.iterdir():
        with open_weights(file, UploadLimits()) as found:
            containers[file.name] = found.container
    assert containers == {
        "weights.safetensors": "torch zip",
        "weights.pth": "safetensors",
    }


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes_and_optimiser_states(path: Path, wrapper: str, prefix: str):
    trained = network()
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.randn(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    state = OrderedDict((prefix + name, tensor) for name, tensor in trained.state_dict().items())
    torch.save(
        {"epoch": 3, wrapper: state, "optimizer": optimizer.state_dict(), "note": "best", "loss": [0.1, None]}, path
    )
    assert list(read_state_dict(path)) == list(trained.state_dict())


def test_half_precision_is_widened_and_parameters_become_tensors(path: Path):
    weight = torch.tensor([0.5, -2.0])
    torch.save({"a": weight.half(), "b": weight.bfloat16(), "c": nn.Parameter(weight), "n": torch.tensor(7)}, path)
    state = read_state_dict(path)
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "a": torch.float32,
        "b": torch.float32,
        "c": torch.float32,
        "n": torch.int64,
    }
    assert all(torch.equal(state[name], weight) for name in "abc") and not state["c"].requires_grad


@pytest.mark.parametrize("legacy", [False, True])
def test_payload_is_not_run(path: Path, tmp_path: Path, legacy: bool):
    marker = tmp_path / "was_run"
    torch.save({"weight": torch.ones(2), "x": Payload(marker)}, path, _use_new_zipfile_serialization=not legacy)
    assert list(read_state_dict(path)) == ["weight"]
    path.write_bytes(pickle.dumps(Payload(marker)))
    refused(path, "no state dict.*posix.mkdir.*none of which was created")
    assert not marker.exists()


def test_programs_are_refused(path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/code/net.py", b"")
    refused(path, "TorchScript")
    torch.export.save(torch.export.export(network().eval(), (torch.randn(2, 1, 8, 8),)), path.with_suffix(".pt2"))
    refused(path.with_suffix(".pt2"), "exported program")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("write", [torch.save, save_file])
def test_truncated_files_are_refused(path: Path, share: float, write):
    write(network().state_dict(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, "cut short|cannot be read|malformed")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("write", [torch.save, save_file])
def test_weights_that_are_not_finite_are_named(path: Path, value: float, write):
    state = network().state_dict()
    state["3.bias"][1] = value
    write(state, path)
    refused(path, r"`3\.bias` contains NaN or infinite")


def test_decompression_bomb_is_refused(path: Path):
    torch.save({"weight": torch.zeros(2**20)}, path)
    rewrite(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**14
    refused(path, "compressed")


def test_tensor_that_claims_more_than_it_stores_is_refused(path: Path):
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert path.stat().st_size < 4096
    refused(path, "claims more elements")


@pytest.mark.parametrize("make", [lambda: torch.eye(3).to_sparse(), lambda: torch.empty(3, device="meta")])
def test_unusual_tensors_are_refused(path: Path, make):
    torch.save({"weight": make()}, path)
    refused(path, "only dense tensors")


def test_complex_and_eight_bit_numbers_are_refused(path: Path):
    torch.save({"weight": torch.ones(2, dtype=torch.complex64)}, path)
    refused(path, "complex64")
    torch.save({"weight": torch.ones(2, dtype=torch.float8_e4m3fn)}, path)
    refused(path, "float8")


def test_list_doubled_sixty_times_is_read_in_time(path: Path):
    node: list = [torch.ones(2)]
    for _ in range(60):
        node = [node, node]
    torch.save({"state_dict": {"weight": torch.ones(2)}, "extra": node}, path)
    assert list(read_state_dict(path)) == ["weight"]


def test_shallow_sharing_is_walked_once(path: Path):
    node: list = [torch.ones(2)] * 50
    for _ in range(10):
        node = [node] * 50
    torch.save({"state_dict": {"weight": torch.ones(2)}, "extra": node}, path)
    assert list(read_state_dict(path)) == ["weight"]


@pytest.mark.parametrize("name", ["../data/0", "/data/0", "net\\data\\0", "net//0"])
def test_names_that_torch_does_not_write_are_refused(path: Path, name: str):
    torch.save({"weight": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"0000")
    refused(path, "an entry with the name")


def test_second_folder_and_same_name_twice_are_refused(path: Path):
    torch.save({"weight": torch.ones(2)}, path)
    original = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/0", b"0000")
    refused(path, "not a checkpoint written by")
    path.write_bytes(original)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"0000")
    refused(path, "same name")


def test_large_pickle_and_large_weights_are_refused(path: Path):
    torch.save({"weight": torch.ones(100)}, path)
    refused(path, "the checkpoint's pickle has", UploadLimits(pickle_bytes=16))
    refused(path, "more than 99 elements", UploadLimits(parameters=99))


def test_zip_without_weights_is_refused(path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", b"hello")
    refused(path, "no file of weights, but 'a/readme.txt'")


def test_file_without_state_dict_is_refused(path: Path):
    for content in ({"epoch": 3}, [torch.ones(2)], torch.ones(2), {"state_dict": {}}):
        torch.save(content, path)
        refused(path, "no state dict")


def safetensors(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = b'{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'


@pytest.mark.parametrize(
    "data",
    [
        safetensors(b'{"a": ' + ENTRY + b', "a": ' + ENTRY + b"}", bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [0, 10**15], "data_offsets": [0, 0]}}, b""),
        safetensors({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
        safetensors({"a": 3}, b""),
        safetensors(b"{" + b'"a":[' * 5000, b""),
        safetensors(b"{", b""),
    ],
)
def test_malformed_safetensors_are_refused(path: Path, data: bytes):
    path.write_bytes(data)
    refused(path, "safetensors|does not match its shape|no state dict")


@cache
def checkpoint(form: str) -> bytes:
    stream, state = io.BytesIO(), network().state_dict()
    if form == "npz":
        np.savez(stream, **{name: tensor.numpy() for name, tensor in state.items()})
    elif form == "safetensors":
        stream.write(save(state))
    else:
        torch.save(
            network() if form == "module" else {"state_dict": state},
            stream,
            _use_new_zipfile_serialization=form == "zip",
        )
    return stream.getvalue()


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(["zip", "legacy", "module", "npz", "safetensors"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_changed_byte_gives_finite_tensors_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, form: str, changes: list[tuple[float, int]]
):
    data = bytearray(checkpoint(form))
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(data)
    try:
        state = read_state_dict(path)
    except UploadError as error:
        assert error.hint
    else:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
