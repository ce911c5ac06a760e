"""Unsupported files: the error says what they are, and the hint how to convert them."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.distillation.errors import UploadError
from worker.distillation.uploads.state_dicts import read_state_dict

FOREIGN: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "is empty", "again"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567\n",
        "Git LFS pointer.*1234567 bytes",
        "git lfs pull",
    ),
    "page": (b"\n<!DOCTYPE html><html>", "web page", "raw"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "HDF5", "keras"),
    "saved_model": (b"\x08\x01\x12\xff" + b"0" * 99, "SavedModel", "tf.train"),
    "table": (b"\x00\x01" + b"0" * 99 + bytes.fromhex("57fb808b247547db"), "TensorFlow checkpoint", "tf.train"),
    "onnx": (b"\x08\x08\x12\x07pytorch" + b"0" * 99, "ONNX", "to_array"),
    "tflite": (b"\x1c\0\0\0TFL3" + b"0" * 99, "TFLite", "numpy.savez"),
    "msgpack": (b"\x82\xa6params\x81\xa5Dense" + b"0" * 99, "msgpack", "msgpack_restore"),
    "zlib": (b"\x78\x9c" + b"0" * 99, "zlib", "joblib.load"),
    "npy": (b"\x93NUMPY" + b"0" * 99, "single NumPy array", "numpy.savez"),
    "gguf": (b"GGUF" + b"0" * 99, "GGUF", "state_dict"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + b"0" * 99, "archive of another format", "Unpack"),
    "image": (b"\x89PNG\r\n\x1a\n" + b"0" * 99, "an image", "state_dict"),
    "text": (json.dumps({"a": "ü" * 400}, ensure_ascii=False).encode(), "text", "state_dict"),
    "zeros": (bytes(4096), "zeros", "Download"),
    "noise": (b"\x01\x02\xfe\xff" * 99, "neither safetensors nor", "state_dict"),
    "gzip": (b"\x1f\x8b" + b"0" * 99, "cannot be unpacked", "complete file"),
}


def refusal(path: Path) -> UploadError:
    with pytest.raises(UploadError) as caught:
        read_state_dict(path)
    words = f"{caught.value.message} {caught.value.hint}"
    assert "weights_only" not in words and "torch.load" not in words.replace("torch.jit.load", "")
    return caught.value


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_error_says_what_the_file_is_and_how_to_convert_it(tmp_path: Path, kind: str):
    data, words, hint = FOREIGN[kind]
    (tmp_path / "upload").write_bytes(data)
    error = refusal(tmp_path / "upload")
    assert hint in error.hint
    with pytest.raises(UploadError, match=words):
        raise error


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["net/data.pkl", "net/constants.pkl", "net/code/net.py"], "TorchScript"),
        (["archive_format", "models/model.json"], "exported program"),
        (["config.json", "metadata.json", "model.weights.h5"], "Keras"),
        (["saved_model.pb", "variables/variables.index"], "SavedModel"),
        (["model.ckpt.index", "model.ckpt.data-00000-of-00001"], "TensorFlow checkpoint"),
    ],
)
def test_the_error_says_which_library_wrote_a_zip(tmp_path: Path, names: list[str], words: str):
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    assert words in refusal(tmp_path / "upload").message


def test_exported_programs_of_torch_itself(tmp_path: Path):
    exported = torch.export.export(nn.Linear(2, 2).eval(), (torch.randn(2, 2),))
    torch.export.save(exported, tmp_path / "upload.pt2")
    error = refusal(tmp_path / "upload.pt2")
    assert "exported program" in error.message and "torch.export.load" in error.hint


@pytest.mark.parametrize(
    ("opcodes", "words"),
    [
        (b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b.", "joblib"),
        (b"csklearn.linear_model\nLogisticRegression\n)\x81}b.", "scikit-learn"),
        (b"ctorch.jit._pickle\nScriptThing\n)\x81}b.", "TorchScript"),
    ],
)
def test_pickles_of_other_libraries(tmp_path: Path, opcodes: bytes, words: str):
    (tmp_path / "upload").write_bytes(b"\x80\x02" + opcodes)
    assert words in refusal(tmp_path / "upload").message


def test_plain_data_lists_its_keys(tmp_path: Path):
    (tmp_path / "upload").write_bytes(pickle.dumps({"epoch": 3, "loss": [0.5]}))
    assert "'epoch', 'loss'" in refusal(tmp_path / "upload").message


def test_the_hint_for_a_quantised_network_says_what_to_save(tmp_path: Path):
    scales, zeros = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    with warnings.catch_warnings(action="ignore"):  # torch deprecates this function
        quantised = torch.quantize_per_channel(torch.ones(2, 2), scales, zeros, axis=0, dtype=torch.qint8)
    state = {"fc.weight": quantised, "fc.scale": torch.tensor(1.0)}
    torch.save(state, tmp_path / "upload")
    error = refusal(tmp_path / "upload")
    assert "quantised" in error.message and "before `torch.ao.quantization.convert`" in error.hint
