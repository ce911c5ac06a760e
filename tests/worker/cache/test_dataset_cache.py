"""The cache of datasets: held by several, fetched once, removed in order, and sound after a crash."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.settings import settings
from models.storage.errors import Damaged
from models.storage.opening import storage
from worker.cache import dataset_cache
from worker.cache.dataset_cache import CachedFile, HeldDatasets, cache_folder, trim
from worker.cache.entry import entries

SIZE = 1000


def stored(name: str, *parts: str) -> list[CachedFile]:
    """A dataset in storage: the first file and, perhaps, others."""
    files = []
    for each in (name, *parts):
        content = (each * SIZE).encode()[:SIZE]
        blob = storage().put(f"blobs/{each}", content)
        files.append(CachedFile(each, f"blobs/{each}", blob.sha256, blob.size))
    return files


class Fetches:
    """Downloads from the storage, and remembers which."""

    def __init__(self, pause: float = 0.0):
        self.keys: list[str] = []
        self.pause = pause

    def __call__(self, key: str, path: Path, sha256: str) -> None:
        self.keys.append(key)
        time.sleep(self.pause)
        storage().download(key, path, sha256)


def nothing() -> None:
    """A check that never raises."""


def names() -> set[str]:
    return {file.name for folder in cache_folder().glob("blobs/*") for file in folder.iterdir()}


def use(name: str, fetches: Fetches) -> Path | None:
    with HeldDatasets() as held:
        return held.hold(stored(name), fetches, nothing)


def test_the_second_job_fetches_nothing(embedded: None) -> None:
    files, fetches = stored("index", "a", "b", "c"), Fetches()
    for _ in range(2):
        with HeldDatasets() as held:
            folder = held.hold(files, fetches, nothing)
            assert folder is not None and held.folders == [folder]
            assert held.hold(files, fetches, nothing) == folder
            assert {path.name: path.read_bytes()[:1] for path in folder.iterdir()} == {
                "index": b"i", "a": b"a", "b": b"b", "c": b"c"
            }  # fmt: skip
            assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())
    assert sorted(fetches.keys) == ["blobs/a", "blobs/b", "blobs/c", "blobs/index"]


def test_concurrent_jobs_fetch_once(embedded: None) -> None:
    files, fetches, found = stored("index", "a"), Fetches(0.1), []

    def hold() -> None:
        with HeldDatasets() as held:
            found.append(held.hold(files, fetches, nothing))

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetches.keys) == 2 and len(found) == 4 and len(set(found)) == 1


def test_a_waiting_job_ends_when_its_check_says_so(embedded: None) -> None:
    files, slow, began = stored("index"), Fetches(1.0), threading.Event()

    def hold() -> None:
        with HeldDatasets() as held:
            began.set()
            held.hold(files, slow, nothing)

    thread = threading.Thread(target=hold)
    thread.start()
    began.wait()
    time.sleep(0.2)
    with HeldDatasets() as held, pytest.raises(InterruptedError):
        held.hold(files, Fetches(), interrupted)
    thread.join()


def interrupted() -> None:
    raise InterruptedError


def test_the_least_recently_used_goes_first_and_what_is_used_stays(
    embedded: None, configure: Callable[..., Any]
) -> None:
    configure(cache_bytes=3 * SIZE)
    fetches = Fetches()
    for name in ("a", "b", "c", "a"):
        use(name, fetches)
        time.sleep(0.02)
    assert names() == {"a", "b", "c"}
    use("d", fetches)
    assert names() == {"a", "c", "d"}
    with HeldDatasets() as held:
        for name in ("a", "c"):
            held.hold(stored(name), fetches, nothing)
        use("e", fetches)
        assert names() == {"a", "c", "e"}
        held.hold(stored("e"), fetches, nothing)
        assert use("f", fetches) is None and names() == {"a", "c", "e"}
    assert use("f", fetches) is not None
    configure(cache_bytes=SIZE)
    assert trim() == 2 and names() == {"f"}


def test_a_dataset_larger_than_the_cache_is_not_cached(embedded: None, configure: Callable[..., Any]) -> None:
    configure(cache_bytes=SIZE)
    with HeldDatasets() as held:
        assert held.hold(stored("index", "a"), Fetches(), nothing) is None
        configure(cache_bytes=0)
        assert held.hold(stored("index"), Fetches(), nothing) is None
        assert held.folders == []


HOLDER = """
import sys, time
from pathlib import Path
from models.storage.opening import storage
from worker.cache.dataset_cache import CachedFile, HeldDatasets
def download(key, path, sha256):
    if key == sys.argv[2]:
        path.with_name(f".{path.name}.part").write_bytes(b"half")
        print("fetching", flush=True)
        time.sleep(60)
    storage().download(key, path, sha256)
