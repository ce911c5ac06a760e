"""Labels that are written beside images as text: numbers or names, in a table or in one file for each image."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.layout import Layout
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

REAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
Written = tuple[PurePosixPath, str]
WINDOWS = {byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0xA0)}
"""What Windows-1252 has where Latin-1 has control characters."""
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def layout_of(splits: Mapping[str, Sequence[Written]], options: Options, limits: UploadLimits) -> Layout:
    """The layout of images with written labels: whole numbers are classes counted from 0 or 1, other words are class names.

    Raises:
        UploadError: a number is not whole, negative or too large, or contradicts the option first_label.
    """
    written = {label for images in splits.values() for _, label in images}
    numbers = {label: whole(label) for label in written}
    if any(number is None for number in numbers.values()):
        if all(REAL.fullmatch(label.strip()) for label in written):
            broken = min(label for label in written if numbers[label] is None)
            raise UploadError(
                f"the labels are numbers that are not whole, such as {broken[:40]!r}: these are no classes",
                "To predict numbers, send an npz file with the option labels `target`. For classes, write their numbers or names.",
            )
        named = {split: [(path, label) for path, label in images] for split, images in splits.items()}
        return Layout({split: list(images) for split, images in named.items()}, tuple(sorted(written)))
    values = {number for number in numbers.values() if number is not None}
    if min(values) < 0 or max(values) >= limits.classes:
        raise UploadError(
            f"the labels reach from {min(values)} to {max(values)}", "Number the classes from 0 without gaps."
        )
    notes: list[str] = []
    first = first_label(values, options, None, notes)
    classes = tuple(map(str, range(first, max(values) + 1)))
    found = {split: [(path, str(numbers[label])) for path, label in images] for split, images in splits.items()}
    return Layout({split: list(images) for split, images in found.items()}, classes, notes=notes)


def first_label(values: set[int], options: Options, named: int | None, notes: list[str]) -> int:
    """The number of the first class: 0 or 1, as the option says, or 1 if the labels are 1 to K and all present.

    `named`: the number of class names, if there are any; more names than labels are names of classes from 0.

    Raises:
        UploadError: the option says 1, and there is a label 0.
    """
    if options.first_label == 1 and 0 in values:
        raise UploadError("a label is 0, and the option first_label says that the first class is 1", "Set it to 0.")
    from_one = len(values) > 1 and (min(values), max(values)) == (1, len(values)) and named in (None, max(values))
    if options.first_label == 1 or (options.first_label is None and from_one):
        notes.append(
            f"the labels are 1 to {max(values)} and no image has the label 0: class 1 became class 0, and so on; set the"
            " option first_label to 0 to keep them"
        )
        return 1
    return 0


def whole(text: str) -> int | None:
    """The integer that a text is, also one written as `3.0`; None if it is another text."""
    text = text.strip()
    digits = text.removesuffix(".0")
    return int(digits) if digits.removeprefix("-").isdecimal() and len(digits) < 10 else None


def text_of(data: bytes | bytearray) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark as Excel writes it, or Windows' code page.

    Bytes that are no UTF-8 are read as Windows-1252, so that two names never become one.
    """
    coding = next((coding for mark, coding in MARKS.items() if data.startswith(mark)), None)
    if coding:
        return data.decode(coding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1").translate(WINDOWS)
