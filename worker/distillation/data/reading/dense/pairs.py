"""Which file of an archive is the mask, or the depth, of which image, by the names of folders and files.

Known are `train/images/1.jpg` with `train/masks/1.png`, `images/train/1.jpg` with `masks/train/1.png`, `train/1.png` with
`trainannot/1.png`, `JPEGImages/1.jpg` with `SegmentationClass/1.png`, and `1.jpg` with `1_mask.png` in one folder.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.distillation.data.reading.found_images import FoundImages
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.errors import UploadError
from worker.distillation.wording import counted, listed

MAPS = (
    "segmentationclassraw", "segmentationclass", "segmentations", "segmentation", "ground_truth", "groundtruth", "annotations",
    "annotation", "depth_maps", "depthmaps", "depthmap", "depths", "depth", "labels", "label", "masks", "mask", "annot", "gtfine",
    "gt", "seg",
)  # fmt: skip
"""Names of folders of masks and depth, longest first; a split's name may stand before or after, as in `trainannot`."""
IMAGES = frozenset(
    [
        "jpegimages",
        "leftimg8bit",
        "images",
        "image",
        "imgs",
        "img",
        "inputs",
        "input",
        "photos",
        "pictures",
        "rgb",
        "color",
        "colour",
    ]
)
MAP_ENDS = re.compile(
    r"[-_.](?:gtfine[-_]labelids|labelids|masks?|labels?|seg(?:mentation)?|gt|depths?|annot(?:ation)?|l)$",
    re.IGNORECASE,
)
"""Ends of the names of masks and depth files."""
IMAGE_ENDS = re.compile(r"[-_.](?:leftimg8bit|rgb|colou?r|image|img|photo)$", re.IGNORECASE)
LISTED = 5
LAYOUT = (
    "Put images and masks into parallel folders with the same file names: train/images/1.jpg and train/masks/1.png, and the same in"
    " test."
)


class Pairs(FoundImages[tuple[PurePosixPath, PurePosixPath]]):
    """Images with their maps, sorted by path."""


@dataclass(frozen=True)
class _Place:
    """What a path says: whether it is a map, its split, and a key that an image and its map share."""

    is_map: bool
    split: str | None
    key: tuple[str, ...]


def find(files: Iterable[PurePosixPath], lists: dict[str, frozenset[str]] | None = None) -> Pairs:
    """The pairs among the image files of an archive. `lists` gives the names of a split's files, as ImageSets of VOC do.

    Raises:
        UploadError: no image has a map, or an image has several.
    """
    images: dict[tuple[str, ...], tuple[PurePosixPath, str | None]] = {}
    maps: dict[tuple[str, ...], tuple[PurePosixPath, str | None]] = {}
    places = {path: _place(path) for path in sorted(files)}
    for path, place in places.items():
        _enter(maps if place.is_map else images, place, path)
    shared = [key for key in images if key in maps]
    if not shared:
        raise UploadError(_without(images.values(), maps.values()), LAYOUT)
    found = Pairs({})
    for key in shared:
        (image, of_image), (map_, of_map) = images[key], maps[key]
        split = _listed(image.stem, lists) if lists else of_image or of_map or "train"
        if split:
            found.splits.setdefault(split, []).append((image, map_))
    _leave_out(found, images, maps, lists)
    return found


def _place(path: PurePosixPath) -> _Place:
    is_map, of_images, split, kept = False, False, None, []
    for part in path.parts[:-1]:
        role, rest = _role(part)
        is_map, of_images = is_map or role == "map", of_images or role == "image"
        split = split_of(rest) or split if rest else split
        if role is None and not split_of(part):
            kept.append(part.lower())
    stem = path.stem
    if not is_map and not of_images and (match := MAP_ENDS.search(stem)):
        is_map, stem = True, stem[: match.start()]
    elif is_map:
        stem = MAP_ENDS.sub("", stem)
    else:
        stem = IMAGE_ENDS.sub("", stem)
    return _Place(is_map, split, (split or "", *kept, stem.lower()))


def _role(part: str) -> tuple[str | None, str]:
    """Whether a folder is one of images or of maps, and what is left of its name: perhaps a split."""
    name = part.lower()
    if name in IMAGES:
        return "image", ""
    for word in MAPS:
        rest = name.removesuffix(word).rstrip("-_ .") if name.endswith(word) else name.removeprefix(word).lstrip("-_ .")
        if rest != name and (not rest or split_of(rest)):
            return "map", rest
    return None, part


def _enter(known: dict[tuple[str, ...], tuple[PurePosixPath, str | None]], place: _Place, path: PurePosixPath) -> None:
    if place.key in known and place.is_map:
        other = known[place.key][0]
        words = f"two files are masks or depth of one image: {str(other)[:80]!r} and {str(path)[:80]!r}"
        raise UploadError(words, "Keep one of them.")
    if place.key in known:
        words = f"two images have one name: {str(known[place.key][0])[:80]!r} and {str(path)[:80]!r}"
        raise UploadError(words, "Rename one of them, and its mask.")
    known[place.key] = (path, place.split)


def _without(
    images: Iterable[tuple[PurePosixPath, str | None]], maps: Iterable[tuple[PurePosixPath, str | None]]
) -> str:
    of_images, of_maps = ([str(path)[:80] for path, _ in each] for each in (images, maps))
    if not of_maps:
        return counted(len(of_images), "the archive has no folder of masks or depth beside its {n} image[s]")
    words = f"none of {len(of_images)} images ({{images}}) has the name of"
    words += " [the mask or depth file|one of {n} masks or depth files] ({maps})"
    return counted(len(of_maps), words, images=listed(of_images, LISTED), maps=listed(of_maps, LISTED))


def _listed(stem: str, lists: dict[str, frozenset[str]]) -> str | None:
    return next((split for split in ("train", "val", "test") if stem in lists.get(split, ())), None)


def _leave_out(
    found: Pairs,
    images: dict[tuple[str, ...], tuple[PurePosixPath, str | None]],
    maps: dict[tuple[str, ...], tuple[PurePosixPath, str | None]],
    lists: dict[str, frozenset[str]] | None,
) -> None:
    alone = [str(path)[:80] for key, (path, _) in images.items() if key not in maps]
    words = "{n} image[s] [has|have] no mask or depth, and [was|were] left out ({listed})"
    found.leave_out("without_map", len(alone), words, listed=listed(alone, LISTED))
    alone = [str(path)[:80] for key, (path, _) in maps.items() if key not in images]
    words = "{n} [mask or depth file has|masks or depth files have] no image ({listed})"
    found.leave_out("map_without_image", len(alone), words, listed=listed(alone, LISTED))
    if lists:
        count = len(images.keys() & maps.keys()) - sum(map(len, found.splits.values()))
        words = "{n} image[s] [is|are] in no list of ImageSets, and [was|were] left out"
        found.leave_out("in_no_list", count, words)