held = HeldDatasets()
held.hold([CachedFile(*each.split(",")[:3], int(each.split(",")[3])) for each in sys.argv[3:]], download, lambda: None)
print("held", flush=True)
time.sleep(60)
"""


def another_worker(files: list[CachedFile], hangs_at: str = "") -> "subprocess.Popen[str]":
    """Another process that holds a dataset, or hangs while it fetches one; returns when it does."""
    told = [f"{file.name},{file.key},{file.sha256},{file.size}" for file in files]
    command = [sys.executable, "-c", HOLDER, "", hangs_at, *told]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout is not None
    awaited = "fetching" if hangs_at else "held"
    assert any(line.strip() == awaited for line in process.stdout)
    return process


def test_a_worker_that_dies_holds_nothing(embedded: None, configure: Callable[..., Any]) -> None:
    configure(cache_bytes=SIZE)
    process = another_worker(stored("a"))
    assert use("b", Fetches()) is None
    process.kill()
    process.communicate()
    assert use("b", Fetches()) is not None and names() == {"b"}


def test_a_fetch_that_was_killed_is_completed(embedded: None) -> None:
    files = stored("index", "a")
    process = another_worker(files, "blobs/a")
    deadline = time.monotonic() + 5
    while "index" not in names() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert names() == {"index", ".a.part"}
    process.kill()
    process.communicate()
    fetches = Fetches()
    with HeldDatasets() as held:
        assert held.hold(files, fetches, nothing) is not None
    assert fetches.keys == ["blobs/a"] and names() == {"index", "a"}


def test_a_damaged_file_is_fetched_again(embedded: None) -> None:
    fetches = Fetches()
    folder = use("index", fetches)
    assert folder is not None
    file = folder / "index"
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(b"x" * SIZE)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert use("index", fetches) == folder
    assert len(fetches.keys) == 2 and file.read_bytes()[:5] == b"index"
    os.utime(file)  # changed, but not damaged
    use("index", fetches)
    assert len(fetches.keys) == 2


def test_a_damaged_blob_is_refused(embedded: None) -> None:
    files = stored("index")
    storage().put("blobs/index", b"bits have flipped")
    with HeldDatasets() as held, pytest.raises(Damaged):
        held.hold(files, Fetches(), nothing)
    assert names() == set()


def test_a_full_disk_leaves_nothing_behind(embedded: None) -> None:
    def full(key: str, path: Path, sha256: str) -> None:
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    with HeldDatasets() as held, pytest.raises(OSError, match="No space"):
        held.hold(stored("index"), full, nothing)
    assert list(entries(cache_folder())) == []


def test_unused_datasets_go_when_the_disk_is_short_of_space(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    use("a", Fetches())
    left = iter([settings().free_bytes, settings().free_bytes - 1, settings().free_bytes])
    monkeypatch.setattr(dataset_cache, "free_bytes", lambda folder: next(left, settings().free_bytes))
    assert trim() == 0 and names() == {"a"}
    assert trim() == 1 and names() == set()


def test_names_are_hashes_of_the_first_file(embedded: None) -> None:
    use("index", Fetches())
    content = (b"index" * SIZE)[:SIZE]
    assert [each.name for each in entries(cache_folder())] == [hashlib.sha256(content).hexdigest()]
