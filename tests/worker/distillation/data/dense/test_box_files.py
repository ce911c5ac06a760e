"""COCO, Pascal VOC and YOLO files: what they say, and the mistakes that people report."""

from pathlib import Path

import pytest
import torch

from tests.worker.distillation.data.dense.made_boxes import HEIGHT, WIDTH, coco, photo, turned_photo, voc
from tests.worker.distillation.data.made_files import Files, zipped
from worker.distillation.contract import InputContract
from worker.distillation.data.images import Images
from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.boxes.yolo import yaml_names
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

CELLS = Path(__file__).parents[1] / "blood_cells"
"""A few images of Shenggan/BCCD_Dataset (MIT)."""
BOX = {"bbox": [4, 6, 10, 12]}
CORNERS = [4.0, 6.0, 14.0, 18.0]


@pytest.fixture
def read(tmp_path):
    def of(files: Files, **options) -> Packed:
        path = tmp_path / "upload.zip"
        path.write_bytes(zipped(files))
        return read_dataset(path, Options(**{"labels": "boxes"} | options), UploadLimits())

    return of


def boxes(packed: Packed, split: str = "train") -> list[list[float]]:
    """The boxes of the first image."""
    kept = packed.fields[split]["box_label"][0] >= 0
    return packed.splits[split][1][0][kept].tolist()


def labels(packed: Packed, split: str = "train") -> list[int]:
    return [label for label in packed.fields[split]["box_label"][0].tolist() if label >= 0]


def refused(read, files, words):
    with pytest.raises(UploadError, match=words) as caught:
        read(files)
    assert caught.value.hint


class TestCoco:
    def test_boxes_become_corners_and_images_keep_their_split(self, read):
        files = {"train/1.png": photo(), "val/1.png": photo(1)}
        packed = read(files | {"train.json": coco([BOX]), "val.json": coco([{"bbox": [0, 0, 5, 5], "category_id": 2}])})
        assert boxes(packed) == [CORNERS]
        assert (boxes(packed, "test"), labels(packed, "test")) == ([[0, 0, 5, 5]], [1])
        assert packed.class_names == ("cell", "nucleus")
        assert packed.findings()["boxes"]["count"] == {"train": 1, "test": 1}

    def test_ids_with_gaps_are_renumbered_and_the_map_is_reported(self, read):
        categories = {7: "b", 3: "a", 90: "c"}
        made = coco([{**BOX, "category_id": 90}, {**BOX, "category_id": 3}], categories=categories)
        packed = read({"1.png": photo(), "train.json": made})
        assert (labels(packed), packed.class_names) == ([2, 0], ("a", "b", "c"))
        assert packed.findings()["boxes"]["class_ids"] == {"a": 3, "b": 7, "c": 90}
        assert any("3 is 0, 7 is 1, 90 is 2" in words for words in packed.warnings)

    def test_a_background_category_does_not_count(self, read):
        packed = read({"1.png": photo(), "train.json": coco([BOX], categories={0: "background", 1: "cell"})})
        assert (packed.class_names, labels(packed)) == (("cell",), [0])
        assert any("background" in words for words in packed.warnings)
        made = coco([{**BOX, "category_id": 0}], categories={0: "background", 1: "cell"})
        refused(read, {"1.png": photo(), "train.json": made}, "boxes of the class 'background'")

    def test_boxes_without_area_outside_and_with_exchanged_corners(self, read):
        given = [[4, 6, 0, 12], [14, 18, -10, -12], [100, 100, 5, 5], [30, 20, 100, 100]]
        packed = read({"1.png": photo(), "train.json": coco([{"bbox": each} for each in given])})
        assert boxes(packed) == [CORNERS, [30, 20, WIDTH, HEIGHT]]
        found = packed.findings()["boxes"]["repaired"]
        assert found == {"boxes_without_area": 1, "boxes_swapped": 1, "boxes_outside": 1, "boxes_clipped": 1}

    def test_images_without_boxes_are_kept(self, read):
        files = {"1.png": photo(), "2.png": photo(1), "train.json": coco([BOX], names=("1.png", "2.png"))}
        packed = read(files)
        assert packed.splits["train"][1].shape == (2, 1, 4)
        assert packed.fields["train"]["box_label"].tolist() == [[0], [-1]]
        none = read(
            {"1.png": photo(), "train.json": coco([])} | {"train.json": coco([]).replace(b"[]", b'[], "bbox": 0')}
        )
        assert none.splits["train"][1].shape == (1, 0, 4)

    def test_crowds_are_marked(self, read):
        packed = read({"1.png": photo(), "train.json": coco([{**BOX, "iscrowd": 1}, BOX])})
        assert packed.fields["train"]["crowd"].tolist() == [[1, 0]]
        assert any("iscrowd" in words for words in packed.warnings)

    def test_the_stated_size_says_whether_exif_turns_the_image(self, read):
        as_shown = read({"1.jpg": turned_photo(), "train.json": coco([BOX], ("1.jpg",), size=(HEIGHT, WIDTH))})
        assert as_shown.splits["train"][0].shape[2:] == (WIDTH, HEIGHT)
        assert any("turned by its EXIF" in words for words in as_shown.warnings)
        stored = read({"1.jpg": turned_photo(), "train.json": coco([BOX], ("1.jpg",), size=(WIDTH, HEIGHT))})
        assert stored.splits["train"][0].shape[2:] == (HEIGHT, WIDTH)
        unsaid = read({"1.jpg": turned_photo(), "train.json": coco([BOX], ("1.jpg",), size=None)})
        assert unsaid.splits["train"][0].shape[2:] == (WIDTH, HEIGHT)
        assert boxes(as_shown) == boxes(stored) == boxes(unsaid) == [CORNERS]

    def test_boxes_for_a_larger_copy_are_scaled_and_for_another_shape_refused(self, read):
        packed = read({"1.png": photo(), "train.json": coco([BOX], size=(2 * WIDTH, 2 * HEIGHT))})
        assert boxes(packed) == [[2, 3, 7, 9]]
        refused(read, {"1.png": photo(), "train.json": coco([BOX], size=(WIDTH, 2 * HEIGHT))}, "written for 60x40")

    def test_boxes_move_with_images_of_another_size(self, read):
        files = {f"{number}.png": photo(number) for number in (1, 2)} | {"3.png": photo(size=(80, 30))}
        made = coco([{"bbox": [30, 5, 10, 10], "image_id": 2}], ("1.png", "2.png", "3.png"), size=None)
        cropped = read({**files, "train.json": made})
        assert cropped.splits["train"][1][2].tolist() == [[10, 5, 20, 15]]
        whole = read({**files, "train.json": made}, fitting="letterbox")
        assert whole.splits["train"][1][2].tolist() == [[15, 9.5, 20, 14.5]]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"bbox": [1, 2, 3]}, "four numbers"),
            ({"bbox": [1, 2, 3, "x"]}, "not a number"),
            ({"bbox": [1, 2, float("nan"), 4]}, "not a number"),
            ({**BOX, "image_id": 9}, "not listed"),
            ({**BOX, "category_id": 9}, "not listed"),
            ({**BOX, "category_id": "one"}, "not listed"),
        ],
    )
    def test_refuses_what_contradicts_itself(self, read, change, words):
        refused(read, {"1.png": photo(), "train.json": coco([change])}, words)

    def test_refuses_images_that_are_missing_and_names_that_are_ambiguous(self, read):
        refused(read, {"1.png": photo(), "train.json": coco([BOX], ("1.png", "2.png"))}, "not in the archive: '2.png'")
        files = {"a/1.png": photo(), "b/1.png": photo(1), "x/train.json": coco([BOX])}
        refused(read, files, "several images are named '1.png'")

    def test_refuses_deep_json(self, read):
        deep = b'{"images": ' + b"[" * 200_000 + b'"annotations" "categories" "bbox"'
        refused(read, {"1.png": photo(), "train.json": deep}, "is not JSON")


