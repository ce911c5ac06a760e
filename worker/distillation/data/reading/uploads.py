"""The dataset in an upload, whatever its container: what the first bytes say, not its name."""

import zipfile
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath

from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading import folders, made_split, parquet, repeated
from worker.distillation.data.reading.archives import foreign
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.archives.folder_archive import only_file, open_folder
from worker.distillation.data.reading.archives.tar_archive import is_tar, open_tar
from worker.distillation.data.reading.archives.zip_archive import open_zip
from worker.distillation.data.reading.arrays import npz
from worker.distillation.data.reading.arrays.array_files import MAGIC, open_array
from worker.distillation.data.reading.boxes import reading as boxes
from worker.distillation.data.reading.decoding import SUFFIXES
from worker.distillation.data.reading.dense import reading as dense
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

NESTED = (".zip", ".tar", ".tgz", ".gz", ".npz", ".7z", ".rar")


def read_dataset(path: Path, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an uploaded file, or in a folder of files.

    Raises:
        UploadError: the file is refused.
    """
    if path.is_dir() and (only := only_file(path)) is not None and only.suffix.lower() not in SUFFIXES:
        path = only
    packed = _packed(path, options, limits)
    made_split.make(packed, options.test_fraction)
    repeated.warn(packed)
    return packed


def _packed(path: Path, options: Options, limits: UploadLimits) -> Packed:
    if path.is_dir():
        with open_folder(path, limits) as archive:
            return _read(archive, options, limits)
    with path.open("rb") as file:
        head = file.read(foreign.HEAD_BYTES)
    if head.startswith(parquet.MAGIC):
        return parquet.read_file(path, options, limits)
    with _opened(path, head, limits) as archive:
        return _read(archive, options, limits)


def _read(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    _refuse_nested(list(archive.files))
    suffixes = {file.suffix.lower() for file in archive.files}
    if parquet.SUFFIX in suffixes and suffixes.isdisjoint(SUFFIXES):
        return parquet.read_members(archive, options, limits)
    if options.labels == "boxes":
        return boxes.read(archive, options, limits)
    if options.labels in ("mask", "depth") and ".npy" not in suffixes:
        return dense.read(archive, options, limits)
    return (npz if ".npy" in suffixes else folders).read(archive, options, limits)


def _opened(path: Path, head: bytes, limits: UploadLimits) -> AbstractContextManager[Archive]:
    foreign.refuse(head)
    if head.startswith(MAGIC):
        return open_array(path, limits)
    if is_tar(path) and not zipfile.is_zipfile(path):
        return open_tar(path, limits)
    if not head.startswith(b"PK") and not zipfile.is_zipfile(path):
        foreign.refuse_unknown(head)
    return open_zip(path, limits)


def _refuse_nested(files: list[PurePosixPath]) -> None:
    """Refuse an archive of nothing but archives."""
    inner = [file for file in files if file.suffix.lower() in NESTED]
    if inner and len(inner) == len(files):
        words = f"the archive contains other archives only ({', '.join(str(file)[:80] for file in inner[:3])})"
        raise UploadError(words, "Send the inner archive; join several into one.")
