"""The folders of an archive of images, as a tree, and the folder whose folders are splits or classes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from worker.distillation.data.reading.split_names import split_of

NO_CLASSES = frozenset(
    [
        "annotation",
        "annotations",
        "code",
        "doc",
        "docs",
        "info",
        "label",
        "labels",
        "meta",
        "metadata",
        "models",
        "notebooks",
        "scripts",
        "src",
    ]
)
"""Names of folders without images that are not taken for classes."""


@dataclass
class Folder:
    """A folder with its images and its folders; `others` counts its other files."""

    name: str
    folders: dict[str, "Folder"] = field(default_factory=dict)
    images: list[PurePosixPath] = field(default_factory=list)
    others: int = 0

    def within(self) -> Iterator[PurePosixPath]:
        """All images, at any depth."""
        yield from self.images
        for folder in self.folders.values():
            yield from folder.within()

    def names_within(self, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        """The paths of all images, from this folder on, after `before`."""
        yield from ((*before, path.name) for path in self.images)
        for name, folder in self.folders.items():
            yield from folder.names_within((*before, name))

    @property
    def filled(self) -> dict[str, "Folder"]:
        """The folders that contain images, at any depth."""
        return {name: folder for name, folder in self.folders.items() if any(folder.within())}

    @property
    def empty(self) -> list[str]:
        """The folders without images that could be classes."""
        filled = self.filled
        return [
            name
            for name, folder in self.folders.items()
            if name not in filled and not folder.folders and name.lower() not in NO_CLASSES and not split_of(name)
        ]


def tree(images: Iterable[PurePosixPath], others: Iterable[PurePosixPath], folders: Iterable[PurePosixPath]) -> Folder:
    root = Folder("")
    for path in sorted(folders):
        _reach(root, path.parts)
    for path in sorted(images):
        _reach(root, path.parts[:-1]).images.append(path)
    for path in others:
        _reach(root, path.parts[:-1]).others += 1
    return root


def _reach(folder: Folder, parts: tuple[str, ...]) -> Folder:
    for part in parts:
        folder = folder.folders.setdefault(part, Folder(part))
    return folder


def descend(folder: Folder) -> Folder:
    """The first folder that does not only lead to another: it has images, or several folders, or splits."""
    while not folder.images and len(folder.filled) == 1:
        only = next(iter(folder.filled.values()))
        if split_of(only.name) or (only.images and folder.empty):
            break
        folder = only
    return folder


def within_split(folder: Folder) -> Folder:
    """The folder whose folders are a split's classes; a folder with images is a class, unless it is named like a split."""
    while not folder.images and len(folder.filled) == 1 and not folder.empty:
        only = next(iter(folder.filled.values()))
        if only.images and not split_of(only.name):
            break
        folder = only
    return folder