class TestVoc:
    def test_counts_from_one_and_includes_both_ends(self, read):
        packed = read({"JPEGImages/1.png": photo(), "Annotations/1.xml": voc([("cell", (5, 7, 14, 18))])})
        assert (boxes(packed), packed.class_names) == ([CORNERS], ("cell",))

    def test_counts_from_zero_if_a_box_begins_there(self, read):
        packed = read({"1.png": photo(), "1.xml": voc([("a", (0, 6, 14, 18)), ("b", (4, 6, 14, 18))])})
        assert boxes(packed) == [[0, 6, 14, 18], CORNERS]
        assert any("count from 0" in words for words in packed.warnings)

    def test_lists_of_images_say_the_splits(self, read):
        files = {f"JPEGImages/{name}.png": photo() for name in "abc"}
        files |= {f"Annotations/{name}.xml": voc([("cell", (5, 7, 14, 18))]) for name in "abc"}
        lists = {
            "ImageSets/Main/train.txt": b"a\nb\n",
            "ImageSets/Main/test.txt": b"c\n",
            "ImageSets/Main/trainval.txt": b"a\n",
        }
        packed = read(files | lists)
        assert {split: len(image) for split, (image, _) in packed.splits.items()} == {"train": 2, "test": 1}

    def test_boxes_without_area_and_with_exchanged_corners(self, read):
        packed = read({"1.png": photo(), "1.xml": voc([("a", (9, 9, 9, 9)), ("a", (14, 18, 5, 7))])})
        assert boxes(packed) == [CORNERS]
        assert packed.findings()["boxes"]["repaired"] == {"boxes_without_area": 1, "boxes_swapped": 1}

    def test_refuses_document_types_and_other_xml(self, read):
        bomb = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><bndbox>&y;</bndbox></annotation>'
        refused(read, {"1.png": photo(), "1.xml": bomb}, "document type")
        outside = b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>'
        refused(read, {"1.png": photo(), "1.xml": outside}, "document type")
        refused(read, {"1.png": photo(), "1.xml": b"<annotation><object>"}, "is not XML")
        refused(read, {"1.png": photo(), "1.xml": b"<a>" * 100 + b"</a>" * 100}, "too deep")
        refused(read, {"1.png": photo(), "1.xml": voc([("a", (1, 1, "x", 5))])}, "not a number")


