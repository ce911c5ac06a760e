"""Datasets as an archive of images: class folders with or without splits, a table of labels, or images without labels."""

from pathlib import PurePosixPath

from worker.distillation.data import truth
from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading import detection, label_tables, layout, shards
from worker.distillation.data.reading.archives import foreign
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.decoding import sorted_out
from worker.distillation.data.reading.image_set import read_images
from worker.distillation.data.reading.layout import LAYOUT, NOT_IMAGES, Layout
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import natural


def read(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an archive of images; classes are sorted by name, as text.

    Raises:
        UploadError: the layout is different, or an image cannot be read.
    """
    if options.labels not in ("class", "none"):
        raise UploadError("class folders support one class per image only", "Send an npz file for other labels.")
    images, others = sorted_out(archive)
    if not images:
        listed, way = foreign.described(archive, others)
        words = "the archive contains no images (png, jpg, bmp, webp, gif, tif, ppm) and no NumPy arrays"
        raise UploadError(f"{words}; its files are {listed}" if listed else words, way or LAYOUT)
    kind, found = _labelled(archive, images, others, options, limits)
    detection.leave_out_masks(found)
    return read_layout(archive, found, options, limits, kind)


def read_layout(archive: Archive, found: Layout, options: Options, limits: UploadLimits, kind: str) -> Packed:
    """The dataset of a layout; `kind` is the name of its format.

    Raises:
        UploadError: there are no training images, or an image cannot be read.
    """
    if options.labels == "none":
        _drop_labels(found)
    found.keep_two_splits("images", LAYOUT)
    packed = read_images(archive, found, options, limits, kind)
    truth.check(packed.splits, packed.labels, limits, len(found.classes))
    names = found.classes
    if kind == "folders" and list(names) != sorted(names, key=natural):
        packed.warnings.append(
            "class folders with numbers in their names are sorted as text (0, 1, 10, 2), as in torchvision's ImageFolder; timm sorts"
            " them by number"
        )
    return packed


def _labelled(
    archive: Archive,
    images: list[PurePosixPath],
    others: list[PurePosixPath],
    options: Options,
    limits: UploadLimits,
) -> tuple[str, Layout]:
    """The name of the format, and the layout: class folders if there are any, else labels beside the images."""
    refused: UploadError | None = None
    try:
        found = layout.find(images, others, archive.folders)
        detection.refuse_masks(found.classes)
    except UploadError as error:
        refused, found = error, Layout({}, ())
    if not found.classes:
        if labelled := shards.find(archive, images, others, options, limits):
            return "webdataset", labelled
        if labelled := label_tables.find(archive, images, others, options, limits):
            return "table", labelled
        if options.labels != "none":
            detection.refuse(archive, images, others)
            label_tables.refuse_unclear(archive, images, others)
    if refused is not None:
        raise refused
    if others:
        listed = ", ".join(str(file)[:80] for file in others[:5])
        found.leave_out("not_images", len(others), NOT_IMAGES + " ({listed})", listed=listed)
    if not found.classes and options.labels != "none":
        found.notes.append(
            "there are no class folders and no labels: the images can be used without labels only, such as by the source"
            " `substitute`"
        )
    return "folders", found


def _drop_labels(found: Layout) -> None:
    """Keep the training images without their classes."""
    for split, images in list(found.splits.items()):
        if split != "train" and "train" in found.splits:
            words = "{n} image[s] of the split {split} [was|were] left out"
            found.leave_out(f"unlabelled_{split}", len(images), words, split=split)
            del found.splits[split]
    found.splits = {"train": [(path, None) for images in found.splits.values() for path, _ in images]}
    found.classes = ()
