"""Datasets of masks and depth: layouts, kinds of files, and what is refused with a question."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.distillation.data.dense.made_maps import (
    COLOURS,
    INDEX,
    both,
    depth_files,
    palette_png,
    png,
    turned_pair,
)
from tests.worker.distillation.data.made_files import encoded, picture, zipped
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits


def read(files, tmp_path, labels="mask", **options):
    path = tmp_path / "upload.zip"
    path.write_bytes(files if isinstance(files, bytes) else zipped(files))
    return read_dataset(path, Options(labels=labels, **options), UploadLimits())


def mask_of(packed, split="train"):
    return packed.splits[split][1]


LAYOUTS = {
    "split first": ("train/images/{}.png", "train/masks/{}.png"),
    "kind first": ("data/images/train/{}.png", "data/labels/train/{}.png"),
    "annot": ("CamVid/train/{}.png", "CamVid/trainannot/{}.png"),
    "joined": ("train_images/{}.png", "train_masks/{}.png"),
    "no split": ("images/{}.png", "masks/{}.png"),
    "one folder": ("{}.png", "{}_mask.png"),
    "cityscapes": ("leftImg8bit/train/city/{}_leftImg8bit.png", "gtFine/train/city/{}_gtFine_labelIds.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_usual_layouts_are_paired(layout, tmp_path):
    image, mask = LAYOUTS[layout]
    masks = [np.full((8, 8), number, dtype=np.uint8) for number in range(3)]
    files = {image.format(number): png(np.full((8, 8, 3), 40 * number, dtype=np.uint8)) for number in range(3)}
    files |= {mask.format(number): png(each) for number, each in enumerate(masks)}
    packed = read(files, tmp_path)
    assert list(packed.splits) == ["train"]
    pixels, read_masks = packed.splits["train"]
    assert torch.equal(pixels[:, 0, 0, 0] // 40, read_masks[:, 0, 0])
    assert packed.class_names == ("0", "1", "2")


def test_a_palette_is_read_as_numbers_not_as_colours(tmp_path):
    packed = read(both(palette_png(INDEX)), tmp_path)
    assert torch.equal(mask_of(packed)[0], torch.from_numpy(INDEX))
    assert packed.found["maps"]["files"] == {"palette": 2}


def test_the_lists_of_voc_make_the_splits(tmp_path):
    files = {f"VOC/JPEGImages/{name}.jpg": picture(1, "JPEG") for name in "abcd"}
    files |= {f"VOC/SegmentationClass/{name}.png": palette_png(INDEX) for name in "abc"}
    files |= {
        "VOC/ImageSets/Segmentation/train.txt": b"a\nb\n",
        "VOC/ImageSets/Segmentation/val.txt": b"c\n",
    }
    packed = read(files, tmp_path)
    assert {split: len(image) for split, (image, _) in packed.splits.items()} == {"train": 2, "test": 1}
    assert packed.left_out["without_map"] == 1


def test_masks_of_0_and_255_are_refused_with_a_question_and_read_as_told(tmp_path):
    mask = png(np.where(INDEX > 1, 255, 0).astype(np.uint8))
    with pytest.raises(UploadError, match="is 255 a class or ignored") as caught:
        read(both(mask), tmp_path)
    assert "white" in caught.value.hint
    assert mask_of(read(both(mask), tmp_path, white="class")).unique().tolist() == [0, 1]
    with pytest.raises(UploadError, match="same class"):
        read(both(mask), tmp_path, white="ignored")


def test_255_is_ignored_beside_other_classes_and_more_values_may_be(tmp_path):
    mask = INDEX.copy()
    mask[0, 0] = 255
    packed = read(both(png(mask)), tmp_path)
    assert mask_of(packed)[0, 0, 0] == 255 and packed.findings()["classes"] == 4
    assert packed.findings()["pixels"]["train"]["ignored"] == pytest.approx(1 / 64, abs=1e-6)
    packed = read(both(png(INDEX)), tmp_path, ignored_values=(3,))
    assert packed.findings()["classes"] == 3


def test_a_first_class_of_one_makes_zero_ignored(tmp_path):
    mask = mask_of(read(both(png(INDEX)), tmp_path, first_label=1))[0]
    assert torch.equal(mask, torch.from_numpy(np.where(INDEX == 0, 255, INDEX - 1).astype(np.uint8)))


def test_rgb_masks_need_a_table_of_colours(tmp_path):
    mask = png(COLOURS[INDEX])
    with pytest.raises(UploadError, match="no table says which class") as caught:
        read(both(mask), tmp_path)
    assert "mask_colours" in caught.value.hint
    packed = read(both(mask), tmp_path, mask_colours=("#800000", "#008000", "#000080"), ignored_colours=("#ffff00",))
    assert torch.equal(mask_of(packed)[0], torch.from_numpy(np.where(INDEX == 3, 255, INDEX).astype(np.uint8)))
    with pytest.raises(UploadError, match="1 colour that is not in the table: #ffff00"):
        read(both(mask), tmp_path, mask_colours=("#800000", "#008000", "#000080"))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("class_dict.csv", b"name,r,g,b\nsky,128,0,0\ntree,0,128,0\nsea,0,0,128\nsun,255,255,0\n"),
        (
            "labelmap.txt",
            b"# label:color_rgb:parts:actions\nsky:128,0,0::\ntree:0,128,0::\nsea:0,0,128::\nsun:255,255,0::\n",
        ),
    ],
)
def test_a_table_in_the_archive_names_classes_and_colours(name, table, tmp_path):
    packed = read({**both(png(COLOURS[INDEX])), name: table}, tmp_path)
    assert packed.class_names == ("sky", "tree", "sea", "sun")
    assert torch.equal(mask_of(packed)[0], torch.from_numpy(INDEX))


def test_masks_of_instances_are_refused(tmp_path):
    mask = encoded(Image.fromarray(INDEX.astype(np.uint16) * 300))
    with pytest.raises(UploadError, match="numbers up to 900"):
        read(both(mask), tmp_path)


def test_masks_that_were_saved_as_jpeg_are_refused_by_their_colours(tmp_path):
    mask = encoded(Image.fromarray(COLOURS[INDEX]), "JPEG", quality=60)
    with pytest.raises(UploadError, match="not in the table") as caught:
        read(both(mask, suffix=".jpg"), tmp_path, mask_colours=("#800000", "#008000", "#000080", "#ffff00"))
    assert "JPEG" in caught.value.hint


def test_class_names_come_from_classes_json(tmp_path):
    names = json.dumps({"classes": ["a", "b", "c", "d", "e"], "ignore": 255}).encode()
    packed = read({**both(), "classes.json": names}, tmp_path)
    assert packed.class_names == ("a", "b", "c", "d", "e")
    assert any("1 class (e) has no training pixel" in each for each in packed.all_warnings())
    with pytest.raises(UploadError, match="largest class in the masks is 3, but there are 2"):
        read({**both(), "classes.json": b'["a", "b"]'}, tmp_path)


def test_images_and_masks_are_cropped_alike(tmp_path):
    wide = np.tile(np.repeat(np.arange(4, dtype=np.uint8), 4), (8, 1))  # 8 x 16: four bands
    files = {"train/images/0.png": png(np.stack([wide * 60] * 3, -1)), "train/masks/0.png": png(wide)}
    pixels, mask = read(files, tmp_path, height=8, width=8).splits["train"]
    assert mask[0].unique().tolist() == [1, 2]  # the centre
    assert torch.equal(pixels[0, 0] // 60, mask[0])
    pixels, mask = read(files, tmp_path, height=8, width=8, fitting="letterbox").splits["train"]
    assert (mask[0, :2] == 255).all() and (mask[0, 6:] == 255).all() and (pixels[0, :, :2] == 0).all()
    assert mask[0, 2:6].unique().tolist() == [0, 1, 2, 3]


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(UploadError, match=r"is 8x8, but .* is 8x4"):
        read(both(png(INDEX[:, :4])), tmp_path)


def test_a_smaller_mask_of_the_same_shape_is_enlarged(tmp_path):
    mask = mask_of(read(both(png(INDEX[::2, ::2])), tmp_path))[0]
    assert mask.shape == (8, 8) and mask.unique().tolist() == [0, 1, 2, 3]


def test_exif_has_to_be_treated_as_the_masks_were_drawn(tmp_path):
    with pytest.raises(UploadError, match="turned by its EXIF") as caught:
        read(turned_pair((12, 8)), tmp_path)
    assert "`apply`" in caught.value.hint
    assert mask_of(read(turned_pair((12, 8)), tmp_path, exif="apply")).shape == (1, 12, 8)
    with pytest.raises(UploadError, match="before EXIF turned it"):
        read(turned_pair((8, 12)), tmp_path, exif="apply")


def test_names_that_do_not_match_are_shown(tmp_path):
    files = {f"train/images/{name}.png": picture() for name in "ab"} | {"train/masks/c.png": png(INDEX)}
    with pytest.raises(UploadError, match=r"none of 2 images \(.*a.png.*\) has the name of the mask or depth file"):
        read(files, tmp_path)
    with pytest.raises(UploadError, match="no folder of masks or depth"):
        read({"train/images/0.png": picture()}, tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path):
    with pytest.raises(UploadError, match="two files are masks"):
        read({**both(), "train/labels/0.png": png(INDEX)}, tmp_path)


def test_a_tree_of_masks_says_which_option_reads_it(tmp_path):
    with pytest.raises(UploadError, match="a segmentation dataset") as caught:
        read(
            {f"{kind}/{number}.png": picture(number) for kind in ("images", "masks") for number in range(2)},
            tmp_path,
            "class",
        )
    assert "`mask`" in caught.value.hint


def test_depth_needs_its_scale_and_zero_is_unknown(tmp_path):
    values = (np.arange(64).reshape(8, 8) * 100).astype(np.uint16)
    with pytest.raises(UploadError, match="scale of the depth") as caught:
        read(depth_files(values), tmp_path, "depth")
    assert "1000" in caught.value.hint and "256" in caught.value.hint
    packed = read(depth_files(values), tmp_path, "depth", depth_scale=1000.0)
    torch.testing.assert_close(mask_of(packed)[0], torch.from_numpy(values.astype(np.float32)) / 1000)
    found = packed.findings()
    assert found["classes"] == 1 and found["labels"] == "depth"
    assert found["depth"]["train"] == {
        "least": 0.1,
        "median": 3.2,
        "most": 6.3,
        "unknown": pytest.approx(1 / 64, abs=1e-6),
    }


def test_depth_of_floats_keeps_what_is_known(tmp_path):
    values = np.full((8, 8), 2.0, dtype=np.float32)
    values[0, :3] = [np.nan, np.inf, -1.0]
    depth = mask_of(read(depth_files(values, "TIFF"), tmp_path, "depth", depth_scale=1.0))[0]
    assert depth[0, :3].tolist() == [0, 0, 0] and (depth.flatten()[3:] == 2).all()


def test_pictures_of_depth_are_refused(tmp_path):
    with pytest.raises(UploadError, match="too coarse for depth"):
        read(depth_files(INDEX), tmp_path, "depth", depth_scale=1000.0)


@pytest.mark.parametrize(("labels", "field", "scale"), [("mask", "mask", None), ("depth", "depth", 1000.0)])
def test_the_canonical_form_is_loaded_in_a_networks_size(labels, field, scale, tmp_path):
    files = both(splits=("train", "val"))
    if labels == "depth":
        deep = encoded(Image.fromarray(INDEX.astype(np.uint16) * 1000))
        files = {name: deep if "masks" in name else data for name, data in files.items()}
    packed = read(files, tmp_path, labels, depth_scale=scale)
    packed.write(tmp_path / "canonical.safetensors")
    contract = InputContract(3, 4, 4, (0.0,) * 3, (1.0,) * 3)
    images = Images.load(tmp_path / "canonical.safetensors", "test", contract, "cpu")
    assert images.image.shape == (2, 3, 4, 4)
    assert torch.equal(images.fields[field][0], torch.arange(4).view(4, 1).expand(4, 4).to(images.fields[field].dtype))
    assert images.batch_fields(torch.tensor([1]))[field].shape == (1, 4, 4)


@pytest.mark.parametrize("labels", ["mask", "depth"])
def test_arrays_hold_masks_and_depth_too(labels, tmp_path):
    stream = io.BytesIO()
    values = np.stack([INDEX, INDEX]) if labels == "mask" else np.stack([INDEX, INDEX]).astype(np.float32)
    np.savez(stream, x_train=np.zeros((2, 8, 8, 3), dtype=np.uint8), y_train=values)
    path = tmp_path / "upload.npz"
    path.write_bytes(stream.getvalue())
    packed = read_dataset(path, Options(labels=labels, height=4, width=4), UploadLimits())
    assert torch.equal(packed.splits["train"][1][0].long(), torch.arange(4).view(4, 1).expand(4, 4))
    assert packed.findings()["classes"] == (4 if labels == "mask" else 1)
