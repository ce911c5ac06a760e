"""Datasets with several labels or with targets instead of classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.spec.upload_specs import DatasetOptions
from tests.worker.distillation.data.test_folders import image, write
from tests.worker.distillation.data.test_npz import pixels, save
from tests.worker.distillation.trial import contract_of
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.inspect_upload import inspect

LABELS = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 1]])
TARGETS = np.array([[0.5, -2.0], [1.5, -2.0], [2.5, -2.0], [3.5, -2.0]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def read(path: Path, labels: str = "class") -> Packed:
    return read_dataset(path, Options(labels=labels), UploadLimits())  # type: ignore[arg-type]


def refused(path: Path, labels: str, words: str) -> None:
    with pytest.raises(UploadError, match=words) as caught:
        read(path, labels)
    assert caught.value.hint


@pytest.mark.parametrize("kind", [np.uint8, np.bool_, np.int64, np.float32])
def test_a_matrix_of_labels(path: Path, tmp_path: Path, kind: Any) -> None:
    save(path, x_train=pixels(4, 8, 8), y_train=LABELS.astype(kind), class_names=np.array(["sky", "sea", "sand"]))
    packed = read(path, "multi_label")
    findings = packed.findings()
    assert (findings["labels"], findings["classes"]) == ("multi_label", 3)
    assert findings["per_class"] == {"train": [2, 1, 4]}
    assert findings["warnings"] == [
        "1 label (sea) has a single training image",
        "1 label (sand) applies to all training images",
    ]
    packed.write(tmp_path / "canonical")
    assert load_file(tmp_path / "canonical")["train.label"].dtype == torch.uint8
    images = Images.load(tmp_path / "canonical", "train", contract_of(1, 8), "cpu")
    batch = images.batch_fields(torch.tensor([2, 0]))
    assert batch["label"].tolist() == [[1, 1, 1], [1, 0, 1]] and batch["label"].dtype == torch.float32
    assert batch["index"].tolist() == [2, 0]


def test_targets(path: Path, tmp_path: Path) -> None:
    save(path, images=pixels(4, 8, 8), labels=TARGETS, test_images=pixels(1, 8, 8), test_labels=TARGETS[:1])
    packed = read(path, "target")
    findings = packed.findings()
    assert (findings["labels"], findings["classes"], findings["class_names"]) == ("target", 2, ["0", "1"])
    assert findings["targets"] == {"mean": [2.0, -2.0], "std": [pytest.approx(1.25**0.5), 0.0]}
    assert "per_class" not in findings
    assert findings["warnings"] == ["1 target (1) is the same for all training images"]
    packed.write(tmp_path / "canonical")
    images = Images.load(tmp_path / "canonical", "test", contract_of(1, 8), "cpu")
    assert images.classes == 2
    assert images.batch_fields(slice(0, 1))["target"].tolist() == [[0.5, -2.0]]


def test_one_target_may_be_a_plain_list(path: Path) -> None:
    save(path, images=pixels(4, 8, 8), labels=TARGETS[:, 0])
    assert read(path, "target").splits["train"][1].shape == (4, 1)


@pytest.mark.parametrize(
    ("labels", "arrays", "words"),
    [
        ("multi_label", {"labels": LABELS * 2}, "values other than 0 and 1"),
        ("multi_label", {"labels": np.array([0, 1, 0, 1])}, r"the unsupported shape \(4,\)"),
        ("multi_label", {"labels": LABELS[:3]}, "4 images and 3 labels"),
        ("multi_label", {"labels": LABELS, "class_names": np.array(["a"])}, "1 class names"),
        ("multi_label", {"labels": LABELS[:, :0]}, r"the unsupported shape \(4, 0\)"),
        ("multi_label", {"labels": LABELS, "test_images": pixels(1, 8, 8), "test_labels": LABELS[:1, :2]}, "differ in"),
        ("target", {"labels": TARGETS * np.nan}, "NaN"),
        ("target", {"labels": TARGETS * 1e300}, "too large"),
        ("target", {"labels": TARGETS[:, :, None]}, "the unsupported shape"),
        ("class", {"labels": TARGETS}, "type float64"),
        ("class", {"labels": [0, 0, 1, 1], "camera_train": [1, 2, 3]}, "does not have one number per image"),
        (
            "class",
            {"labels": [0, 0, 1, 1], "query_train": [1, 1, 1, 1]},
            "does not mark both queries and gallery images",
        ),
        ("class", {"labels": [0, 0, 1, 1], "camera_train": [0.5] * 4}, "type float64"),
    ],
)
def test_labels_of_the_wrong_kind_are_refused(path: Path, labels: str, arrays: dict[str, Any], words: str) -> None:
    save(path, images=pixels(4, 8, 8), **arrays)
    refused(path, labels, words)


def test_cameras_and_queries(path: Path, tmp_path: Path) -> None:
    test = {
        "x_test": pixels(3, 8, 8),
        "y_test": [5, 5, 6],
        "camera_test": [1, 2, 1],
        "query_test": [True, False, False],
    }
    save(path, x_train=pixels(4, 8, 8), y_train=[0, 0, 1, 1], **test)
    packed = read(path)
    assert packed.findings()["retrieval"] == {"test": ["camera", "query"]}
    packed.write(tmp_path / "canonical")
    fields = Images.load(tmp_path / "canonical", "test", contract_of(1, 8), "cpu").fields
    assert {name: value.tolist() for name, value in fields.items()} == {
        "label": [5, 5, 6],
        "camera": [1, 2, 1],
        "query": [1, 0, 0],
    }


def test_class_folders_support_classes_only(path: Path) -> None:
    write(path, {f"{name}/1.png": image() for name in "ab"})
    with pytest.raises(UploadError, match="one class per image only"):
        read_dataset(path, Options(labels="target"), UploadLimits())


def test_split_of_samples_without_a_class() -> None:
    target = torch.arange(20.0)[:, None]
    images = Images.of(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), {"target": target}, ("a",), contract_of(1, 8))
    train, held = images.split(0.25, seed=1)
    assert (len(train), len(held)) == (15, 5)
    assert torch.equal(held.fields["target"][:, 0].long(), held.index)
    assert set(train.index.tolist()) | set(held.index.tolist()) == set(range(20))


def test_an_old_canonical_file_is_still_read(tmp_path: Path) -> None:
    tensors = {"train.image": torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "train.label": torch.tensor([0, 2])}
    save_file(tensors, tmp_path / "old")
    images = Images.load(tmp_path / "old", "train", contract_of(1, 8), "cpu")
    assert images.class_names == ("0", "1", "2") and images.label.tolist() == [0, 2]


def test_an_inspection_reads_the_option_labels(path: Path, tmp_path: Path) -> None:
    save(path, images=pixels(4, 8, 8), labels=TARGETS)
    options = DatasetOptions(labels="target").model_dump()
    answer = inspect({"kind": "dataset", "upload": path.name, "options": options}, tmp_path)
    assert (answer["findings"]["labels"], answer["findings"]["classes"]) == ("target", 2)
    assert load_file(tmp_path / answer["path"])["train.target"].tolist() == TARGETS.tolist()