class TestYolo:
    LINE = b"0 0.225 0.4 0.25 0.4\n"

    def test_parts_of_the_image_become_pixels(self, read):
        files = {"images/train/1.png": photo(), "labels/train/1.txt": self.LINE, "images/val/2.png": photo(1)}
        packed = read(files | {"data.yaml": b"nc: 2\nnames: ['cell', \"nucleus\"]\n"})
        torch.testing.assert_close(torch.tensor(boxes(packed)), torch.tensor([CORNERS]))
        assert packed.class_names == ("cell", "nucleus")
        assert boxes(packed, "test") == []

    def test_a_polygon_counts_as_its_box(self, read):
        packed = read({"1.png": photo(), "1.txt": b"0 0.1 0.2 0.35 0.2 0.2 0.6\n"})
        torch.testing.assert_close(torch.tensor(boxes(packed)), torch.tensor([[4.0, 6.0, 14.0, 18.0]]))

    def test_is_turned_as_viewers_show_it(self, read):
        packed = read({"1.jpg": turned_photo(), "1.txt": self.LINE})
        assert packed.splits["train"][0].shape[2:] == (WIDTH, HEIGHT)

    def test_refuses_pixels_unnamed_classes_and_other_text(self, read):
        refused(read, {"1.png": photo(), "1.txt": b"0 9 12 10 12\n"}, "not parts of the image")
        refused(read, {"1.png": photo(), "1.txt": b"0 0.1 0.1\n"}, "no box")
        files = {"1.png": photo(), "1.txt": self.LINE.replace(b"0 ", b"2 ", 1), "classes.txt": b"a\nb\n"}
        refused(read, files, "seem to begin at 1")

    @pytest.mark.parametrize(
        "text",
        [
            "names: [a, b]",
            "names:\n  - a\n  - 'b'\nnc: 2",
            "nc: 2\nnames:\n  0: a\n  1: b\n",
            "names: {0: a, 1: b}",
            "names: [\n 'a',\n 'b' ]",
        ],
    )
    def test_names_in_yaml(self, text):
        assert yaml_names(text) == ["a", "b"]


def test_an_archive_without_boxes_is_refused(read):
    refused(read, {"a/1.png": photo()}, "no file of boxes")


def test_the_canonical_form_holds_the_boxes_scaled_to_the_networks_input(read, tmp_path):
    packed = read({"1.png": photo(), "train.json": coco([{**BOX, "iscrowd": 1}])})
    packed.write(tmp_path / "canonical.safetensors")
    contract = InputContract(3, 2 * HEIGHT, WIDTH, (0.0,) * 3, (1.0,) * 3)
    images = Images.load(tmp_path / "canonical.safetensors", "train", contract, "cpu")
    assert images.fields["boxes"].tolist() == [[[4, 12, 14, 36]]]
    assert images.fields["crowd"].tolist() == [[1]]
    assert images.class_names == ("cell", "nucleus")


def test_the_same_cells_in_two_formats_agree():
    """The COCO form was made from the VOC form: corners less one, divided by 4, without the box of no area."""
    small = read_dataset(CELLS / "coco.zip", Options(labels="boxes"), UploadLimits())
    large = read_dataset(CELLS / "voc.zip", Options(labels="boxes", height=120, width=160), UploadLimits())
    assert (small.class_names, large.class_names) == (("RBC", "WBC", "Platelets"), ("Platelets", "RBC", "WBC"))
    assert large.findings()["boxes"]["repaired"] == {"boxes_without_area": 1}
    assert small.findings()["boxes"]["count"] == {"train": 213, "test": 105}
    assert small.splits["train"][0].shape == (12, 3, 120, 160)
    both = [_kept(each) for each in (small, large)]
    assert len(both[0]) > len(both[1]) > 20
    for cell, box in both[1]:
        assert (
            min(
                max(abs(one - two) for one, two in zip(box, other, strict=True))
                for name, other in both[0]
                if name == cell
            )
            < 0.51
        )


def _kept(packed: Packed) -> list[tuple[str, list[float]]]:
    fields = packed.fields["train"]
    kept = fields["box_label"] >= 0
    return [
        (packed.class_names[label], box)
        for label, box in zip(fields["box_label"][kept].tolist(), packed.splits["train"][1][kept].tolist(), strict=True)
    ]
