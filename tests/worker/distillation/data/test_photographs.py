"""Photographs: how they are stored, and how jobs read them."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.distillation.data.photos import CONTRACT, canonical, encoded, loaded, photographs, read, scene
from worker.distillation.contract import InputContract
from worker.distillation.data import jpeg
from worker.distillation.data.images import Images, has_split
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.photographs import are_photographs
from worker.distillation.data.shards import ShardWriter
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.task import _predict
from worker.distillation.uploads.labelled_images import sample

CPU = torch.device("cpu")


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


def expected(number: int, height: int, width: int, side: int = 32, share: float = 7 / 8) -> torch.Tensor:
    """The central part of a scene, by Pillow, without JPEG."""
    extent = share * min(height, width)
    left, top = (width - extent) / 2, (height - extent) / 2
    image = Image.fromarray(scene(number, height, width))
    shown = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + extent, top + extent))
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1)


def test_photographs_are_scaled_and_small_ones_are_stored_as_they_are(tmp_path: Path) -> None:
    files = photographs(6) | {
        "a/art.png": encoded(scene(9, 300, 400), "PNG"),
        "b/grey.jpg": encoded(scene(8, 200, 90)[:, :, 0]),
    }
    packed = read(tmp_path, files)
    found = packed.photographs
    assert found is not None and (found.short_side, found.images, found.unchanged) == (256, 8, 3)
    table, label = packed.splits["train"]
    assert table.shape == (8, 5) and label.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    sizes = {tuple(row) for row in table[:, 3:].tolist()}
    assert sizes == {(256, 341), (341, 256), (256, 300), (200, 90)}
    (shard,) = found.shards
    data = (tmp_path / shard.sha256).read_bytes()
    assert hashlib.sha256(data).hexdigest() == shard.sha256 and len(data) == shard.size
    offset, length = table[2, 1:3].tolist()
    assert data[offset : offset + length] == files["a/00004.jpg"] or files["a/00002.jpg"] in data
    findings = packed.findings()
    assert findings["stored"]["form"] == "jpeg" and findings["splits"] == {"train": 8}
    assert findings["image"] == {"channels": 3, "height": 256, "width": 300}
    assert findings["mean"] == pytest.approx([0.5] * 3, abs=0.1)
    assert any("down to a short side of 256 pixels" in words for words in findings["warnings"])


def test_a_job_sees_the_centre(tmp_path: Path) -> None:
    images = loaded(tmp_path)
    sizes = ((375, 500), (500, 375), (256, 300))
    order = [*range(0, 12, 2), *range(1, 12, 2)]  # by class
    assert images.label.tolist() == [0] * 6 + [1] * 6 and images.class_names == ("a", "b")
    shown = images.pixels(torch.arange(12))
    assert shown.shape == (12, 3, 32, 32) and shown.dtype == torch.uint8
    for place, number in enumerate(order):
        assert difference(shown[place], expected(number, *sizes[number % 3])) < 4, number
    assert torch.equal(torch.cat(list(images.batches(5))), shown)
    assert torch.equal(images.at(torch.tensor([7, 3])).pixels(slice(None)), shown[[7, 3]])
    train, held = images.split(0.5, 0)
    assert torch.equal(held.pixels(slice(None)), shown[held.index]) and len(train) + len(held) == 12
    outputs = _predict(lambda x: x.flatten(1)[:, :3], images, 5)
    torch.testing.assert_close(outputs, images.normalise(shown).flatten(1)[:, :3].double())


def test_parts_are_those_of_the_stored_image(tmp_path: Path) -> None:
    images = loaded(tmp_path, 3)
    place = int(images.sizes(torch.arange(3))[:, 1].argmax())
    part = torch.tensor([[32.0, 64.0, 128.0, 96.0]])
    shown = images.begin(torch.tensor([place]), part)()[0]
    image = Image.fromarray(scene(0, 375, 500)).resize((341, 256), Image.Resampling.BILINEAR)
    right = image.resize((32, 32), Image.Resampling.BILINEAR, box=(64, 32, 160, 160))
    assert difference(shown, torch.from_numpy(np.array(right)).permute(2, 0, 1)) < 4


def test_one_channel_and_pillow_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = loaded(tmp_path).pixels(torch.arange(4))
    monkeypatch.setattr(jpeg, "library", lambda: None)
    path = tmp_path / "dataset.safetensors"
    assert difference(Images.load(path, "train", CONTRACT, CPU).pixels(torch.arange(4)), colour) < 2
    grey = Images.load(path, "train", InputContract(1, 32, 32, (0.5,), (0.5,)), CPU).pixels(torch.arange(4))
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert difference(grey, (colour.float() * weights).sum(1, keepdim=True)) < 2
    with pytest.raises(UploadError, match="4 channels"):
        Images.load(path, "train", InputContract(4, 32, 32, (0.5,) * 4, (0.5,) * 4), CPU)


def test_a_test_split_is_made_of_rows(tmp_path: Path) -> None:
    path = canonical(tmp_path, photographs(12), test_fraction=0.25)
    train, test = (Images.load(path, split, CONTRACT, CPU) for split in ("train", "test"))
    assert has_split(path, "test") and (len(train), len(test)) == (8, 4)
    everything = torch.cat([train.pixels(slice(None)), test.pixels(slice(None))])
    assert len({tuple(each.flatten().tolist()) for each in everything}) == 12


def test_shards_are_complete_from_a_size_on(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, shard_bytes=10)
    rows = [writer.add(bytes([number]) * 4, 1, number) for number in range(7)]
    writer.close()
    assert rows == [(number // 3, 4 * (number % 3), 4, 1, number) for number in range(7)]
    assert [each.size for each in writer.shards] == [12, 12, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(each.sha256 for each in writer.shards)


def test_broken_photographs_are_refused_or_skipped(tmp_path: Path) -> None:
    files = photographs(6)
    whole = files["a/00000.jpg"]
    files["a/00000.jpg"] = whole[: len(whole) // 2]
    files["a/00002.jpg"] = files["a/00002.jpg"][:3000]  # small enough to be stored unchanged
    with pytest.raises(UploadError, match="2 images cannot be read"):
        read(tmp_path, files)
    packed = read(tmp_path, files, broken="skip")
    assert len(packed.splits["train"][0]) == 4 and packed.left_out == {"broken": 2}


def test_turned_and_transparent_photographs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = np.concatenate([scene(1, 200, 300), np.full((200, 300, 1), 128, np.uint8)], axis=-1)
    files = {
        "a/1.jpg": encoded(scene(0, 200, 300), exif=exif.tobytes()),
        "b/1.png": encoded(clear, "PNG"),
    }
    packed = read(tmp_path, files, exif="apply")
    assert packed.splits["train"][0][:, 3:].tolist() == [[300, 200], [200, 300]]
    assert packed.altered == {"exif_rotated": 1, "transparency_removed": 1}


@pytest.mark.parametrize(
    ("count", "shape", "options", "stored"),
    [
        (60_000, (3, 32, 32), {}, False),  # CIFAR's size
        (2_000_000, (3, 64, 64), {}, False),  # small images, however many
        (2_000, (3, 375, 500), {}, True),
        (1_000, (3, 375, 500), {}, False),
        (10, (3, 375, 500), {"form": "jpeg"}, True),
        (2_000, (3, 375, 500), {"form": "pixels"}, False),
    ],
)
def test_large_datasets_of_large_images_are_photographs(
    tmp_path: Path, count: int, shape: tuple[int, int, int], options: dict[str, Any], stored: bool
) -> None:
    assert are_photographs(count, shape, Options(**options), UploadLimits(output=tmp_path)) is stored
    assert not are_photographs(count, shape, Options(**options), UploadLimits())


def test_larger_inputs_are_stored_larger(tmp_path: Path) -> None:
    packed = read(tmp_path, photographs(2), height=288, width=288)
    assert packed.photographs is not None and packed.photographs.short_side == 330
    assert int(packed.splits["train"][0][:, 3:].min()) == 330


def test_the_stored_bytes_are_limited(tmp_path: Path) -> None:
    with pytest.raises(UploadError, match="would store the upload as"):
        read(tmp_path, photographs(6), {"canonical_bytes": 1000})


def test_a_missing_or_short_shard_is_named(tmp_path: Path) -> None:
    images = loaded(tmp_path, 2)
    (shard,) = [path for path in tmp_path.iterdir() if len(path.name) == 64]
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UploadError, match="shorter than its table"):
        images.pixels(slice(None))
    shard.unlink()
    with pytest.raises(UploadError, match="cannot be read"):
        Images.load(tmp_path / "dataset.safetensors", "train", CONTRACT, CPU).pixels(slice(None))


def test_labelled_images_of_photographs(tmp_path: Path) -> None:
    found = sample(canonical(tmp_path, photographs(60, ((70, 90),))))
    assert found.image.shape == (60, 3, 224, 224) and len(found.label) == 60


def test_a_file_that_pillow_reads_and_simplejpeg_refuses_is_read(tmp_path: Path) -> None:
    whole = encoded(scene(0, 90, 120))
    odd = whole[:-2] + b"odd bytes" + whole[-2:]
    images = Images.load(canonical(tmp_path, {"a/odd.jpg": odd, "b/same.jpg": whole}), "train", CONTRACT, CPU)
    one, other = images.pixels(slice(None))
    assert difference(one, other) < 2
    large = encoded(scene(0, 400, 500))
    files = {"a/odd.jpg": large[:-2] + b"odd bytes" + large[-2:], "b/same.jpg": large}
    assert len(read(tmp_path, files).splits["train"][0]) == 2
