"""A few labelled images of a canonical dataset are read, whatever its size."""

import json

import pytest
import torch
from safetensors.torch import save_file

from worker.distillation.errors import SpecError
from worker.distillation.uploads import labelled_images
from worker.distillation.uploads.labelled_images import sample


def write(path, names=(), **counts):
    """A dataset whose images have the number of their class as the value of their pixels."""
    held = {}
    for split, count in counts.items():
        label = torch.arange(count) % 5
        held[f"{split}.label"] = label
        held[f"{split}.image"] = label.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    save_file(held, path, {"class_names": json.dumps(list(names))})
    return path


def test_images_keep_their_labels_and_are_in_random_order(tmp_path):
    found = sample(write(tmp_path / "data", train=3000))
    assert found.image.shape == (2048, 1, 4, 4) and found.split == "train"
    assert torch.equal(found.image[:, 0, 0, 0].long(), found.label)
    assert len(found.label[:20].unique()) > 2 and not torch.equal(found.label, found.label.sort().values)
    again = sample(tmp_path / "data")
    assert torch.equal(again.image, found.image) and torch.equal(again.label, found.label)


def test_fewer_of_large_images_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(labelled_images, "MOST_NUMBERS", 100 * 16)
    assert len(sample(write(tmp_path / "data", train=3000)).image) == 100


def test_a_large_test_split_is_preferred(tmp_path):
    assert sample(write(tmp_path / "a", train=3000, test=1000)).split == "test"
    assert sample(write(tmp_path / "b", train=3000, test=100)).split == "train"


def test_names_give_the_order_of_classes(tmp_path):
    found = sample(write(tmp_path / "data", names="edcba", train=100))
    ordered = found.in_order("abcde")
    assert torch.equal(ordered.label, 4 - found.label)
    with pytest.raises(SpecError, match="only the dataset has `e`, and only the teacher `f`"):
        found.in_order("abcdf")


def test_what_has_no_classes_is_refused(tmp_path):
    with pytest.raises(SpecError, match="has 20 labelled images; at least 50"):
        sample(write(tmp_path / "few", train=20))
    save_file({"train.image": torch.zeros(80, 1, 4, 4, dtype=torch.uint8)}, tmp_path / "none")
    with pytest.raises(SpecError, match="does not name one class for each image"):
        sample(tmp_path / "none")
    with pytest.raises(SpecError, match=r"labels up to 4, and the network tells 3 classes apart"):
        sample(write(tmp_path / "more", train=100)).check_classes(3)
