"""Uploading and downloading 2 GiB through the API, compared with a plain copy of the same file.

    python -m benchmarks.service.transfer [--bytes 2147483648] [--pairs 5] [--storage folder|s3]

Starts an API alone, uploads with `curl -T` and downloads with `curl -o`, each time next to a plain copy: for a folder the same
client from file to file on the same disk (`curl -o TO file://FROM`), for a bucket one streamed PUT or GET straight to the S3
server (SeaweedFS, packaged). Both sides end with a `sync`, so that all bytes are on the disk. For a folder, `cp`,
whose bytes never leave the kernel, is timed too, as the upper bound of the disk. Requirements:

    memory   the API's resident memory grows by less than 64 MB
    once     the API process writes the bytes once (its own count of bytes written, folder only)
    speed    the median ratio of the API's MB/s to the plain copy's is at least 0.6, both ways

The exit code is 0 if all of these hold. Writes `results/transfer_STORAGE.json`.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from distillery_client import Client
from docs.demo.service import _free_port

GROWTH_BYTES = 64 * 10**6
LEAST_RATIO = 0.6
MOST_WRITTEN = 1.05
BLOCK = 8 * 2**20
TEACHER = {
    "network": "lenet5",
    "classes": 10,
    "input": {"channels": 1, "height": 32, "width": 32, "mean": [0], "std": [1]},
}


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transfer-", dir=arguments.results)))
        bucket = stack.enter_context(_bucket()) if arguments.storage == "s3" else {}
        os.environ |= {"DISTILL_DATA": str(folder / "data"), "DISTILL_PORT": str(_free_port())} | bucket
        file = _random_file(folder / "file", arguments.bytes)
        with _api(folder) as process:
            found = _measure(process, file, folder, arguments)
    print(json.dumps(found, indent=2))
    (arguments.results / f"transfer_{arguments.storage}.json").write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["holds"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service.transfer", description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", type=int, default=2 * 2**30)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--storage", choices=("folder", "s3"), default="folder")
    parser.add_argument("--results", type=Path, default=Path("results"))
    return parser.parse_args()


def _measure(
    process: subprocess.Popen[bytes], file: Path, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    client = Client(f"http://127.0.0.1:{os.environ['DISTILL_PORT']}", (folder / "data" / "key").read_text().strip())
    copies = _S3Copies(file) if arguments.storage == "s3" else _DiskCopies(file, folder)
    _upload(client, file)  # warm up: what the first request loads is not growth
    before = _status(process.pid, "VmRSS")
    up = []
    down = []
    written = []
    kernel = []
    with Watched(process.pid) as watched:
        for pair in range(arguments.pairs):
            written_before = _written(process.pid)
            plain, ours = _both(pair, copies.up, lambda: _upload(client, file))
            up.append({"plain_seconds": plain[0], "api_seconds": ours[0]})
            written.append((_written(process.pid) - written_before) / arguments.bytes)
            artifact = _as_artifact(ours[1], file)
            plain, ours = _both(pair, copies.down, lambda link=artifact: _download(client, link, folder / "down"))
            down.append({"plain_seconds": plain[0], "api_seconds": ours[0]})
            _same(file, folder / "down")
            if isinstance(copies, _DiskCopies):
                kernel.append(_timed(copies.kernel)[0])
    growth = watched.most - before
    ratios = {
        way: statistics.median(p["plain_seconds"] / p["api_seconds"] for p in pairs)
        for way, pairs in (("up", up), ("down", down))
    }
    speed = {
        way: arguments.bytes / 1e6 / statistics.median(p["api_seconds"] for p in pairs)
        for way, pairs in (("up", up), ("down", down))
    }
    once = arguments.storage == "s3" or max(written) < MOST_WRITTEN
    return {
        "storage": arguments.storage, "bytes": arguments.bytes, "up": up, "down": down, "cp_seconds": kernel,
        "megabytes_per_second": speed, "ratio_to_plain_copy": ratios,
        "growth_bytes": growth, "written_per_byte_up": written,
        "holds": growth < GROWTH_BYTES and once and min(ratios.values()) >= LEAST_RATIO,
    }  # fmt: skip


def _both(pair: int, plain: Callable[[], Any], ours: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Time both, in alternating order; returns seconds and result of each."""
    order = [plain, ours] if pair % 2 == 0 else [ours, plain]
    timed = {action: _timed(action) for action in order}
    return [timed[plain], timed[ours]]


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    subprocess.run(["sync"], check=True)
    begin = time.monotonic()
    result = action()
    subprocess.run(["sync"], check=True)
    return time.monotonic() - begin, result


def _upload(client: Client, file: Path) -> dict[str, Any]:
    made = client.teachers.create(**TEACHER)
    _curl("-T", str(file), made["upload"])
    return made


