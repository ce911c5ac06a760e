"""WebDataset: an image and files of its labels with the same name before the first dot, such as `000.jpg` and `000.cls`."""

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.layout import Layout
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import Written, layout_of
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

NUMBER, RECORD = "cls", "json"
KEYS = ("label", "cls", "class", "class_id", "label_id", "target", "class_name", "label_name", "category")
"""Keys of a JSON record that hold the label; the first is read."""
LABEL_BYTES = 2**20


def find(
    archive: Archive,
    images: Sequence[PurePosixPath],
    others: Sequence[PurePosixPath],
    options: Options,
    limits: UploadLimits,
) -> Layout | None:
    """The layout by label files beside the images; None if there are none.

    Raises:
        UploadError: a label cannot be read.
    """
    labels = {_key(path): path for path in others if _kind(path) == RECORD}
    labels |= {_key(path): path for path in others if _kind(path) == NUMBER}
    splits: dict[str, list[Written]] = {}
    for image in images:
        file = labels.get(_key(image))
        label = _label(archive, file) if file is not None else None
        if label is not None:
            split = next((found for part in image.parts[:-1] if (found := split_of(part))), "train")
            splits.setdefault(split, []).append((image, label))
    if not splits:
        return None
    layout = layout_of(splits, options, limits)
    without = len(images) - sum(map(len, splits.values()))
    layout.leave_out(
        "without_label", without, "{n} image[s] [has|have] no label beside [it|them] and [was|were] left out"
    )
    return layout


def _key(path: PurePosixPath) -> PurePosixPath:
    return path.with_name(path.name.split(".", 1)[0] or path.name)


def _kind(path: PurePosixPath) -> str:
    return path.name.partition(".")[2].lower()


def _label(archive: Archive, file: PurePosixPath) -> str | None:
    text = archive.read(file, LABEL_BYTES).decode("utf-8", "replace").strip()
    if _kind(file) == NUMBER:
        if not text:
            raise UploadError(f"{str(file)[:120]!r} is empty", "Write the number or the name of the class into it.")
        return text
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UploadError(f"{str(file)[:120]!r} is not JSON: {str(error)[:200]}", "Write it again.") from error
    known = (record[key] for key in KEYS if key in record) if isinstance(record, dict) else iter([record])
    value = next((each for each in known if isinstance(each, int | str)), None)
    return None if value is None or isinstance(value, bool) else str(value)
