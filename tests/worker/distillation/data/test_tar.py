"""Tar archives, valid and malicious."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tests.worker.distillation.data.made_files import folders, tarred
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

LONG = f"{'d' * 90}/{'e' * 90}"
FILES = folders(f"{LONG}/a", f"{LONG}/b")


def refused(path: Path, data: bytes, words: str, limits: UploadLimits | None = None) -> None:
    path.write_bytes(data)
    with pytest.raises(UploadError, match=words) as caught:
        read_dataset(path, Options(), limits or UploadLimits())
    assert caught.value.hint


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_all_styles_are_read(tmp_path: Path, style: int, mode: str) -> None:
    (tmp_path / "sent").write_bytes(tarred(FILES, mode, style))
    packed = read_dataset(tmp_path / "sent", Options(), UploadLimits())
    assert packed.class_names == ("a", "b") and packed.splits["train"][1].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("a/1.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    refused(tmp_path / "sent", stream.getvalue(), "a link or a device")


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "C:/a/1.png"])
def test_paths_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path / "sent", tarred({name: b"x"}), "not relative to the archive")


def test_damage_is_found(tmp_path: Path) -> None:
    data = tarred(folders("a", "b"))
    refused(tmp_path / "sent", data[:700], "truncated")
    refused(tmp_path / "sent", data[:1] + b"\xff" + data[2:], "damaged at byte 0")
    refused(tmp_path / "sent", tarred(folders("a", "b"), "w:gz")[:-20], "gzip archive is damaged")


def test_bombs_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "sent", gzip.compress(bytes(2**26)), "compression ratio is above 200")
    header = tarfile.TarInfo("x")
    header.size, header.type = 2**21, b"x"
    refused(tmp_path / "sent", header.tobuf() + bytes(2**21), "a header of 2097152 bytes; the maximum is 1048576")


def test_limits(tmp_path: Path) -> None:
    data = tarred(folders("a", "b"))
    refused(tmp_path / "sent", data, "entries; the maximum is 3", UploadLimits(entries=3))
    refused(tmp_path / "sent", data, "bytes; the maximum is 20", UploadLimits(entry_bytes=20))
    refused(tmp_path / "sent", data, "larger than 100 bytes", UploadLimits(inflated_bytes=100))
