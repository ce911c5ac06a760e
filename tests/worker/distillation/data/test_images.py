"""Images: loading, converting, normalising, splitting."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images, _affine, fit, has_split, warnings_of
from worker.distillation.errors import UploadError

GREY = InputContract(1, 8, 8, (0.25,), (0.5,))
RGB = InputContract(3, 8, 8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def write(path: Path, image: torch.Tensor, label: torch.Tensor, names: list[str]) -> Path:
    save_file({"train.image": image, "train.label": label}, path, metadata={"class_names": json.dumps(names)})
    return path


def test_images_that_fit_are_unchanged(tmp_path: Path):
    image = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    path = write(tmp_path / "data", image, torch.arange(6) % 3, ["a", "b", "c"])
    images = Images.load(path, "train", GREY, "cpu")
    assert torch.equal(images.image, image) and images.image.dtype == torch.uint8
    assert (len(images), images.classes, images.class_names, images.examples) == (6, 3, ("a", "b", "c"), 6)
    assert has_split(path, "train") and not has_split(path, "test")


def test_missing_split_and_broken_file_are_refused(tmp_path: Path):
    path = write(tmp_path / "data", torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(2), ["a", "b"])
    with pytest.raises(UploadError, match="no split 'test'"):
        Images.load(path, "test", GREY, "cpu")
    path.write_bytes(b"nothing")
    with pytest.raises(UploadError, match="cannot be read"):
        Images.load(path, "train", GREY, "cpu")


def test_normalise_is_the_contracts_formula():
    image = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (RGB.mean, RGB.std))
    expected = (image.double() / 255 - mean) / std
    normalised = Images.of(image, torch.zeros(4, dtype=torch.int64), ("a", "b"), RGB).normalise(image)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.double(), expected, rtol=0, atol=1e-6)


def test_greyscale_and_rgb_are_converted_into_each_other():
    grey = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    colour = fit(grey, RGB)
    assert colour.shape == (3, 3, 8, 8) and all(torch.equal(colour[:, channel], grey[:, 0]) for channel in range(3))
    assert torch.equal(fit(colour, GREY), grey)
    pure = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pure[:, 1] = 255
    assert int(fit(pure, GREY).unique()) == round(0.587 * 255)


def test_other_channels_are_refused():
    with pytest.raises(UploadError, match="2 channels, but the network reads 3"):
        fit(torch.zeros(1, 2, 8, 8, dtype=torch.uint8), RGB)


def test_resizing_keeps_constants_and_the_mean():
    constant = torch.full((2, 1, 16, 16), 77, dtype=torch.uint8)
    assert int(fit(constant, GREY).unique()) == 77
    stripes = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    stripes[..., ::2] = 200
    # without antialiasing, picking every other column would give 0 or 200
    assert (fit(stripes, GREY).float() - 100).abs().max() <= 26


def test_split_is_stratified_deterministic_and_keeps_indices():
    label = torch.tensor([0] * 40 + [1] * 20 + [2])
    image = torch.arange(61, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    whole = Images.of(image, label, ("a", "b", "c"), GREY)
    train, held = whole.split(0.1, seed=3)
    assert torch.bincount(held.label, minlength=3).tolist() == [4, 2, 0]
    assert sorted([*train.index.tolist(), *held.index.tolist()]) == list(range(61))
    for part in (train, held):
        assert part.examples == 61 and torch.equal(part.image[:, 0, 0, 0].long(), part.index)
        assert torch.equal(part.label, label[part.index])
    again, other = whole.split(0.1, seed=3)[1], whole.split(0.1, seed=4)[1]
    assert torch.equal(again.index, held.index) and not torch.equal(other.index, held.index)


def test_every_class_stays_in_training_however_much_is_held_out():
    label = torch.tensor([0] * 10 + [1] * 2 + [2])
    whole = Images.of(torch.zeros(13, 1, 8, 8, dtype=torch.uint8), label, ("a", "b", "c"), GREY)
    train, held = whole.split(0.95, seed=0)
    assert torch.bincount(train.label, minlength=3).tolist() == [1, 1, 1] and len(held) == 10


def test_split_of_nothing_and_of_everything():
    whole = Images.of(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), ("a", "b"), GREY)
    assert [len(part) for part in whole.split(0.0, 0)] == [4, 0]
    with pytest.raises(ValueError, match="fraction"):
        whole.split(1.0, 0)


def test_normalisation_constants_are_copied_to_the_device_once():
    contract = InputContract(1, 8, 8, (0.5,), (0.25,))
    cpu = torch.device("cpu")
    assert _affine(contract, cpu, 8)[0] is _affine(contract, cpu, 8)[0]


def test_images_without_labels_have_no_classes(tmp_path: Path):
    image = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
    save_file({"train.image": image}, tmp_path / "data")
    assert warnings_of(tmp_path / "data") == ()
    images = Images.load(tmp_path / "data", "train", GREY, "cpu")
    assert (len(images), images.classes, images.class_names) == (6, 0, ())
    assert set(images.batch_fields(slice(2))) == {"index"}
