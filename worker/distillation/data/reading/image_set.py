"""The images of a layout, decoded into one tensor for each split, or encoded as photographs.

Shapes: N samples, C channels, H height, W width.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.packed import Options, Packed, check_size
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.decoding import BrokenImageError, ImageFile, decode, measure
from worker.distillation.data.reading.layout import Labelled, Layout
from worker.distillation.data.reading.photographs import Encoder, are_photographs
from worker.distillation.data.written_photographs import WrittenPhotographs
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted

LISTED_AT_MOST = 20
ALTERATIONS = {
    "exif_ignored": "ignored the EXIF orientation of {images}; set the option exif to `apply` to turn [it|them]",
    "exif_rotated": "turned {images} as the EXIF orientation says",
    "transparency_removed": "laid the transparent parts of {images} on the background {background}",
    "sixteen_bit_scaled": "scaled {images} from 16 or more bits for each value to 8 bits",
    "sixteen_bit_dark": "{images} [is|are] nearly black, since no value is above 4111 of 65535; multiply values of 12 bits by 16, of 10 bits by 64",
    "cmyk_converted": "converted {images} from CMYK",
    "first_frame": "read only the first frame of {images}",
}
"""What decoding does to images, in words; `{images}` is how many of all."""


@dataclass
class Broken:
    """The images that cannot be read."""

    skip: bool
    found: list[BrokenImageError] = field(default_factory=list)

    def check(self, images: int) -> None:
        """Refuse them, unless they are skipped.

        Raises:
            UploadError: there are any; the first 20 are listed.
        """
        if self.found and (not self.skip or images == 0):
            listed = "; ".join(str(error) for error in self.found[:LISTED_AT_MOST])
            more = f"; and {len(self.found) - LISTED_AT_MOST} more" if len(self.found) > LISTED_AT_MOST else ""
            count = f"{len(self.found)} images cannot be read: " if len(self.found) > 1 else ""
            way = "Replace or remove them, or set the option broken to `skip` to leave them out."
            raise UploadError(f"{count}{listed}{more}", way)


def read_images(archive: Archive, layout: Layout, options: Options, limits: UploadLimits, kind: str) -> Packed:
    """Decode all images of a layout with the splits `train` and, perhaps, `test`.

    Raises:
        UploadError: an image cannot be read, or all together are too large.
    """
    broken = Broken(options.broken == "skip")
    found = {
        split: _measured(archive, images, options, broken)
        for split, images in sorted(layout.splits.items(), reverse=True)
    }
    every = [image for each in found.values() for image in each]
    if not every:
        broken.check(0)
    shape = common_shape(every, options)
    splits: dict[str, tuple[Tensor, Tensor]] = {}
    photographs = None
    if are_photographs(len(every), shape, options, limits):
        photographs = _encode(archive, found, layout, options, limits, broken, splits, shape[0])
    else:
        check_size(len(every), shape, limits)
        for split, images in found.items():
            pixels, found[split] = _decoded(archive, images, shape, options, broken)
            splits[split] = (pixels, _labels(found[split], layout.classes))
    broken.check(sum(map(len, found.values())))
    packed = Packed(kind, splits, layout.classes, list(layout.notes), labels="class" if layout.classes else "none")
    packed.left_out, packed.photographs = dict(layout.left_out), photographs
    _tell(packed, [image for each in found.values() for image in each], shape, options, broken)
    return packed


def _encode(
    archive: Archive,
    found: dict[str, list[ImageFile]],
    layout: Layout,
    options: Options,
    limits: UploadLimits,
    broken: Broken,
    splits: dict[str, tuple[Tensor, Tensor]],
    channels: int,
) -> WrittenPhotographs:
    """Write the images of all splits to shards; fills `splits`, and keeps those of `found` that can be read."""
    assert limits.output is not None
    encoder = Encoder(archive, channels, options, limits.output, sum(map(len, found.values())))
    for split, images in found.items():
        table, found[split] = encoder.split(images, broken.found.append)
        splits[split] = (table, _labels(found[split], layout.classes))
    return encoder.close(limits)


def _measured(archive: Archive, images: Sequence[Labelled], options: Options, broken: Broken) -> list[ImageFile]:
    found = []
    for path, label in images:
        try:
            found.append(measure(archive, path, label, options))
        except BrokenImageError as error:
            broken.found.append(error)
    return found


def _decoded(
    archive: Archive, images: Sequence[ImageFile], shape: tuple[int, int, int], options: Options, broken: Broken
) -> tuple[Tensor, list[ImageFile]]:
    """Pixels (N, C, H, W) of the images that can be decoded, and these images."""
    pixels = torch.empty((len(images), *shape), dtype=torch.uint8)
    kept: list[ImageFile] = []
    for image in images:
        try:
            pixels[len(kept)].copy_(decode(archive, image, shape, options))
            kept.append(image)
        except BrokenImageError as error:
            broken.found.append(error)
    return pixels[: len(kept)], kept


def _labels(images: Sequence[ImageFile], classes: Sequence[str]) -> Tensor:
    if not classes:
        return truth.nothing(len(images))
    number = {name: position for position, name in enumerate(classes)}
    return torch.tensor([number[str(image.label)] for image in images], dtype=torch.int64)


def common_shape(images: Sequence[ImageFile], options: Options) -> tuple[int, int, int]:
    """Channels, height and width of the packed images: from the options, else greyscale if all images are, and the most
    common size."""
    sizes = Counter(image.size for image in images)
    most_common = max(sizes, key=lambda size: (sizes[size], size))
    channels = options.channels or (1 if all(image.grey for image in images) else 3)
    return channels, options.height or most_common[0], options.width or most_common[1]


def _tell(
    packed: Packed, images: Sequence[ImageFile], shape: tuple[int, int, int], options: Options, broken: Broken
) -> None:
    """Count and say what was changed and left out."""
    channels, height, width = shape
    words = {"resized": f"resized {{images}} to {height}x{width} (shorter side scaled, centre cropped)"}
    count = Counter(name for image in images for name in image.altered)
    if packed.photographs is None:
        count["resized"] = sum(image.size != (height, width) for image in images)
    else:
        side = packed.photographs.short_side
        count["scaled"] = sum(min(image.size) > side for image in images)
        words["scaled"] = (
            f"scaled {{images}} down to a short side of {side} pixels, as JPEG files; jobs show parts of [it|them]"
        )
    report_changes(packed, images, count, words, channels, options, broken)


def report_changes(
    packed: Packed,
    images: Sequence[ImageFile],
    count: Counter[str],
    words: Mapping[str, str],
    channels: int,
    options: Options,
    broken: Broken,
) -> None:
    """Add the numbers of images that were changed and left out to the findings, and a warning for each kind. `count` are the images
    by what was changed; `words` says it of kinds that are not in `ALTERATIONS`."""
    if count["sixteen_bit_dark"] < count["sixteen_bit_scaled"]:
        del count["sixteen_bit_dark"]  # dark images among others
    count["channels_converted"] = sum(image.grey != (channels == 1) for image in images)
    converted = {"channels_converted": f"converted {{images}} to {'greyscale' if channels == 1 else 'RGB'}"}
    for name, said in {"resized": words["resized"], **converted, **ALTERATIONS, **words}.items():
        if count[name]:
            packed.altered[name] = count[name]
            which = f"{count[name]} of {counted(len(images), '{n} image[s]')}"
            packed.warnings.append(counted(count[name], said, images=which, background=options.background))
    if broken.found:
        packed.left_out["broken"] = len(broken.found)
        listed = "; ".join(str(error) for error in broken.found[:5])
        text = "{n} image[s] cannot be read and [was|were] left out ({listed})"
        packed.warnings.append(counted(len(broken.found), text, listed=listed))
