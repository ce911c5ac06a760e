"""Datasets of boxes, masks and depth in the forms that people have them, with what the inspection says; docs/inputs.md shows the tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.worker.distillation.data.dense.made_boxes import HEIGHT, WIDTH, coco, photo, turned_photo, voc
from tests.worker.distillation.data.dense.made_maps import (
    COLOURS,
    INDEX,
    both,
    depth_files,
    palette_png,
    png,
    turned_pair,
)
from tests.worker.distillation.data.made_files import Files, arrays, picture, zipped

BOX = {"bbox": [4, 6, 10, 12]}
CELL, CELLS = ("cell",), ("cell", "nucleus")
ONE = {"train": 1}
BOTH = {"train": 1, "test": 1}
FOUR = ("0", "1", "2", "3")
VALIDATION = "the validation split is used as the split `test`"
LINE = b"0 0.225 0.4 0.25 0.4\n"
OBJECT = ("cell", (5, 7, 14, 18))
TENS = (np.arange(64).reshape(8, 8) * 100).astype(np.uint16)


@dataclass(frozen=True)
class DenseVariant:
    """A form of datasets, and the file made in it."""

    form: str
    made: Callable[[], bytes]
    splits: Mapping[str, int] = field(default_factory=dict)
    classes: Sequence[str] = ()
    says: str = ""
    """Words of a warning, or if there are no `splits` of the refusal."""
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "boxes"


def files(given: Files) -> Callable[[], bytes]:
    return lambda: zipped(given)


def said(*boxes: Mapping[str, Any], **how: Any) -> Callable[[], bytes]:
    """One image, and a COCO file with these boxes of it."""
    return lambda: zipped({"1.png": photo(), "train.json": coco(boxes, **how)})


def turned(size: tuple[int, int]) -> Callable[[], bytes]:
    return lambda: zipped({"1.jpg": turned_photo(), "train.json": coco([BOX], ("1.jpg",), size=size)})


def lists() -> bytes:
    named = {f"JPEGImages/{name}.png": photo() for name in "abc"}
    named |= {f"Annotations/{name}.xml": voc([OBJECT]) for name in "abc"}
    return zipped(named | {"ImageSets/Main/train.txt": b"a\nb\n", "ImageSets/Main/test.txt": b"c\n"})


BOXES = (
    DenseVariant("COCO, a file for each split", files({"train/1.png": photo(), "val/1.png": photo(1), "train.json": coco([BOX]), "val.json": coco([BOX])}), BOTH, CELLS, VALIDATION),
    DenseVariant("Pascal VOC", files({"JPEGImages/1.png": photo(), "Annotations/1.xml": voc([OBJECT])}), ONE, CELL),
    DenseVariant("Pascal VOC with `ImageSets/Main/train.txt` and `test.txt`", lists, {"train": 2, "test": 1}, CELL),
    DenseVariant("YOLO with `data.yaml`", files({"images/train/1.png": photo(), "labels/train/1.txt": LINE, "images/val/2.png": photo(1), "labels/val/2.txt": LINE, "data.yaml": b"names: [cell, nucleus]\n"}), BOTH, CELLS, VALIDATION),
    DenseVariant("polygons in YOLO files", files({"1.png": photo(), "1.txt": b"0 0.1 0.2 0.35 0.2 0.2 0.6\n", "classes.txt": b"cell\n"}), ONE, CELL),
    DenseVariant("category ids with gaps", said({**BOX, "category_id": 90}, categories={7: "b", 3: "a", 90: "c"}), ONE, ("a", "b", "c"), "3 is 0, 7 is 1, 90 is 2"),
    DenseVariant("a category `background` without boxes", said(BOX, categories={0: "background", 1: "cell"}), ONE, CELL, "the class 'background' has no boxes and is not counted"),
    DenseVariant("boxes of a category `background`", said({**BOX, "category_id": 0}, categories={0: "background", 1: "cell"}), says="there are boxes of the class 'background'"),
    DenseVariant("YOLO classes that begin at 1", files({"1.png": photo(), "1.txt": b"2" + LINE[1:], "classes.txt": b"a\nb\n"}), says="the numbers seem to begin at 1, as if the background counted"),
    DenseVariant("YOLO files in pixels", files({"1.png": photo(), "1.txt": b"0 9 12 10 12\n"}), says="numbers that are not parts of the image's size"),
    DenseVariant("a box without area", said({"bbox": [4, 6, 0, 12]}, BOX), ONE, CELLS, "1 box has no area and was left out"),
    DenseVariant("corners in the wrong order", said({"bbox": [14, 18, -10, -12]}), ONE, CELLS, "1 box has its corners in the wrong order, which were exchanged"),
    DenseVariant("a box outside of its image", said({"bbox": [100, 100, 5, 5]}, BOX), ONE, CELLS, "1 box lies outside of its image and was left out"),
    DenseVariant("a box that reaches beyond its image", said({"bbox": [30, 20, 100, 100]}), ONE, CELLS, "1 box reaches beyond its image and was clipped"),
    DenseVariant("an image without boxes", files({"1.png": photo(), "2.png": photo(1), "train.json": coco([BOX], names=("1.png", "2.png"))}), {"train": 2}, CELLS, "1 image has no box; it is kept as an image without objects"),
    DenseVariant("`iscrowd`", said({**BOX, "iscrowd": 1}, BOX), ONE, CELLS, "1 box is a crowd (iscrowd): training leaves it out"),
    DenseVariant("an EXIF orientation, and boxes for the turned image", turned((HEIGHT, WIDTH)), ONE, CELLS, "1 image was turned by its EXIF orientation"),
    DenseVariant("an EXIF orientation, and boxes for the image as stored", turned((WIDTH, HEIGHT)), ONE, CELLS, "1 image has an EXIF orientation that was ignored"),
    DenseVariant("boxes for a copy twice as large", said(BOX, size=(2 * WIDTH, 2 * HEIGHT)), ONE, CELLS, "1 image has another size than its boxes are written for; the boxes were scaled"),
    DenseVariant("boxes for an image of another shape", said(BOX, size=(WIDTH, 2 * HEIGHT)), says="its boxes are written for 60x40"),
    DenseVariant("a Pascal VOC box that begins at 0", files({"1.png": photo(), "1.xml": voc([("cell", (0, 6, 14, 18))])}), ONE, CELL, "the files count from 0; Pascal VOC counts from 1"),
    DenseVariant("an image that is not in the archive", files({"1.png": photo(), "train.json": coco([BOX], ("1.png", "2.png"))}), says="lists 1 image that is not in the archive: '2.png'"),
    DenseVariant("images alone", files({"a/1.png": photo()}), says="the archive has no file of boxes for its 1 image"),
    DenseVariant("classes without boxes, as the first of Roboflow's", said({**BOX, "category_id": 1}, categories={0: "cells", 1: "cell"}), ONE, ("cells", "cell"), "1 class (cells) has no box in `train`"),
    DenseVariant("category ids as text", said({**BOX, "category_id": "1"}, categories={1: "cell"}), ONE, CELL),
    DenseVariant("YOLO names that begin at 1", files({"1.png": photo(), "1.txt": LINE.replace(b"0 ", b"1 ", 1), "data.yaml": b"names:\n  1: cell\n"}), ONE, ("0", "cell"), "1 class (0) has no box"),
    DenseVariant("YOLO boxes with key points", files({"1.png": photo(), "1.txt": LINE[:-1] + b" 0.2 0.3 2 0.9 0.9 1\n", "data.yaml": b"kpt_shape: [2, 3]\nnames: [cell]\n"}), ONE, CELL),
    DenseVariant("YOLO classes as floats, and a line twice", files({"1.png": photo(), "1.txt": 2 * b"0.0 0.225 0.4 0.25 0.4\n", "classes.txt": b"cell\n"}), ONE, CELL, "1 box is a repetition of another one"),
    DenseVariant("YOLO with lists of the splits' images", files({"images/1.png": photo(), "labels/1.txt": LINE, "images/2.png": photo(1), "labels/2.txt": LINE, "train.txt": b"./images/1.png\n", "val.txt": b"./images/2.png\n", "classes.txt": b"cell\n"}), BOTH, CELL, VALIDATION),
)  # fmt: skip
TWO, TWO_EACH = {"train": 2}, {"train": 2, "test": 2}
BINARY = np.where(INDEX > 1, 255, 0).astype(np.uint8)
BLURRED = (np.arange(64) * 4).astype(np.uint8).reshape(8, 8)
RED_GREEN_BLUE = ("#800000", "#008000", "#000080")


def some_ignored() -> bytes:
    mask = INDEX.copy()
    mask[0, 0] = 255
    return zipped(both(png(mask)))


MASKS = tuple(
    DenseVariant(*given[:4], *(given[4:] or ("",)), options=options, labels="mask")
    for given, options in (
        (("`train/images/` and `train/masks/`, the same with `val/`", files(both(splits=("train", "val"))), TWO_EACH, FOUR, VALIDATION), {}),
        (("`1.png` and `1_mask.png` in one folder", files({"1.png": picture(), "1_mask.png": png(INDEX)}), ONE, FOUR), {}),
        (("palette PNG, whose numbers count", files(both(palette_png(INDEX))), TWO, FOUR), {}),
        (("255 beside other numbers, which is ignored", some_ignored, TWO, FOUR), {}),
        (("masks of 0 and 255", files(both(png(BINARY))), {}, (), "the masks hold only 0 and 255: is 255 a class or ignored?"), {}),
        (("masks of 0 and 255", files(both(png(BINARY))), TWO, ("0", "1")), {"white": "class"}),
        (("numbers from 1, and 0 for no class", files(both(png(INDEX))), TWO, ("0", "1", "2")), {"first_label": 1}),
        (("RGB masks", files(both(png(COLOURS[INDEX]))), {}, (), "no table says which class each is"), {}),
        (("RGB masks", files(both(png(COLOURS[INDEX]))), TWO, ("0", "1", "2")), {"mask_colours": RED_GREEN_BLUE, "ignored_colours": ("#ffff00",)}),
        (("RGB masks with a colour that is not in the table", files(both(png(COLOURS[INDEX]))), {}, (), "has 1 colour that is not in the table: #ffff00"), {"mask_colours": RED_GREEN_BLUE}),
        (("RGB masks with `class_dict.csv`", files({**both(png(COLOURS[INDEX])), "class_dict.csv": b"name,r,g,b\nsky,128,0,0\ntree,0,128,0\nsea,0,0,128\nsun,255,255,0\n"}), TWO, ("sky", "tree", "sea", "sun")), {}),
        (("a class without pixels", files({**both(), "classes.json": b'["a", "b", "c", "d", "e"]'}), TWO, tuple("abcde"), "1 class (e) has no training pixel"), {}),
        (("masks of instances", files(both(png((INDEX.astype(np.uint16) * 300).astype(np.uint16)))), {}, (), "the masks hold numbers up to 900"), {}),
        (("a mask of another shape than its image", files(both(png(INDEX[:, :4]))), {}, (), "'train/images/0.png' is 8x8, but 'train/masks/0.png' is 8x4"), {}),
        (("an image without a mask", files({**both(), "train/images/9.png": picture(9)}), TWO, FOUR, "1 image has no mask or depth, and was left out"), {}),
        (("an EXIF orientation, and masks for the turned image", files(turned_pair((12, 8))), {}, (), "the image is turned by its EXIF data"), {}),
        (("an EXIF orientation, and masks for the turned image", files(turned_pair((12, 8))), ONE, ("0", "1")), {"exif": "apply"}),
        (("names that do not match", files({"train/images/a.png": picture(), "train/images/b.png": picture(), "train/masks/c.png": png(INDEX)}), {}, (), "none of 2 images (train/images/a.png, train/images/b.png) has the name of the mask or depth file"), {}),
        (("shades of grey", files(both(png(INDEX * 85))), {}, (), "the masks hold only the numbers 0, 85, 170"), {}),
        (("shades of grey", files(both(png(INDEX * 80))), TWO, FOUR), {"mask_colours": ("#000000", "#505050", "#a0a0a0", "#f0f0f0")}),
        (("classes with wide gaps, all of them named", files({**both(png(INDEX * 40)), "classes.txt": "\n".join(f"c{number}" for number in range(121)).encode()}), TWO, tuple(f"c{number}" for number in range(121)), "have no training pixel"), {}),
        (("masks whose edges are blurred", files(both(png(BLURRED))), {}, (), "most of which fill no area: they were blurred at their edges"), {}),
        (("black and white masks whose edges are blurred", files(both(png(BLURRED))), TWO, ("0", "1"), "neither black nor white and were rounded"), {"white": "class"}),
        (("classes beside 255", some_ignored, {}, (), "the masks hold other numbers beside 0 and 255: [0, 1, 2, 3, 255]"), {"white": "class"}),
        (("palettes in another order", files({**both(png(INDEX, [0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128])), "train/masks/1.png": png(INDEX, [0, 0, 0, 0, 128, 0, 128, 0, 0, 0, 0, 128])}), {}, (), "is the number"), {}),
        (("an npz file", lambda: arrays(x_train=np.zeros((2, 8, 8, 3), dtype=np.uint8), y_train=np.stack([INDEX, INDEX])), TWO, FOUR), {}),
    )
)  # fmt: skip
FLOATS = np.full((8, 8), 2.0, dtype=np.float32)
DEPTHS = tuple(
    DenseVariant(form, made, splits, (), says, options, "depth")
    for form, made, splits, says, options in (
        ("16-bit PNG", files(depth_files(TENS)), {}, "the scale of the depth is not given: which number in the files is one metre?", {}),
        ("16-bit PNG in millimetres", files(depth_files(TENS)), ONE, "", {"depth_scale": 1000.0}),
        ("TIFF of floats in metres", files(depth_files(FLOATS, "TIFF")), ONE, "", {"depth_scale": 1.0}),
        ("8-bit PNG", files(depth_files(INDEX)), {}, "8 bits for each value, which is too coarse for depth", {"depth_scale": 1000.0}),
        ("16-bit PNG in millimetres", files(depth_files(TENS)), ONE, "the median depth is 3200 metres", {"depth_scale": 1.0}),
        ("65535 for unknown depth", files(depth_files(np.where(TENS > 5000, 65535, TENS).astype(np.uint16))), ONE, "of the pixels are 65535", {"depth_scale": 1000.0}),
        ("depth of 0 everywhere", files(depth_files(TENS * 0)), ONE, "1 training image has no pixel of known depth", {"depth_scale": 1000.0}),
    )
)  # fmt: skip
SECTIONS = {"Boxes": BOXES, "Masks": MASKS, "Depth": DEPTHS}
VARIANTS = [variant for section in SECTIONS.values() for variant in section]


def tables() -> dict[str, list[tuple[str, ...]]]:
    """The rows of the page's tables, by heading; the first row is the head."""
    head = ("what you send", "options", "what the inspection says")
    return {name: [head, *map(_row, variants)] for name, variants in SECTIONS.items()}


def _row(variant: DenseVariant) -> tuple[str, ...]:
    given = {"labels": variant.labels} | {
        name: ",".join(value) if isinstance(value, tuple) else value for name, value in variant.options.items()
    }
    options = ", ".join(f"`{name}: {value}`" for name, value in given.items())
    if not variant.splits:
        return variant.form, options, f"refused: {variant.says}"
    images = ", ".join(f"{split} {count}" for split, count in variant.splits.items())
    named = f"; classes {', '.join(variant.classes)}" if variant.classes else ""
    return variant.form, options, f"{images}{named}" + (f"; warns “{variant.says}”" if variant.says else "")
