"""Masks: the class of each pixel, from index, palette, greyscale and RGB files.

Shapes: N samples, K classes, H height, W width.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.fields import IGNORED
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.decoding import BrokenImageError
from worker.distillation.errors import UploadError
from worker.distillation.wording import counted

HEX = re.compile(r"#?([0-9a-fA-F]{6})")
INDEX_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
LISTED = 8
LOOKED_AT = 200
"""Masks that are searched for areas."""
LEAST_GREY = 64
"""Largest number of a mask from which on a few numbers with wide gaps are taken for shades of grey."""
EDGE = 32
"""How far from black and white the shades of blurred edges are, among others."""
QUESTION = (
    "Set the option white to `class` if 255 is a class beside 0 (such as foreground and background), or to `ignored` if those pixels"
    " are to be left out."
)
Colour = tuple[int, int, int]


@dataclass
class MaskReader:
    """Turns mask files into class numbers (H, W) uint8, 255 for ignored pixels. `colours` are the classes' colours in RGB masks, in
    order; `names` the class names, empty if unknown."""

    options: Options
    colours: tuple[Colour, ...] = ()
    ignored_colours: tuple[Colour, ...] = ()
    names: tuple[str, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict)
    """Number of files by kind: palette, greyscale, RGB."""
    notes: list[str] = field(default_factory=list)
    _numbers: dict[int, set[int]] = field(default_factory=dict)
    """The numbers of each colour in the first palette that uses it."""

    @classmethod
    def of(cls, archive: Archive, others: Sequence[PurePosixPath], options: Options) -> "MaskReader":
        """A reader with the colours of the options, or with those of a table in the archive (`class_dict.csv` or `labelmap.txt`).

        Raises:
            UploadError: a colour is not written as #RRGGBB.
        """
        colours = tuple(map(_colour, options.mask_colours or ()))
        ignored = tuple(map(_colour, options.ignored_colours or ()))
        names = _names(archive, others)
        if not colours:
            table = _table(archive, others)
            colours, names = tuple(table.values()), names or tuple(table)
        return cls(options, colours, ignored, names)

    def index(self, image: Any, path: PurePosixPath) -> Any:
        """The numbers of one opened mask as an array (H, W) of integers.

        Raises:
            BrokenImageError: the mask has a mode that holds no classes.
            UploadError: it is in colour, and there is no table of colours, or a colour is not in the table.
        """
        import numpy as np

        shown = repr(str(path)[:120])
        if image.mode == "L" and self.options.mask_colours and all(len(set(each)) == 1 for each in self.colours):
            image = image.convert("RGB")  # shades of grey that the option lists
        if image.mode in INDEX_MODES:
            kind = {"P": "palette", "1": "two values"}.get(image.mode, "greyscale")
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            index = np.array(image).astype(np.int64)
            if image.mode == "P":
                self._check_palette(image.getpalette() or [], np.unique(index).tolist(), shown)
            return index
        if image.mode not in ("RGB", "RGBA"):
            words = f"{shown} has the pixel mode {image.mode}, which holds no classes"
            raise BrokenImageError(words, "Save masks as PNG with one number for each pixel.")
        self.kinds["RGB"] = self.kinds.get("RGB", 0) + 1
        pixels = np.array(image.convert("RGB")).astype(np.int64)
        if not self.colours and (pixels == pixels[..., :1]).all():
            return pixels[..., 0]
        return self._from_colours(pixels, shown)

    def _check_palette(self, palette: Sequence[int], used: Sequence[int], shown: str) -> None:
        """Refuse a palette that gives a colour another number than the masks before it: programs order palettes as they like."""
        here: dict[int, set[int]] = {}
        for number in used:
            if colour := _code(tuple(palette[3 * number : 3 * number + 3]) or (0, 0, 0)):  # type: ignore[arg-type]
                here.setdefault(colour, set()).add(number)
        for colour, numbers in here.items():
            first = self._numbers.setdefault(colour, numbers)
            if first.isdisjoint(numbers):
                words = f"the colour #{colour:06x} is the number {min(numbers)} in {shown}, but {min(first)} in masks before it"
                raise UploadError(words, "Save all masks with one palette, or as RGB with the option mask_colours.")

    def _from_colours(self, pixels: Any, shown: str) -> Any:
        import numpy as np

        code = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        found, inverse = np.unique(code, return_inverse=True)
        listed = ", ".join(f"#{each:06x}" for each in found[:LISTED].tolist())
        if not self.colours:
            words = f"{shown} is an RGB mask with the colours {listed}, and no table says which class each is"
            raise UploadError(words, "Set the option mask_colours to the classes' colours in order, such as #800000.")
        number = {_code(colour): IGNORED for colour in self.ignored_colours}
        number |= {_code(colour): position for position, colour in enumerate(self.colours)}
        unknown = [f"#{each:06x}" for each in found.tolist() if each not in number]
        if unknown:
            words = "{shown} has {n} colour[s] that [is|are] not in the table: {listed}"
            words = counted(len(unknown), words, shown=shown, listed=", ".join(unknown[:LISTED]))
            hint = "Add them to mask_colours or ignored_colours; save masks as PNG, since JPEG changes colours."
            raise UploadError(words, hint)
        return np.array([number[each] for each in found.tolist()], dtype=np.int64)[inverse].reshape(code.shape)

    def _foreground(self, index: Tensor, values: set[int]) -> Tensor:
        """Masks of 0 and 1 from black and white ones; shades between, as JPEG and scaling make them, are rounded to the nearer."""
        edges = {value for value in values if EDGE <= value <= IGNORED - EDGE}
        if values - {0, IGNORED} and 2 * len(_within(index[:LOOKED_AT], edges)) >= len(edges):
            words = f"the masks hold other numbers beside 0 and 255: {sorted(values)[:LISTED]}"
            raise UploadError(words, "Leave the option white out.")
        if changed := int(((index != 0) & (index != IGNORED)).sum()):
            self.notes.append(
                f"{changed / index.numel():.2%} of the masks' pixels are neither black nor white and were rounded to the nearer"
            )
        return (index > IGNORED // 2).to(index.dtype)

    def classes_of(self, index: Tensor, found: Sequence[int]) -> Tensor:
        """Class numbers (N, H, W) uint8 from the numbers of all masks (N, H, W), which have the values `found`.

        Raises:
            UploadError: the numbers are no classes, or it is not clear what 255 means.
        """
        options, by_number = self.options, "RGB" not in self.kinds or not self.colours
        values = set(found)
        if by_number and values == {0, IGNORED} and options.white is None:
            raise UploadError("the masks hold only 0 and 255: is 255 a class or ignored?", QUESTION)
        if by_number and max(values) > IGNORED:
            words = (
                f"the masks hold numbers up to {max(values)}; classes are 0 to {IGNORED - 1}, and {IGNORED} is ignored"
            )
            raise UploadError(words, "Send masks of classes. Masks of instances number objects, not classes.")
        if by_number and options.white == "class":
            index = self._foreground(index, values)
        elif by_number and not self.names and not self.colours:
            _check_numbers(index, values - {IGNORED, *(options.ignored_values or ())})
        for value in options.ignored_values or ():
            index = torch.where(index == value, IGNORED, index)
        if options.first_label == 1:
            index = torch.where((index == 0) | (index == IGNORED), IGNORED, index - 1)
        return index.to(torch.uint8)


def _check_numbers(index: Tensor, numbers: set[int]) -> None:
    """Refuse numbers that are shades of grey, which scaling or JPEG blurred, or which were spread to be seen.

    Raises:
        UploadError: they are.
    """
    listed = ", ".join(map(str, sorted(numbers)[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
    if len(numbers) > LISTED and 2 * len(_within(index[:LOOKED_AT], numbers)) < len(numbers):
        words = f"the masks hold {len(numbers)} numbers ({listed}), most of which fill no area: they were blurred at their edges"
        raise UploadError(
            words,
            "Make the masks again as PNG, scaled with the nearest pixel; JPEG and other scaling invent numbers. If they are black and"
            " white, set the option white to `class`: what is darker than 128 is class 0.",
        )
    if numbers and max(numbers) >= LEAST_GREY and 3 * len(numbers) <= max(numbers):
        words = (
            f"the masks hold only the numbers {listed}, which seem to be shades of grey and not the numbers of classes"
        )
        raise UploadError(
            words,
            "Number the classes 0, 1, 2, or list their shades in order in the option mask_colours, such as #000000, #808080. If these"
            " are their numbers, name all classes in classes.txt.",
        )


def _within(index: Tensor, numbers: set[int]) -> set[int]:
    """Those of the numbers that fill a square of three pixels anywhere."""
    if min(index.shape[1:]) < 3:
        return numbers
    value = index[:, None].float()
    least, most = -torch.nn.functional.max_pool2d(-value, 3, 1), torch.nn.functional.max_pool2d(value, 3, 1)
    return numbers & {int(each) for each in least[least == most].unique()}


def _colour(written: str) -> Colour:
    match = HEX.fullmatch(written.strip())
    if not match:
        raise UploadError(f"{written[:40]!r} is not a colour", "Write colours as #RRGGBB, such as #800000.")
    code = int(match[1], 16)
    return code >> 16, (code >> 8) & 255, code & 255


def _code(colour: Colour) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _names(archive: Archive, others: Sequence[PurePosixPath]) -> tuple[str, ...]:
    """The class names in `classes.json` (a list, or an object with `classes`) or in the lines of `classes.txt`."""
    for path in others:
        if path.name.lower() == "classes.json":
            try:
                given = json.loads(bytes(archive.read(path)))
            except ValueError as error:
                raise UploadError(f"{str(path)[:80]!r} is not JSON: {error}", "Repair it, or leave it out.") from error
            given = given.get("classes") if isinstance(given, dict) else given
            if isinstance(given, list) and all(isinstance(each, str) for each in given):
                return tuple(given)
        if path.name.lower() == "classes.txt":
            return tuple(line.strip() for line in _lines(archive, path) if line.strip())
    return ()


def _table(archive: Archive, others: Sequence[PurePosixPath]) -> Mapping[str, Colour]:
    """Colours by class name, in the order of the file: `class_dict.csv` (name, r, g, b) or CVAT's `labelmap.txt`
    (`name:r,g,b:…`)."""
    for path in others:
        if path.name.lower() == "class_dict.csv":
            rows = list(csv.reader(_lines(archive, path)))
            numbers = ((row[0].strip(), row[1:4]) for row in rows[1:] if len(row) >= 4)
            return {name: _three(values, path) for name, values in numbers}
        if path.name.lower() == "labelmap.txt":
            parts = (line.split(":") for line in _lines(archive, path) if line.strip() and not line.startswith("#"))
            return {part[0].strip(): _three(part[1].split(","), path) for part in parts if len(part) > 1}
    return {}


def _lines(archive: Archive, path: PurePosixPath) -> list[str]:
    return bytes(archive.read(path)).decode("utf-8-sig", "replace").splitlines()


def _three(values: Sequence[str], path: PurePosixPath) -> Colour:
    numbers = [int(value) for value in values if value.strip().isdecimal()]
    if len(numbers) != 3 or max(numbers) > 255:
        raise UploadError(f"{str(path)[:80]!r} has a colour that is not three numbers from 0 to 255", "Repair it.")
    return numbers[0], numbers[1], numbers[2]
