"""Splits and classes of an archive of images, by the names of its folders.

Splits are looked for at any depth, through any number of folders that contain nothing but one folder. A folder whose name is
that of a split is never a class. Longer names with the word of a split in them, such as `train_resized`, are splits if all folders
beside each other have such names and hold the same classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.distillation.data.reading.folder_tree import Folder, descend, tree, within_split
from worker.distillation.data.reading.found_images import FoundImages
from worker.distillation.data.reading.split_names import loose_split_of, split_of
from worker.distillation.errors import UploadError

LAYOUT = (
    "Put images into one folder for each class: class/image.png, or train/class/image.png and test/class/image.png."
)
MASKS = frozenset(["mask", "masks", "segmentation", "segmentations", "groundtruth", "ground_truth", "gt"])
INPUTS = frozenset(["image", "images", "img", "imgs", "input", "inputs", "photo", "photos", "picture", "pictures"])
"""Names of folders of masks and of the images beside them."""
Labelled = tuple[PurePosixPath, str | None]
"""An image and its class, None if there are no labels."""


NOT_IMAGES = "{n} file[s] [is not an image|are not images] and [was|were] ignored"


@dataclass
class Layout(FoundImages[Labelled]):
    """Images with classes, sorted by path; all class names, sorted as text, none if there are no labels."""

    classes: tuple[str, ...]


def find(images: Iterable[PurePosixPath], others: Iterable[PurePosixPath], folders: Iterable[PurePosixPath]) -> Layout:
    """The layout of an archive with these images, other files and folders.

    Raises:
        UploadError: a folder that is named like a split is beside class folders, or images are in no class folder.
    """
    root = tree(images, others, folders)
    top = descend(root)
    loose = _loose_splits(top)
    splits = loose or {name: split for name in top.filled if (split := split_of(name))}
    if not splits:
        return _one_split(top)
    layout = _several(top, splits)
    strange = sorted(name for name in loose if not split_of(name))
    if strange:
        taken = ", ".join(f"{name[:40]!r} as {loose[name]}" for name in strange[:8])
        layout.notes.append(f"folders whose names contain the word of a split were taken for splits: {taken}")
    return layout


def _loose_splits(top: Folder) -> dict[str, str]:
    """The split of each folder if all have names with the word of a split in them, and are beside each other as splits are: with class
    folders of the same names, or without any and with the same rest of their names. Empty if not, or if they are not two splits."""
    said = {name: found for name in top.filled if (found := loose_split_of(name))}
    splits = {name: split for name, (split, _) in said.items()}
    if len(said) < len(top.filled) or "train" not in splits.values() or len(set(splits.values())) < 2:
        return {}
    inner = {name: set(within_split(folder).filled) for name, folder in top.filled.items()}
    trained = {each for name, split in splits.items() if split == "train" for each in inner[name]}
    if len(trained) > 1:
        others = [inner[name] for name, split in splits.items() if split != "train"]
        return splits if all(len(names) < 2 or names & trained for names in others) else {}
    return splits if not any(inner.values()) and len({rest for _, rest in said.values()}) == 1 else {}


def _one_split(top: Folder) -> Layout:
    """Class folders without splits, class folders that hold splits, or images without labels."""
    classes = sorted({*top.filled, *top.empty})
    if not top.filled or len(classes) == 1:
        return Layout({"train": [(path, None) for path in sorted(top.within())]}, ())
    layout = Layout({}, tuple(classes))
    if len(top.images) > sum(1 for _ in top.within()) / 2:
        raise UploadError(f"{str(top.images[0])[:120]!r} is not in a class folder", LAYOUT)
    _leave_out_loose(layout, top)
    inner = [folder for each in top.filled.values() for folder in each.filled]
    if inner and all(map(split_of, inner)) and not any(each.images for each in top.filled.values()):
        for name, folder in sorted(top.filled.items()):
            for split, part in folder.filled.items():
                layout.splits.setdefault(str(split_of(split)), []).extend((path, name) for path in part.within())
        return layout
    layout.splits["train"] = _labelled(top)
    shared = [set(folder.filled) for folder in top.filled.values() if not folder.images]
    alike = len(shared) == len(top.filled) > 1 and len(shared[0]) > 1 and all(names == shared[0] for names in shared)
    if alike and not {name.lower() for name in shared[0]} <= MASKS | INPUTS:
        layout.notes.append(_same_within(sorted(top.filled), sorted(shared[0])))
    return layout


def _same_within(classes: list[str], inner: list[str]) -> str:
    shown, within = (", ".join(each[:40] for each in names[:5]) for names in (classes, inner))
    return (
        f"the classes are the folders {shown}; each of them has the same folders ({within}), which were not looked at: if those are the"
        " classes, name the outer folders train and test, or join them"
    )


def _leave_out_loose(layout: Layout, folder: Folder) -> None:
    if folder.images:
        shown = ", ".join(str(path)[:80] for path in folder.images[:3])
        words = "{n} image[s] beside the class folders [has|have] no class and [was|were] left out ({shown})"
        layout.leave_out("without_class", len(folder.images), words, shown=shown)


def _labelled(folder: Folder) -> list[Labelled]:
    return [(path, name) for name, each in sorted(folder.filled.items()) for path in sorted(each.within())]


def _several(top: Folder, splits: dict[str, str]) -> Layout:
    layout = Layout({}, ())
    rest = {name: folder for name, folder in top.filled.items() if name not in splits}
    _leave_out_copies(layout, top, splits, rest)
    parts: dict[str, list[Folder]] = {}
    for name, split in sorted(splits.items()):
        parts.setdefault(split, []).append(within_split(top.folders[name]))
    if rest and "train" not in parts:  # class folders beside a folder of test images
        parts["train"], rest = [Folder("", rest)], {}
    labelled = any(part.filled for part in parts.get("train", ()))
    _check_beside(splits, rest, labelled)
    for name, folder in sorted(rest.items()):
        count = sum(1 for _ in folder.within())
        words = "{n} image[s] in the folder {name!r} [was|were] left out: it is not a split"
        layout.leave_out("without_class", count, words, name=name[:80])
    if top.images:
        _leave_out_loose(layout, top)
    if not labelled or len(_names(parts)) == 1:
        return _unlabelled(layout, parts, labelled)
    classes: set[str] = set()
    for split, each in parts.items():
        classes |= _read_split(layout, split, each, parts)
    layout.classes = tuple(sorted(classes))
    return layout


def _leave_out_copies(layout: Layout, top: Folder, splits: dict[str, str], rest: dict[str, Folder]) -> None:
    """Drop from `rest` the folders that have the splits once more, as archives of archives do."""
    own = {path for name in splits for path in top.folders[name].names_within((name,))}
    for name, folder in sorted(rest.items()):
        if set(descend(folder).names_within()) == own:
            words = "{n} image[s] in the folder {name!r} [was|were] left out: [it is a copy|they are copies] by [its|their] path[s]"
            layout.leave_out("copies", len(own), words, name=name[:80])
            del rest[name]


def _check_beside(splits: dict[str, str], rest: dict[str, Folder], labelled: bool) -> None:
    """Refuse folders beside splits that could be classes."""
    if not rest or (labelled and not any(folder.filled for folder in rest.values())):
        return
    names, others = (", ".join(f"`{name[:40]}`" for name in sorted(each)[:5]) for each in (splits, rest))
    raise UploadError(
        f"the archive has folders named like splits ({names}) beside others ({others})",
        "Put all class folders into the folders of the splits. If it is a class, rename the folder, such as `train (class)`.",
    )


def _names(parts: dict[str, list[Folder]]) -> set[str]:
    return {name for each in parts.values() for part in each for name in (*part.filled, *part.empty)}


def _unlabelled(layout: Layout, parts: dict[str, list[Folder]], one_class: bool) -> Layout:
    """Images without classes: those of the training split, or else all."""
    if not one_class and any(part.filled for each in parts.values() for part in each):
        raise UploadError(
            "the archive has no training images in class folders, but class folders of other splits", LAYOUT
        )
    chosen = parts.get("train") or [part for each in parts.values() for part in each]
    layout.splits["train"] = sorted((path, None) for part in chosen for path in part.within())
    for split, each in parts.items():
        count = sum(1 for part in each for _ in part.within())
        if "train" in parts and split != "train":
            words = "{n} image[s] of the split {split} [has|have] no label[s] and [was|were] left out"
            layout.leave_out(f"unlabelled_{split}", count, words, split=split)
    return layout


def _read_split(layout: Layout, split: str, parts: list[Folder], all_parts: dict[str, list[Folder]]) -> set[str]:
    """Add a split's images; gives its class names."""
    loose = sum(len(part.images) for part in parts)
    words = "{n} image[s] of the split {split} [is|are] in no class folder and [was|were] left out"
    layout.leave_out(f"unlabelled_{split}", loose, words, split=split)
    found = [image for part in parts for image in _labelled(part)]
    if split != "train" and _is_leaf_of_other(parts, all_parts):
        words = "{n} image[s] of the split {split} [has|have] no class folder[s] and [was|were] left out"
        layout.leave_out(f"unlabelled_{split}", len(found), words, split=split)
        return set()
    names = {name for part in parts for name in (*part.filled, *part.empty)}
    _check_nested(split, names, all_parts)
    if found:
        layout.splits[split] = found
    return names


def _is_leaf_of_other(parts: list[Folder], all_parts: dict[str, list[Folder]]) -> bool:
    """Whether the only folder of a split is none of the training classes: `test/images/1.png`."""
    names = {name for part in parts for name in part.filled}
    trained = {name for part in all_parts.get("train", ()) for name in (*part.filled, *part.empty)}
    return len(names) == 1 and not names & trained


def _check_nested(split: str, names: set[str], all_parts: dict[str, list[Folder]]) -> None:
    """Refuse a split within a split, unless every split has a class of this name."""
    for name in sorted(names):
        everywhere = all(any(name in part.folders for part in each) for each in all_parts.values())
        if split_of(name) and not (everywhere and len(all_parts) > 1):
            raise UploadError(
                f"the folder {name[:80]!r} within the split {split} is named like a split", "Rename it, or move it out."
            )
