"""Datasets by reference: a folder in place, and the objects under a prefix of a bucket."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.storage.dataset_sources import SourceRefused
from models.storage.opening import open_storage
from tests.models.storage.buckets import s3_settings
from tests.servers import S3
from tests.worker.distillation.data.made_files import folders
from tests.worker.distillation.data.photos import zipped
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.sent_bytes import SentBytes, SentFiles
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.limits import UploadLimits

FILES = folders("ants", "bees", each=3)
MOST = 10**9


def by_reference(folder: Path, reference: str, most: int = MOST) -> SentFiles:
    folder.mkdir(exist_ok=True)
    return SentBytes(folder, AttemptStorage(lambda: None)).by_reference(reference, most)


def written(folder: Path) -> Path:
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def classes(folder: Path) -> tuple[str, ...]:
    packed = read_dataset(folder, Options(), UploadLimits())
    assert len(packed.splits["train"][0]) == 6
    return packed.class_names


def test_a_folder_is_read_in_place(tmp_path: Path, configure: Callable[..., Any]) -> None:
    folder = written(tmp_path / "shared" / "insects")
    (folder / "ants" / "link.png").symlink_to("/etc/passwd")
    configure(dataset_sources=(tmp_path / "shared").as_uri())
    found = by_reference(tmp_path / "own", folder.as_uri())
    assert found.path == str(folder) and list(found.reads) == [folder]
    assert found.size >= sum(map(len, FILES.values()))
    assert classes(folder) == ("ants", "bees")
    with pytest.raises(SourceRefused, match="room for 100"):
        by_reference(tmp_path / "own", folder.as_uri(), 100)
    (tmp_path / "shared" / "empty").mkdir()
    with pytest.raises(SourceRefused, match="no files"):
        by_reference(tmp_path / "own", (tmp_path / "shared" / "empty").as_uri())


def test_a_link_that_leads_out_of_the_allowed_folder_is_refused(tmp_path: Path, configure: Callable[..., Any]) -> None:
    written(tmp_path / "secret")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "secret")
    configure(dataset_sources=(tmp_path / "shared").as_uri())
    with pytest.raises(SourceRefused, match="operator"):
        by_reference(tmp_path / "own", (tmp_path / "shared" / "link").as_uri())


def test_the_objects_under_a_prefix_are_fetched(tmp_path: Path, configure: Callable[..., Any], s3: S3) -> None:
    given = s3_settings(s3)
    bucket = open_storage(configure(**given))
    for name, data in FILES.items():
        bucket.put(f"insects/{name}", data)
    bucket.put("other/file.png", b"no")
    configure(**given, dataset_sources=given["storage_url"])
    found = by_reference(tmp_path / "own", f"{given['storage_url']}/insects")
    assert (found.path, list(found.reads), found.size) == ("inputs/upload", [], sum(map(len, FILES.values())))
    assert classes(tmp_path / "own" / "inputs" / "upload") == ("ants", "bees")
    with pytest.raises(SourceRefused, match="no files"):
        by_reference(tmp_path / "own", f"{given['storage_url']}/nothing")


def test_one_archive_in_a_folder_is_opened(tmp_path: Path) -> None:
    zipped(tmp_path / "insects.zip", FILES)
    assert classes(tmp_path) == ("ants", "bees")
