"""Datasets as NumPy arrays of images and labels: an npz file, an archive of npy files, or one npy file.

Shapes: N samples, C channels, H height, W width.
"""

from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.fields import covered
from worker.distillation.data.packed import Options, Packed, check_privileged, check_size
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.arrays.array_files import read_array
from worker.distillation.data.reading.arrays.array_images import pixels
from worker.distillation.data.reading.arrays.array_labels import class_labels
from worker.distillation.data.reading.arrays.array_names import CLASS_NAMES, Found, roles
from worker.distillation.data.resizing import fill
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

PRIVILEGED = {"train": ("privileged", "privileged_train"), "test": ("privileged_test",)}
"""Array names of the samples' second images. They are not resized here, but later to the teacher's input size."""
RETRIEVAL = ("camera", "query")
"""Array names, followed by `_train` or `_test`, of the integers for the evaluation of embeddings."""
EXPECTED = "Send x_train and y_train (and x_test, y_test), or images and labels."


def read(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an archive of arrays.

    Raises:
        UploadError: arrays are missing, too large or damaged, or are not images and labels.
    """
    arrays, found = roles(file for file in archive.files if file.suffix == ".npy")
    packed = Packed("npz", {}, (), labels=options.labels)
    names_key = next((name for name in CLASS_NAMES if name in arrays), None)
    unread = _choose(arrays, found, names_key, packed)
    for reason, name in unread.items():
        packed.left_out[reason] = len(read_array(archive, arrays[name], limits))
    names = _class_names(names_key, archive, arrays, limits) if names_key else ()
    images = {split: _images(split, archive, arrays, found, options, limits, packed) for split in found}
    labels, names = _labels(archive, arrays, found, names, options, limits, packed)
    packed.splits = {split: (image, labels.get(split, truth.nothing(len(image)))) for split, image in images.items()}
    packed.privileged = {
        split: pixels(name, read_array(archive, arrays[name], limits), options, limits, packed.warnings)
        for split, known in PRIVILEGED.items()
        if (name := next((each for each in known if each in arrays), ""))
    }
    packed.retrieval = {
        split: {name: _numbers(f"{name}_{split}", archive, arrays, limits) for name in known}
        for split in packed.splits
        if (known := [name for name in RETRIEVAL if f"{name}_{split}" in arrays])
    }
    check_privileged(packed.splits, packed.privileged)
    classes = truth.check(packed.splits, packed.labels, limits, len(names) if names else None)
    truth.check_retrieval(packed.retrieval, packed.splits)
    if len({image.shape[1:] for image, _ in packed.splits.values()}) > 1:
        raise UploadError(
            "training and test images differ in size or channels",
            "Send both with the same channels and size, or set the options height and width.",
        )
    packed.class_names = names or tuple(map(str, range(classes)))
    return packed


def _choose(arrays: dict[str, PurePosixPath], found: Found, names_key: str | None, packed: Packed) -> dict[str, str]:
    """Leave in `found` the splits to read: `train` and, perhaps, `test`; set the kind of labels to `none` if there are none.

    Gives the arrays of images that are left out, by reason.
    """
    left_out: dict[str, str] = {}
    listed = ", ".join(sorted(arrays)[:20]) or "none"
    if "images" not in found.get("train", {}):
        raise UploadError(f"the npz file has no training images and labels; its arrays are {listed}", EXPECTED)
    if "images" in found.get("val", {}):
        if "images" in found.get("test", {}):
            left_out["validation"] = found["val"]["images"]
            packed.warnings.append("the validation images were ignored because there are test images")
        else:
            found["test"] = found["val"]
            packed.warnings.append("the validation images are used as the split `test`")
    kept = {split: found[split] for split in ("train", "test") if "images" in found.get(split, {})}
    known = {name for each in found.values() for name in each.values()} | {names_key}
    known |= {name for each in PRIVILEGED.values() for name in each}
    known |= {f"{name}_{split}" for name in RETRIEVAL for split in ("train", "test")}
    unread = sorted(set(arrays) - known)
    if "labels" not in kept["train"] and packed.labels != "none":
        if packed.labels != "class" or unread:
            words = "the npz file has no labels under a known name"
            raise UploadError(f"{words}; its arrays are {listed}", f"{EXPECTED} Or set the option labels to `none`.")
        packed.labels = "none"
        packed.warnings.append(
            "there are no labels: the images can be used without labels only, such as by the source `substitute`"
        )
    if unread:
        packed.warnings.append(f"the arrays {', '.join(unread[:20])} were not read")
    if "test" in kept and (packed.labels == "none" or "labels" not in kept["test"]):
        left_out["unlabelled_test"] = kept.pop("test")["images"]
        packed.warnings.append("the test images have no labels and were left out")
    found.clear()
    found.update(kept)
    return left_out


def _images(
    split: str,
    archive: Archive,
    arrays: dict[str, PurePosixPath],
    found: Found,
    options: Options,
    limits: UploadLimits,
    packed: Packed,
) -> Tensor:
    name = found[split]["images"]
    images = pixels(name, read_array(archive, arrays[name], limits), options, limits, packed.warnings)
    size = (options.height or images.shape[2], options.width or images.shape[3])
    if size == tuple(images.shape[2:]):
        return images
    check_size(len(images), (images.shape[1], *size), limits)
    packed.altered["resized"] = packed.altered.get("resized", 0) + len(images)
    packed.warnings.append(
        f"{name}: resized from {images.shape[2]}x{images.shape[3]} to {size[0]}x{size[1]} (shorter side scaled, centre cropped)"
    )
    return fill(images, *size)


def _labels(
    archive: Archive,
    arrays: dict[str, PurePosixPath],
    found: Found,
    names: tuple[str, ...],
    options: Options,
    limits: UploadLimits,
    packed: Packed,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels by split, and the names of the classes."""
    if packed.labels == "none":
        return {}, ()
    given = {
        split: (each["labels"], read_array(archive, arrays[each["labels"]], limits)) for split, each in found.items()
    }
    if packed.labels == "class":
        return class_labels(given, names, options, limits, packed.warnings)
    labels = {split: truth.from_array(name, array, packed.labels) for split, (name, array) in given.items()}
    if packed.labels in truth.DENSE:
        labels = {split: _resized(packed.labels, value, options) for split, value in labels.items()}
        names = names or (("depth",) if packed.labels == "depth" else ())
    return labels, names


def _resized(name: str, value: Tensor, options: Options) -> Tensor:
    """Maps (N, H, W), scaled and cropped as their images are."""
    size = (int(value.shape[1]), int(value.shape[2]))
    wanted = (options.height or size[0], options.width or size[1])
    return value if wanted == size else covered({name: value}, size, wanted)[name]


def _numbers(name: str, archive: Archive, arrays: dict[str, PurePosixPath], limits: UploadLimits) -> Tensor:
    """Cameras or queries (N,) int64; booleans are accepted."""
    array = read_array(archive, arrays[name], limits)
    return truth.from_array(name, array.astype("uint8") if array.dtype.kind == "b" else array, "class")


def _class_names(
    name: str, archive: Archive, arrays: dict[str, PurePosixPath], limits: UploadLimits
) -> tuple[str, ...]:
    array: Any = read_array(archive, arrays[name], limits)
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise UploadError(
            f"{name} is not a one-dimensional array of strings",
            "Save it as `numpy.array(names)` of Python strings.",
        )
    return tuple(each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.tolist())
