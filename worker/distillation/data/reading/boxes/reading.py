"""The dataset in an archive of images with files of boxes: which format it is, and its splits."""

from worker.distillation.data import truth
from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.boxes import coco, voc, yolo
from worker.distillation.data.reading.boxes.boxed_images import read_boxed
from worker.distillation.data.reading.decoding import sorted_out
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted, listed

LAYOUT = (
    "Send images with a COCO file for each split (train.json), with a Pascal VOC file for each image (Annotations/1.xml), or with a"
    " YOLO file for each image (labels/1.txt and data.yaml)."
)


def read(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an archive of images and boxes.

    Raises:
        UploadError: there are no boxes, a file is damaged, or boxes and images do not match.
    """
    images, others = sorted_out(archive)
    formats = (coco.find, voc.find, yolo.find)
    found = next((each for find in formats if (each := find(archive, images, others)) is not None), None)
    if found is None:
        words = (
            counted(len(images), "the archive has no file of boxes for its {n} image[s]")
            if images
            else "the archive has no images"
        )
        raise UploadError(words, LAYOUT)
    if not found.classes:
        raise UploadError("the files of boxes name no class of objects", LAYOUT)
    found.keep_two_splits("images with boxes", LAYOUT)
    packed = read_boxed(archive, found, options, limits)
    packed.left_out |= found.left_out
    packed.warnings += _absent(packed)
    truth.check(packed.splits, packed.labels, limits, len(found.classes))
    return packed


def _absent(packed: Packed) -> list[str]:
    """A warning if classes have no box in training."""
    boxes, labels = packed.splits["train"][1], packed.fields["train"]["box_label"]
    used = set(labels[(boxes[..., 2] > boxes[..., 0])].unique().tolist())
    absent = [name for number, name in enumerate(packed.class_names) if number not in used]
    words = "{n} class[es] ({listed}) [has|have] no box in `train`; [it counts|they count] as [a class|classes] all the same"
    return [counted(len(absent), words, listed=listed(absent))] if absent else []
