"""Valid files of every format, written by the libraries that define them."""

import argparse
import collections
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.state_dicts import open_weights, read_state_dict

MIB = 2**20


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def save(value: Any, path: Path, legacy: bool) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)


def same(path: Path, expected: dict[str, Tensor]) -> None:
    state = read_state_dict(path)
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def container(path: Path) -> str:
    with open_weights(path, UploadLimits()) as file:
        return file.container


def refused(path: Path, words: str, limits: UploadLimits | None = None) -> None:
    with pytest.raises(UploadError, match=words) as caught:
        read_state_dict(path, limits)
    assert caught.value.hint


both = pytest.mark.parametrize("legacy", [False, True])


@both
def test_views_strides_types_and_parameters_are_restored(path: Path, legacy: bool):
    base = torch.arange(24.0)
    state = {
        "base": base,
        "middle": base[5:11],
        "transposed": base.view(4, 6).t(),
        "every_third": base[::3],
        "again": base,
        "parameter": nn.Parameter(base[:2].clone()),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.5),
        "double": torch.tensor([1.0, 1e300], dtype=torch.float64),
        "long": torch.tensor([-(2**60), 7]),
        "bool": torch.tensor([True, False]),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
    }
    save(state, path, legacy)
    same(path, state)
    read = read_state_dict(path)
    assert container(path) == ("torch legacy" if legacy else "torch zip")
    assert read["base"].data_ptr() == read["again"].data_ptr() != read["middle"].data_ptr()
    assert read["middle"].untyped_storage().nbytes() == 6 * 4 and not read["parameter"].requires_grad


@both
def test_types_that_only_the_newest_format_supports(path: Path, legacy: bool):
    state = {"small": torch.tensor([1, 65535], dtype=torch.uint16), "w": torch.ones(2)}
    save(state, path, legacy)
    same(path, state)


@both
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_besides_the_weights_is_inert(path: Path, legacy: bool, protocol: int):
    beside = {
        "args": argparse.Namespace(lr=0.1, path=Path("a/b")),
        "scalar": np.float64(0.5),
        "array": np.arange(6).reshape(2, 3),
        "counter": collections.Counter("abca"),
        "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2], maxlen=3),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "bytes": b"abc",
        "complex": 1j,
        ("tuple", 1): None,
    }
    state = network().state_dict()
    torch.save(
        {"beside": beside, "model": state}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
    )
    same(path, state)


@both
def test_whole_networks_give_the_same_as_their_state_dict(path: Path, legacy: bool):
    whole = network()
    whole.register_buffer("kept", torch.ones(3))
    whole.register_buffer("passing", torch.zeros(4), persistent=False)
    whole[3].bias = None
    whole.add_module("again", whole[0])
    for module in (whole, nn.DataParallel(whole)):
        save(module, path, legacy)
        same(path, whole.state_dict())
    assert "passing" not in read_state_dict(path) and "again.weight" in read_state_dict(path)


@both
def test_a_state_dict_method_that_was_saved_instead_of_its_result_is_read(path: Path, legacy: bool):
    """`torch.save(network.state_dict, path)` saves the bound method, which contains the network."""
    whole = network()
    save(whole.state_dict, path, legacy)
    same(path, whole.state_dict())


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_tensors_and_of_arrays_without_torch_save(path: Path, protocol: int):
    state = {name: tensor for name, tensor in network().state_dict().items() if tensor.ndim}
    path.write_bytes(pickle.dumps(dict(state), protocol=protocol))
    same(path, state)
    arrays = {name: np.asfortranarray(tensor.numpy()) for name, tensor in state.items()}
    path.write_bytes(pickle.dumps(arrays, protocol=protocol))
    same(path, state)
    assert container(path) == "plain pickle"


def test_arrays_of_other_byte_orders_or_of_objects_are_refused(path: Path):
    for array in (np.ones(3, ">f4"), np.array([object, 1], dtype=object)):
        path.write_bytes(pickle.dumps({"w": array}, protocol=2))
        refused(path, "byte order")
        with path.open("wb") as file:
            np.savez(file, w=array)
        refused(path, "has the type .*, which is not supported")


@pytest.mark.parametrize("save_arrays", [np.savez, np.savez_compressed])
def test_npz(path: Path, save_arrays: Callable[..., None]):
    state = network().state_dict()
    with path.open("wb") as file:
        save_arrays(file, **{name: tensor.numpy() for name, tensor in state.items()})
    same(path, state)
    assert container(path) == "npz"


