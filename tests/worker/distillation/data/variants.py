"""Datasets in the forms that people have them, with what the inspection says; docs/inputs.md shows the table."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tests.worker.distillation.data.made_files import (
    animation,
    array,
    arrays,
    encoded,
    flagless,
    folders,
    many_bands,
    numbers,
    parquet,
    picture,
    sixteen_bit,
    tarred,
    turned,
    zipped,
)

AB = ("ants", "bees")
LABEL = np.arange(6) % 3
THREE = ("0", "1", "2")


@dataclass(frozen=True)
class Variant:
    """A form of datasets, and the file made in it."""

    form: str
    made: Callable[[], bytes]
    splits: Mapping[str, int] = field(default_factory=dict)
    classes: Sequence[str] = AB
    says: str = ""
    """Words of a warning, or if there are no `splits` of the refusal."""
    options: Mapping[str, Any] = field(default_factory=dict)
    altered: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def split_folders(*names: str) -> dict[str, bytes]:
    return folders(*(f"{name}/{each}" for name in names for each in AB))


def flat(folder: str = "", count: int = 3) -> dict[str, bytes]:
    return {f"{folder}{number}.png": picture(number) for number in range(count)}


def made_of(image: bytes, suffix: str = "png") -> Callable[[], bytes]:
    """Class folders of which one holds a special image."""
    return lambda: zipped({**folders(*AB), f"ants/special.{suffix}": image})


def table(text: str, **more: bytes) -> Callable[[], bytes]:
    return lambda: zipped({"labels.csv": text.encode(), **flat("images/", 4), **more})


BOTH, FOUR, FIVE = {"train": 4, "test": 4}, {"train": 4}, {"train": 5}
ROWS = "0.png,bees\n1.png,ants\n2.png,bees\n3.png,ants\n"
LAYOUTS = (
    Variant("class folders", lambda: zipped(folders(*AB)), FOUR),
    Variant("class folders within one folder", lambda: zipped(folders("data/ants", "data/bees")), FOUR),
    Variant("`train/` and `test/`", lambda: zipped(split_folders("train", "test")), BOTH),
    Variant("`training_set/training_set/`, `test_set/test_set/`", lambda: zipped(split_folders("training_set/training_set", "test_set/test_set")), BOTH),
    Variant("`seg_train/seg_train/`, `seg_test/seg_test/`", lambda: zipped(split_folders("seg_train/seg_train", "seg_test/seg_test")), BOTH),
    Variant("`archive/dataset/Train/`, `…/Validation/`", lambda: zipped(split_folders("archive/dataset/Train", "archive/dataset/Validation")), BOTH, says="validation split is used as the split `test`"),
    Variant("`train/`, `dev/` and `eval/`", lambda: zipped(split_folders("train", "dev", "eval")), BOTH, says="4 images of the validation split were ignored", left_out={"validation": 4}),
    Variant("splits within class folders, `ants/train/`", lambda: zipped(folders(*(f"{each}/{split}" for each in AB for split in ("train", "test")))), BOTH),
    Variant("class folders in `train/`, loose images in `test/`", lambda: zipped({**split_folders("train"), **flat("test/")}), FOUR, says="3 images of the split test are in no class folder", left_out={"unlabelled_test": 3}),
    Variant("class folders beside a folder `test/` of loose images", lambda: zipped({**folders(*AB), **flat("test/")}), FOUR, says="3 images of the split test", left_out={"unlabelled_test": 3}),
    Variant("`seg_train/`, `seg_test/`, and `seg_pred/` of loose images", lambda: zipped({**split_folders("seg_train", "seg_test"), **flat("seg_pred/")}), BOTH, says="3 images in the folder 'seg_pred' were left out", left_out={"without_class": 3}),
    Variant("`train_resized/` and `test_resized/`, or such names", lambda: zipped(split_folders("train_resized", "test_resized")), BOTH, says="'test_resized' as test, 'train_resized' as train"),
    Variant("`train_another/`, `test/` and `test_another/`", lambda: zipped(split_folders("train_another", "test", "test_another")), {"train": 4, "test": 8}, says="were taken for splits"),
    Variant("`train_small/` and `test_small/` of loose images", lambda: zipped({**flat("train_small/"), **flat("test_small/", 2)}), {"train": 3}, (), "2 images of the split test have no labels", left_out={"unlabelled_test": 2}),
    Variant("classes whose names contain such words", lambda: zipped(folders("train_toy", "test_tube")), FOUR, ("test_tube", "train_toy")),
    Variant("class folders within folders of other names", lambda: zipped(split_folders("amazon", "webcam")), {"train": 8}, ("amazon", "webcam"), "each of them has the same folders (ants, bees)"),
    Variant("splits, and the same once more in a folder", lambda: zipped({**split_folders("xray/train", "xray/test"), **split_folders("xray/xray/train", "xray/xray/test")}), BOTH, says="8 images in the folder 'xray' were left out: they are copies", left_out={"copies": 8}),
    Variant("a test image that is also in `train/`", lambda: zipped({**split_folders("train", "test"), "test/ants/9.png": folders("train/ants")["train/ants/0.png"]}), {"train": 4, "test": 5}, says="1 of 5 test images is also in `train`"),
    Variant("one image in two class folders", lambda: zipped({**folders(*AB), "ants/9.png": picture(9), "bees/9.png": picture(9)}), {"train": 6}, says="1 training image is there several times with different classes"),
    Variant("a folder `train` beside class folders", lambda: zipped(folders("train", "bus", "car")), says="folders named like splits (`train`) beside others (`bus`, `car`)"),
    Variant("class folders and one loose image", lambda: zipped({**folders(*AB), "cover.png": picture()}), FOUR, says="1 image beside the class folders has no class", left_out={"without_class": 1}),
    Variant("an empty class folder", lambda: zipped(folders(*AB), "cats/"), FOUR, ("ants", "bees", "cats"), "1 class (cats) has no training image"),
    Variant("an empty class folder in `train/`", lambda: zipped(split_folders("train", "test"), "train/cats/"), BOTH, ("ants", "bees", "cats"), "1 class (cats) has no training image"),
    Variant("system files of macOS and Windows", lambda: zipped({**folders(*AB), "__MACOSX/ants/._0.png": b"x", "ants/._0.png": b"x", "ants/Thumbs.db": b"x", "bees/desktop.ini": b"x", ".DS_Store": b"x"}), FOUR),
    Variant("hidden folders of images", lambda: zipped({**folders(*AB), **flat(".ipynb_checkpoints/"), **flat("ants/.thumbnails/")}), FOUR),
    Variant("names with backslashes", lambda: zipped({name.replace("/", "\\"): data for name, data in folders("data/ants", "data/bees").items()}), FOUR),
    Variant("names that begin with `./`", lambda: zipped({f"./{name}": data for name, data in folders(*AB).items()}), FOUR),
    Variant("names in UTF-8 without the flag", lambda: flagless({f"{name}/{each}.png".encode(): picture(each) for name in ("zürich", "bern") for each in (1, 2)}), FOUR, ("bern", "zürich")),
    Variant("class folders named by numbers", lambda: zipped(folders("0", "1", "10", "2")), {"train": 8}, ("0", "1", "10", "2"), "sorted as text"),
    Variant("class folders with numbers in their names", lambda: zipped(folders("c1", "c10", "c2")), {"train": 6}, ("c1", "c10", "c2"), "timm sorts them by number"),
)  # fmt: skip
UNLABELLED = (
    Variant("a zip of images", lambda: zipped(flat()), {"train": 3}, (), "there are no class folders and no labels"),
    Variant("one folder of images", lambda: zipped(flat("photos/")), {"train": 3}, (), "there are no class folders and no labels"),
    Variant("`train/` and `test/` of loose images", lambda: zipped({**flat("train/"), **flat("test/", 2)}), {"train": 3}, (), "2 images of the split test have no labels", left_out={"unlabelled_test": 2}),
    Variant("class folders", lambda: zipped(folders(*AB)), FOUR, (), options={"labels": "none"}),
    Variant("npz of `x_train`", lambda: arrays(x_train=numbers()), {"train": 6}, (), "there are no labels"),
    Variant("one npy file", lambda: array(numbers()), {"train": 6}, (), "there are no labels"),
)  # fmt: skip
IMAGES = (
    Variant("JPEG, BMP, WebP, TIFF, PPM", lambda: zipped({f"{name}/{kind}": picture(1, kind) for name in AB for kind in ("JPEG", "BMP", "WEBP", "TIFF", "PPM")}), {"train": 10}),
    Variant("a PNG named `.jpg`", made_of(picture(5), "jpg"), FIVE),
    Variant("a PNG without a suffix", lambda: zipped({**folders(*AB), "ants/special": picture(5)}), FIVE),
    Variant("an animation", made_of(animation(), "gif"), FIVE, says="read only the first frame of 1 of 5 images", altered={"first_frame": 1}),
    Variant("16 bits for each value", made_of(sixteen_bit()), FIVE, says="scaled 1 of 5 images from 16 or more bits for each value to 8 bits", altered={"sixteen_bit_scaled": 1, "channels_converted": 1}),
    Variant("16 bits for each value", made_of(sixteen_bit()), says="more than 8 bits for each value", options={"sixteen_bit": "refuse"}),
    Variant("12 bits in 16", lambda: zipped({f"{name}/{number}.png": encoded(Image.fromarray((numbers(1)[0] * 16).astype(np.uint16))) for name in AB for number in range(2)}), FOUR, says="4 of 4 images are nearly black", altered={"sixteen_bit_scaled": 4, "sixteen_bit_dark": 4}),
    Variant("TIFF of colours with 16 bits", made_of(many_bands(3), "tif"), says="'ants/special.tif' is a TIFF of a kind that is not read"),
    Variant("TIFF of 13 bands", made_of(many_bands(13), "tif"), says="such as one of more than four bands"),
    Variant("formats that are not read, such as HEIC and DICOM", made_of(b"....ftypheic", "HEIC"), says="'ants/special.HEIC' is in a format that is not read (HEIC)"),
    Variant("the same beside a JPEG of the same name", lambda: zipped({**folders(*AB), "ants/0.HEIC": b"x"}), FOUR, says="1 file is not an image", left_out={"not_images": 1}),
    Variant("transparency", made_of(picture(mode="RGBA")), FIVE, says="laid the transparent parts of 1 of 5 images", altered={"transparency_removed": 1}),
    Variant("transparency", made_of(picture(mode="RGBA")), FIVE, options={"background": "drop"}),
    Variant("an EXIF orientation", made_of(turned(), "jpg"), FIVE, says="ignored the EXIF orientation of 1 of 5 images", altered={"exif_ignored": 1, "resized": 1}),
    Variant("an EXIF orientation", made_of(turned(), "jpg"), FIVE, says="turned 1 of 5 images as the EXIF orientation says", options={"exif": "apply"}, altered={"exif_rotated": 1, "resized": 1}),
    Variant("CMYK", made_of(picture(kind="JPEG", mode="CMYK"), "jpg"), FIVE, says="converted 1 of 5 images from CMYK", altered={"cmyk_converted": 1}),
    Variant("a palette, and 1 bit for each pixel", lambda: zipped({**folders(*AB), "ants/p.png": picture(mode="P"), "bees/b.png": picture(mode="1")}), {"train": 6}, says="converted 1 of 6 images to RGB", altered={"channels_converted": 1}),
    Variant("empty and truncated images", lambda: zipped({**folders(*AB), "ants/a.jpg": b"", "bees/b.png": picture()[:-40]}), says="2 images cannot be read: 'ants/a.jpg' is empty; 'bees/b.png' is damaged"),
    Variant("empty and truncated images", lambda: zipped({**folders(*AB), "ants/a.jpg": b"", "bees/b.png": picture()[:-40]}), FOUR, says="2 images cannot be read and were left out", options={"broken": "skip"}, left_out={"broken": 2}),
    Variant("masks beside the images of each class, `1.png` and `1_mask.png`", lambda: zipped({**folders(*AB), **{f"{name}/{number}_mask.png": picture(mode="L") for name in AB for number in range(2)}}), FOUR, says="4 masks beside their images were left out", left_out={"masks": 4}),
    Variant("masks beside the images of each class, `images/` and `masks/`", lambda: zipped(folders(*(f"{name}/{kind}" for name in AB for kind in ("images", "masks")))), FOUR, says="4 masks beside their images were left out", left_out={"masks": 4}),
    Variant("a class of broken images", lambda: zipped({**folders(*AB), "cats/a.jpg": b"x"}), FOUR, ("ants", "bees", "cats"), "1 class (cats) has no training image", {"broken": "skip"}, left_out={"broken": 1}),
)  # fmt: skip
CONTAINERS = (
    Variant("tar", lambda: tarred(split_folders("train", "test")), BOTH),
    Variant("tar.gz", lambda: tarred(folders(*AB), "w:gz"), FOUR),
    Variant("tar.bz2", lambda: tarred(folders(*AB), "w:bz2"), FOUR),
    Variant("tar.xz", lambda: tarred(folders(*AB), "w:xz"), FOUR),
    Variant("tar with long names", lambda: tarred(folders(f"{'d' * 90}/{'e' * 90}/ants", f"{'d' * 90}/{'e' * 90}/bees")), FOUR),
    Variant("WebDataset: `000.png`, `000.cls`", lambda: tarred({name: data for number in range(4) for name, data in ((f"{number:03}.png", picture(number)), (f"{number:03}.cls", str(number % 2).encode()))}), FOUR, ("0", "1")),
    Variant("WebDataset: `000.png`, `000.json`", lambda: tarred({name: data for number in range(4) for name, data in ((f"{number:03}.png", picture(number)), (f"{number:03}.json", b'{"label": "%s"}' % AB[number % 2].encode()))}), FOUR),
    Variant("a zip of a zip", lambda: zipped({"data.zip": zipped(folders(*AB))}), says="contains other archives only (data.zip)"),
    Variant("Parquet: a column of images, and one of numbers whose names are in its schema", lambda: parquet((1, 0, 1, 0), names=AB), FOUR),
    Variant("Parquet with names as labels, and bare bytes", lambda: parquet(("bees", "ants", "ants", None), "jpg", bare=True), {"train": 3}, says="1 image has no label and was left out", left_out={"without_label": 1}),
    Variant("Parquet without labels", lambda: parquet(None), FOUR, (), "there is no column of labels"),
    Variant("a zip of `data/train-00000-of-00002.parquet`, ...", lambda: zipped({f"data/{name}.parquet": parquet((0, 1)) for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")}), {"train": 4, "test": 2}, ("0", "1")),
    Variant("damaged Parquet", lambda: parquet((0, 1))[:-30] + bytes(30), says="the Parquet file is damaged"),
    Variant("a zip whose end is missing", lambda: zipped(folders(*AB))[:-100], says="not a complete zip archive"),
    Variant("a table alone", lambda: b"filename,label\na.png,ants\n", says="the file is a text file: it begins with 'filename,label"),
    Variant("a page that a download gave", lambda: b"<!DOCTYPE html><html></html>", says="the file is a web page"),
    Variant("files of MNIST", lambda: zipped({"train-images-idx3-ubyte": bytes([0, 0, 8, 3]) + bytes(64)}), says="train-images-idx3-ubyte (in the format IDX"),
    Variant("one file of MNIST, with gzip", lambda: gzip.compress(bytes([0, 0, 8, 3]) + bytes(1024)), says="in the format IDX"),
    Variant("pickled batches of CIFAR", lambda: tarred({"cifar-10-batches-py/data_batch_1": b"\x80\x02}q\x00."}, "w:gz"), says="data_batch_1 (a Python pickle)"),
)  # fmt: skip
TABLES = (
    Variant("`filename,label`", table("filename,label\n" + ROWS), FOUR, says="the labels of 4 images were read from the column 'label' of labels.csv"),
    Variant("`id;breed`, without the suffixes", table("id;breed\n" + ROWS.replace(".png", "").replace(",", ";")), FOUR),
    Variant("no header", table(ROWS), FOUR),
    Variant("paths and numbers", table("path,class\n" + "".join(f"images/{number}.png,{number % 2}\n" for number in range(4))), FOUR, ("0", "1")),
    Variant("a column for each class", table("image,ants,bees\n0,0.0,1.0\n1,1.0,0.0\n2,0.0,1.0\n3,1.0,0.0\n"), FOUR),
    Variant("a column `split`", table("filename,label,split\n0.png,ants,train\n1.png,bees,train\n2.png,ants,valid\n3.png,bees,valid\n"), {"train": 2, "test": 2}, says="have a single training image"),
    Variant("images that the table does not name", table("filename,label\n" + ROWS, **{"images/9.png": picture(9)}), FOUR, says="1 image has no label in a table", left_out={"without_label": 1}),
    Variant("UTF-16, as Excel writes it", lambda: zipped({"labels.csv": ("filename,label\n" + ROWS).encode("utf-16"), **flat("images/", 4)}), FOUR),
    Variant("Windows-1252", lambda: zipped({"labels.csv": ("filename,label\n" + ROWS.replace("ants", "zürich").replace("bees", "zärich")).encode("cp1252"), **flat("images/", 4)}), FOUR, ("zärich", "zürich")),
    Variant("several columns that may be the label", table("id,type,species,label\n0,x,1,bees\n1,x,1,ants\n2,y,1,bees\n3,y,1,ants\n"), FOUR, says="from the column 'label'"),
    Variant("columns that no name tells", table("id,sun,sea\n0,1,1\n1,0,1\n2,1,0\n3,0,0\n"), says="which of its columns has the labels is not clear: 'id', 'sun', 'sea'"),
    Variant("columns that no name tells", table("id,sun,sea\n0,1,1\n1,0,1\n2,1,0\n3,0,0\n"), FOUR, (), options={"labels": "none"}, says="is not an image", left_out={"not_images": 1}),
    Variant("points, `filename,x,y`", table("filename,x,y\n0.png,1,2\n1.png,2,1\n2.png,1,2\n3.png,2,1\n"), says="is not clear: 'filename', 'x', 'y'"),
    Variant("boxes, `filename,class,xmin,ymin,xmax,ymax`", table("filename,class,xmin,ymin,xmax,ymax\n0.png,ants,1,1,5,5\n1.png,bees,1,1,5,5\n"), says="lists boxes"),
    Variant("two labels for one image", table("filename,label\n" + ROWS + "0.png,ants\n"), says="gives the image 'images/0.png' two labels: 'bees' and 'ants'"),
    Variant("real numbers", table("filename,label\n0.png,1.5\n1.png,2\n2.png,3.25\n3.png,0\n"), says="numbers that are not whole, such as '1.5'"),
    Variant("a column `is_valid`", table("filename,label,is_valid\n0.png,bees,False\n1.png,ants,False\n2.png,bees,True\n3.png,ants,True\n"), {"train": 2, "test": 2}, says="have a single training image"),
    Variant("made-up labels of test images, `sample_submission.csv`", lambda: zipped({"train.csv": ("id,label\n" + ROWS.replace(".png", "")).encode(), "sample_submission.csv": b"id,label\n7,ants\n8,ants\n", **flat("train/", 4), "test/7.png": picture(7), "test/8.png": picture(8)}), FOUR, says="2 images have no label in a table", left_out={"without_label": 2, "not_images": 1}),
    Variant("rows of images that are not there", table("filename,label\n" + ROWS + "9.png,ants\n"), FOUR, says="1 row of labels.csv names no image"),
    Variant("a class in two spellings", table("filename,label\n0.png,Bees\n1.png,bees\n2.png,ants\n3.png,ants\n"), FOUR, ("Bees", "ants", "bees"), "differ only in case or blanks"),
)  # fmt: skip
ARRAYS = (
    Variant("`x_train`, `y_train`, `x_test`, `y_test`", lambda: arrays(x_train=numbers(), y_train=LABEL, x_test=numbers(3), y_test=[0, 1, 2]), {"train": 6, "test": 3}, THREE),
    Variant("`X_train`, `Y_train`", lambda: arrays(X_train=numbers(), Y_train=LABEL), {"train": 6}, THREE),
    Variant("`train_images`, `train_labels`, `val_images`, `val_labels`", lambda: arrays(train_images=numbers(), train_labels=LABEL[:, None], val_images=numbers(3), val_labels=[0, 1, 2]), {"train": 6, "test": 3}, THREE, "validation images are used as the split `test`"),
    Variant("`x_val` beside `x_test`", lambda: arrays(x_train=numbers(), y_train=LABEL, x_test=numbers(3), y_test=[0, 1, 2], x_val=numbers(4), y_val=[0, 1, 2, 0]), {"train": 6, "test": 3}, THREE, "validation images were ignored", left_out={"validation": 4}),
    Variant("`x_test` without `y_test`", lambda: arrays(x_train=numbers(), y_train=LABEL, x_test=numbers(3)), {"train": 6}, THREE, "test images have no labels", left_out={"unlabelled_test": 3}),
    Variant("`data`, `targets`", lambda: arrays(data=numbers(6, 3, 8, 8), targets=LABEL), {"train": 6}, THREE),
    Variant("`arr_0`, `arr_1`", lambda: arrays(arr_0=numbers(6, 8, 8, 3), arr_1=LABEL), {"train": 6}, THREE),
    Variant("a zip of `train/images.npy` and `train/labels.npy`", lambda: zipped({"train/images.npy": array(numbers()), "train/labels.npy": array(LABEL)}), {"train": 6}, THREE),
    Variant("labels as whole floats", lambda: arrays(x=numbers(), y=LABEL.astype(np.float32)), {"train": 6}, THREE),
    Variant("labels as one-hot rows", lambda: arrays(x=numbers(), y=np.eye(3)[LABEL]), {"train": 6}, THREE, "one-hot rows of 3 columns"),
    Variant("labels as names", lambda: arrays(x=numbers(), y=np.array(["cat", "ant", "bee"])[LABEL]), {"train": 6}, ("ant", "bee", "cat"), "the 3 classes are sorted by name"),
    Variant("labels 1 to 3", lambda: arrays(x=numbers(), y=LABEL + 1), {"train": 6}, ("1", "2", "3"), "class 1 became class 0"),
    Variant("labels 1 to 3", lambda: arrays(x=numbers(), y=LABEL + 1), {"train": 6}, ("0", "1", "2", "3"), "1 class (0) has no training image", {"first_label": 0}),
    Variant("probabilities as labels", lambda: arrays(x=numbers(), y=np.full((6, 3), 1 / 3)), says="y has the unsupported shape (6, 3)"),
    Variant("floats from 0 to 255", lambda: arrays(x=numbers(kind=np.float32), y=LABEL), {"train": 6}, THREE, "values of the type float32 were read as 0 to 255"),
    Variant("floats from -1 to 1", lambda: arrays(x=numbers() / 127.5 - 1, y=LABEL), says="values from -1 to 1, outside 0 to 1"),
    Variant("uint16", lambda: arrays(x=numbers().astype(np.uint16) * 257, y=LABEL), {"train": 6}, THREE, "were scaled from 0 to 65535 to 8 bits"),
    Variant("floats divided by 255 twice", lambda: arrays(x=numbers() / 255 / 255, y=LABEL), {"train": 6}, THREE, "was it divided by 255 twice?"),
    Variant("uint8 from 0 to 1", lambda: arrays(x=numbers() // 128, y=LABEL), {"train": 6}, THREE, "no value is above 1 of 255"),
    Variant("1000 images without a test split", lambda: arrays(x=numbers(1000), y=np.arange(1000) % 2), {"train": 900, "test": 100}, ("0", "1"), "there is no test split: moved 100 of 1000 images"),
    Variant("a test split that is asked for", lambda: arrays(x=numbers(), y=LABEL), {"train": 3, "test": 3}, THREE, "there is no test split: moved 3 of 6 images", {"test_fraction": 0.5}),
    Variant("`xtr`, `ytr`, `xte`, `yte`", lambda: arrays(xtr=numbers(), ytr=LABEL, xte=numbers(3), yte=[0, 1, 2]), {"train": 6, "test": 3}, THREE),
    Variant("`train_set_x`, and labels (1, N)", lambda: arrays(train_set_x=numbers(), train_set_y=LABEL[None], test_set_x=numbers(3), test_set_y=[[0, 1, 2]]), {"train": 6, "test": 3}, THREE),
    Variant("floats a little outside 0 to 1, by rounding", lambda: arrays(x_train=numbers(kind=np.float32) / 255 * 1.0002 - 1e-4, y_train=LABEL), {"train": 6}, THREE),
    Variant("floats up to 1.1, as resizing makes them", lambda: arrays(x_train=numbers(kind=np.float32) / 255 * 1.1, y_train=LABEL), says="neither 0 to 1 nor 0 to 255"),
    Variant("NaN", lambda: arrays(x_train=np.full((6, 8, 8), np.nan), y_train=LABEL), says="NaN or infinite"),
    Variant("whole floats up to 16, as scikit-learn's digits", lambda: arrays(x_train=(numbers() // 16).astype(float), y_train=LABEL), {"train": 6}, THREE, "no value is above 15 of 255, so that the images are nearly black"),
    Variant("12 bits in uint16", lambda: arrays(x_train=numbers(kind=np.uint16) * 16, y_train=LABEL), {"train": 6}, THREE, "no value is above 4080 of 65535"),
    Variant("rows of pixels", lambda: arrays(x_train=numbers(6, 64), y_train=LABEL), says="has the unsupported shape (6, 64)"),
    Variant("images along the last axis, as MATLAB has them", lambda: arrays(X=numbers(8, 8, 3, 6), y=LABEL), says="the channel axis of X with shape (8, 8, 3, 6) is ambiguous"),
)  # fmt: skip
BOXES = (
    Variant("COCO", lambda: zipped({"annotations/instances.json": b'{"images": [], "annotations": [{"bbox": [0, 0, 1, 1]}], "categories": []}', **flat("train2017/")}), says="a detection dataset in COCO format"),
    Variant("YOLO", lambda: zipped({**flat("images/train/"), "labels/train/0.txt": b"0 0.5 0.5 0.2 0.2\n1 .1 .1 .2 .3\n"}), says="a detection dataset in YOLO format"),
    Variant("Pascal VOC", lambda: zipped({**flat("JPEGImages/"), "Annotations/0.xml": b"<annotation><object><bndbox/></object></annotation>"}), says="a detection dataset in Pascal VOC format"),
    Variant("images and masks", lambda: zipped(folders("images", "masks")), says="a segmentation dataset"),
)  # fmt: skip
SECTIONS = {
    "Folders": LAYOUTS, "Images without labels": UNLABELLED, "Images": IMAGES, "Containers": CONTAINERS, "Tables of labels": TABLES,
    "Arrays": ARRAYS, "Boxes and masks without the option `labels`": BOXES,
}  # fmt: skip
VARIANTS = [variant for section in SECTIONS.values() for variant in section]


def tables() -> dict[str, list[tuple[str, ...]]]:
    """The rows of the page's tables, by heading; the first row is the head."""
    head = ("what you send", "options", "what the inspection says")
    return {name: [head, *map(_row, variants)] for name, variants in SECTIONS.items()}


def _row(variant: Variant) -> tuple[str, ...]:
    options = ", ".join(f"`{name}: {value}`" for name, value in variant.options.items())
    if not variant.splits:
        return variant.form, options, f"refused: {variant.says}"
    images = ", ".join(f"{split} {count}" for split, count in variant.splits.items())
    named = f"; classes {', '.join(variant.classes)}" if variant.classes else "; no labels"
    counts = "".join(
        f"; {what}: {', '.join(f'{name} {count}' for name, count in each.items())}"
        for what, each in (("altered", variant.altered), ("left out", variant.left_out))
        if each
    )
    return variant.form, options, f"{images}{named}{counts}" + (f"; warns “{variant.says}”" if variant.says else "")