def _download(client: Client, link: str, to: Path) -> None:
    _curl("-o", str(to), link)


def _curl(*options: str) -> None:
    key = (Path(os.environ["DISTILL_DATA"]) / "key").read_text().strip()
    subprocess.run(
        ["curl", "-sSf", "-H", f"Authorization: Bearer {key}", *options], check=True, stdout=subprocess.DEVNULL
    )


def _as_artifact(made: dict[str, Any], file: Path) -> str:
    """Register an upload's bytes as an artifact of a job, which is then downloaded; returns its link.

    Running a job that produces 2 GiB would measure the job.
    """
    from models.database import transaction
    from models.records import Artifact, Job, Teacher
    from models.records.columns import new_id
    from models.status import JobStatus

    with transaction() as session:
        teacher = session.get_one(Teacher, made["id"])
        job = Job(id=new_id("job"), key_id=teacher.key_id, name="", spec={}, resolved={}, status=JobStatus.SUCCEEDED)
        session.add(job)
        session.flush()
        facts = {"key": teacher.upload_key, "size": teacher.size, "sha256": teacher.sha256}
        session.add(Artifact(id=new_id("art"), job_id=job.id, attempt=1, name="big", content_type="a/b", **facts))
        return f"http://127.0.0.1:{os.environ['DISTILL_PORT']}/v1/jobs/{job.id}/artifacts/big"


class _DiskCopies:
    """`curl` from file to file; each copy is deleted before the next."""

    def __init__(self, file: Path, folder: Path):
        self._file, self._copy = file, folder / "copy"

    def up(self) -> None:
        self._copy.unlink(missing_ok=True)
        subprocess.run(["curl", "-sSf", "-o", str(self._copy), self._file.resolve().as_uri()], check=True)

    down = up

    def kernel(self) -> None:
        self._copy.unlink(missing_ok=True)
        subprocess.run(["cp", str(self._file), str(self._copy)], check=True)


class _S3Copies:
    """One streamed PUT or GET between the file and the S3 server."""

    def __init__(self, file: Path):
        endpoint, bucket = os.environ["DISTILL_STORAGE_ENDPOINT"], os.environ["DISTILL_STORAGE_URL"].split("/")[2]
        config = {
            "endpoint": endpoint, "region": "us-east-1", "access_key_id": os.environ["DISTILL_STORAGE_ACCESS_KEY"],
            "secret_access_key": os.environ["DISTILL_STORAGE_SECRET_KEY"],
        }  # fmt: skip
        self._store = S3Store(bucket, config=config, client_options={"allow_http": True})
        self._file = file
        self._key = ""

    def up(self) -> None:
        self._key = f"plain/{uuid.uuid4().hex}"
        obstore.put(self._store, self._key, self._file, chunk_size=BLOCK, max_concurrency=4)

    def down(self) -> None:
        with self._file.with_name("copy").open("wb") as out:
            for chunk in obstore.get(self._store, self._key).stream(min_chunk_size=BLOCK):
                out.write(chunk)


class Watched:
    """The peak memory of a process, sampled twenty times a second."""

    def __init__(self, pid: int):
        self._pid = pid
        self._over = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, _status(self._pid, "VmRSS"))


def _status(pid: int, field: str) -> int:
    """Bytes of a field of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _written(pid: int) -> int:
    """Bytes that a process has written to files; the kernel's count of dirtied pages excludes sockets."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))


def _random_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        for offset in range(0, size, BLOCK):
            file.write(os.urandom(min(BLOCK, size - offset)))
    return path


def _same(one: Path, other: Path) -> None:
    digests = []
    for path in (one, other):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if digests[0] != digests[1]:
        raise RuntimeError("the downloaded file differs from the uploaded one")
    other.unlink()
    shutil.rmtree(other.parent / "data" / "blobs" / "uploads", ignore_errors=True)  # otherwise they fill the disk


@contextmanager
def _api(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "api.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "api"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while _curl_fails(f"http://127.0.0.1:{os.environ['DISTILL_PORT']}/health/live"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "api.log").read_text(errors="replace")[-2000:])
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _curl_fails(link: str) -> bool:
    return subprocess.run(["curl", "-sf", "-o", "/dev/null", link], check=False).returncode != 0


@contextmanager
def _bucket() -> Iterator[dict[str, str]]:
    from tests import servers

    with servers.s3_server() as server:
        yield {
            "DISTILL_STORAGE_URL": f"s3://{server.bucket}", "DISTILL_STORAGE_ENDPOINT": server.endpoint,
            "DISTILL_STORAGE_ACCESS_KEY": server.access_key, "DISTILL_STORAGE_SECRET_KEY": server.secret_key,
        }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