def test_npz_with_another_shape_than_its_bytes_is_refused(path: Path):
    with path.open("wb") as file:
        np.savez(file, w=np.ones(4, np.float32))
    path.write_bytes(path.read_bytes().replace(b"(4,)", b"(5,)"))
    refused(path, "does not match its shape|cannot be unpacked")


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return stream.getvalue()
    form = {"tar": tarfile.GNU_FORMAT, "tar.gz": tarfile.PAX_FORMAT}[kind]
    with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tar.gz" else "w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def weights(legacy: bool = False) -> tuple[dict[str, Tensor], bytes]:
    stream, state = io.BytesIO(), network().state_dict()
    torch.save(state, stream, _use_new_zipfile_serialization=not legacy)
    return state, stream.getvalue()


@both
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", ["best.pth", "a" * 120 + "/é/model.PT"])
def test_archive_with_one_file_of_weights_is_opened(path: Path, kind: str, name: str, legacy: bool):
    state, data = weights(legacy)
    path.write_bytes(packed(kind, {"README.md": b"hello", "__MACOSX/._best.pth": b"x", name: data, "log.txt": b""}))
    same(path, state)
    assert "in tar" in container(path) or "in zip" in container(path)
    assert [each.name for each in path.parent.iterdir() if each.is_file()] == ["upload"]


def test_file_compressed_by_gzip_is_opened(path: Path):
    state, data = weights()
    path.write_bytes(gzip.compress(data))
    same(path, state)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_with_several_or_nested_weights_are_refused(path: Path, kind: str):
    _, data = weights()
    path.write_bytes(packed(kind, {"a.pth": data, "b.pth": data}))
    refused(path, r"2 files of weights \('a.pth', 'b.pth'\)")
    path.write_bytes(packed(kind, {"a.pth": packed("zip", {"b.pth": data})}))
    refused(path, "neither")
    path.write_bytes(packed(kind, {"readme.txt": b"hello"}))
    refused(path, "no file of weights, but 'readme.txt'")


@pytest.mark.parametrize(
    ("kind", "ratio", "size"),
    [
        (
            "zip",
            "compression ratio of the archive entry 'a.pth' is above 200",
            "bytes uncompressed; the maximum is 2097152",
        ),
        ("tar.gz", "the uncompressed archive is larger than", "the uncompressed archive is larger than 2097152 bytes"),
    ],
)
def test_archive_that_is_too_large_uncompressed_is_refused(path: Path, kind: str, ratio: str, size: str):
    path.write_bytes(packed(kind, {"a.pth": bytes(40 * MIB)}))
    assert path.stat().st_size < MIB
    refused(path, ratio)
    path.write_bytes(packed(kind, {"a.pth": bytes(3 * MIB)}))
    refused(path, size, UploadLimits(unpacked_bytes=2 * MIB, ratio=10**6))
    path.write_bytes(gzip.compress(bytes(40 * MIB)))
    refused(path, "the file is larger than [0-9]+ bytes when uncompressed")


def test_tar_archives_with_wrong_headers_are_refused(path: Path):
    _, data = weights()
    whole = packed("tar", {"a.pth": data})
    path.write_bytes(whole[: len(data) // 2])
    refused(path, "cut short: at least [0-9]+ bytes are missing")
    path.write_bytes(whole[:100] + b"7" + whole[101:])
    refused(path, "header of the tar archive is malformed")
    path.write_bytes(packed("tar.gz", {"a" * (5 * MIB): data}))
    refused(path, "a header of the tar archive has")


def test_zip_whose_headers_contradict_each_other_is_refused(path: Path):
    torch.save({"w": torch.ones(8)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entry = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
    place = entry.header_offset
    for change, words in (
        (data[: place + 8] + b"\x08" + data[place + 9 :], "contradict"),
        (data[: place + 31] + b"X" + data[place + 32 :], "contradict"),
        (data[:place] + b"X" + data[place + 1 :], "not where its directory says"),
        (data[:-12] + b"\x01" + data[-11:], "contradict|malformed"),
        (b"X" + data, "neither|extra bytes before|malformed"),
        (data + b"X", "extra bytes at its end"),
    ):
        path.write_bytes(change)
        refused(path, words)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_old_file_that_is_cut_short_says_what_is_missing(path: Path, share: float):
    state = {"a": torch.ones(1000), "b": torch.ones(1000)}
    save(state, path, legacy=True)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "cut short" if share < 0.1 else "cut short: at least [0-9]+ bytes are missing")


def test_old_file_cut_by_ten_bytes_misses_ten(path: Path):
    save({"a": torch.ones(1000)}, path, legacy=True)
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "at least 10 bytes are missing")


def test_a_sparse_tensor_besides_the_weights_is_ignored(path: Path):
    torch.save({"model": {"w": torch.ones(3), "b": torch.ones(1)}, "sparse": torch.eye(3).to_sparse()}, path)
    assert list(read_state_dict(path)) == ["w", "b"]


def test_big_endian_zip_is_refused(path: Path):
    torch.save({"w": torch.ones(8)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, b"big" if name.endswith("byteorder") else data)
    refused(path, "big-endian")
