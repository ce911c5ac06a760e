"""Inspection of the three kinds of upload, from the job file to the canonical form."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.uploads.inspect_upload import inspect

CONTRACT = InputContract(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
INPUT = {"channels": 3, "height": 16, "width": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


def teacher_job(folder: Path, network: str = "resnet8_cifar", **said: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    state = networks.build(network, 4, CONTRACT).state_dict()
    torch.save({"state_dict": {"module." + name: tensor for name, tensor in state.items()}}, folder / "sent")
    teacher = {"network": network, "options": {}, "classes": 4, "class_names": list("abcd"), "input": INPUT}
    return {"kind": "teacher", "upload": "sent", "teacher": teacher | said}


def test_teacher(tmp_path: Path):
    answer = inspect(teacher_job(tmp_path), tmp_path)
    found, network = answer["findings"], networks.build("resnet8_cifar", 4, CONTRACT)
    assert answer["path"] == "output/canonical.safetensors"
    network.load_state_dict(load_file(tmp_path / answer["path"]), strict=True)
    assert found["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert found["bytes"] == (tmp_path / answer["path"]).stat().st_size
    assert found["batch_norm"] is True and found["differentiable"] is True
    assert (
        found["taps"]["layer1"] == [16, 16, 16]
        and found["taps"]["layer3"] == [64, 4, 4]
        and "layer3" in found["stages"]
    )
    assert (found["network"], found["classes"], found["input"]) == ("resnet8_cifar", 4, INPUT)


def test_weights_of_another_network_are_read_as_what_they_are_and_those_of_other_classes_refused(tmp_path: Path):
    job = teacher_job(tmp_path)
    found = inspect({**job, "teacher": {**job["teacher"], "network": "resnet14_cifar"}}, tmp_path)["findings"]
    assert found["network"] == "resnet8_cifar"
    assert any("not those of `resnet14_cifar`" in words for words in found["warnings"])
    (tmp_path / "output/canonical.safetensors").unlink()
    with pytest.raises(UploadError) as caught:
        inspect({**job, "teacher": {**job["teacher"], "classes": 5, "class_names": []}}, tmp_path)
    assert "`resnet8_cifar` with 4 classes" in caught.value.hint
    assert not (tmp_path / "output/canonical.safetensors").exists()


@pytest.mark.parametrize(
    ("said", "pointer"),
    [
        ({"network": "no_such_network"}, "/network"),
        ({"options": {"no_such_option": 1}}, "/options/no_such_option"),
        ({"class_names": ["a"]}, "/class_names"),
        ({"input": INPUT | {"std": [0.2]}}, "/input/std"),
        ({"input": INPUT | {"std": [0.2, 0.0, 0.2]}}, "/input/std"),
    ],
)
def test_the_users_description_is_checked(tmp_path: Path, said: dict[str, Any], pointer: str):
    with pytest.raises(SpecError) as caught:
        inspect(teacher_job(tmp_path, **said), tmp_path)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_network_over_the_limit_is_refused_before_it_is_built(tmp_path: Path):
    job = {**teacher_job(tmp_path), "limits": {"parameters": 1000}}
    with pytest.raises(SpecError, match="the maximum is 1000"):
        inspect(job, tmp_path)


def test_a_small_file_does_not_make_the_service_build_a_large_network(tmp_path: Path):
    """It is refused before the network's numbers are made."""
    job = {**teacher_job(tmp_path), "limits": {"canonical_bytes": 100_000}}
    with pytest.raises(UploadError, match="the maximum is 100000"):
        inspect(job, tmp_path)


def test_network_with_nan_outputs_is_refused(tmp_path: Path):
    job = teacher_job(tmp_path)
    state = torch.load(tmp_path / "sent")["state_dict"]
    state["module.bn1.running_var"].fill_(-1.0)
    torch.save(state, tmp_path / "sent")
    with pytest.raises(UploadError, match="output for random images is NaN"):
        inspect(job, tmp_path)


def test_dataset(tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 3])
    with (tmp_path / "sent").open("wb") as file:
        np.savez(file, x_train=image, y_train=label, x_test=image[:3], y_test=label[:3])
    answer = inspect({"kind": "dataset", "upload": "sent", "options": {}}, tmp_path)
    found = answer["findings"]
    assert found["splits"] == {"train": 9, "test": 3} and found["classes"] == 4
    assert found["class_names"] == ["0", "1", "2", "3"] and found["per_class"] == {
        "train": [4, 4, 0, 1],
        "test": [3, 0, 0, 0],
    }
    assert found["image"] == {"channels": 3, "height": 8, "width": 8} and found["format"] == "npz"
    np.testing.assert_allclose(found["mean"], (image / 255).mean((0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(found["std"], (image / 255).std((0, 1, 2)), atol=1e-12)
    assert any("1 class (2) has no training image" in text for text in found["warnings"])
    assert any("1 class (3) has a single training image" in text for text in found["warnings"])
    contract = InputContract(3, 8, 8, tuple(found["mean"]), tuple(found["std"]))
    images = Images.load(tmp_path / answer["path"], "train", contract, "cpu")
    assert np.array_equal(images.image.permute(0, 2, 3, 1).numpy(), image) and images.classes == 4


def test_the_same_dataset_has_the_same_canonical_bytes(tmp_path: Path):
    with (tmp_path / "sent").open("wb") as file:
        np.savez(file, images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    job = {"kind": "dataset", "upload": "sent", "options": {}}
    first, second = ((tmp_path / inspect(job, tmp_path)["path"]).read_bytes() for _ in range(2))
    assert first == second


def test_dataset_options_are_checked_and_other_files_refused(tmp_path: Path):
    (tmp_path / "sent").write_bytes(b"hello")
    with pytest.raises(SpecError) as caught:
        inspect({"kind": "dataset", "upload": "sent", "options": {"height": 0}}, tmp_path)
    assert caught.value.problems[0].pointer == "/options/height"
    with pytest.raises(UploadError, match="is a text file"):
        inspect({"kind": "dataset", "upload": "sent", "options": {}}, tmp_path)
    with zipfile.ZipFile(tmp_path / "sent", "w") as archive:
        archive.writestr("a/readme.txt", b"")
    with pytest.raises(UploadError, match="contains no images"):
        inspect({"kind": "dataset", "upload": "sent", "options": {}}, tmp_path)


def test_file_of_weights(tmp_path: Path):
    torch.save({"model": {"a": torch.ones(2, 3), "b": torch.ones(4).half()}}, tmp_path / "sent")
    answer = inspect({"kind": "file", "upload": "sent", "options": {"kind": "weights"}}, tmp_path)
    assert answer["findings"]["parameters"] == 10 and answer["findings"]["shapes"] == {"a": [2, 3], "b": [4]}
    assert load_file(tmp_path / answer["path"])["b"].dtype == torch.float32
