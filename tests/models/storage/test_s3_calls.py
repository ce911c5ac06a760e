"""Presigned links, incomplete multipart uploads and credentials, with a real S3 server."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.storage.blobs import Storage
from models.storage.errors import Unavailable
from models.storage.opening import open_storage
from tests.models.storage.buckets import WRITER, s3_settings, whole
from tests.servers import S3

Configure = Callable[..., Any]
ROOT = Path(__file__).parents[3]


def test_a_bucket_has_links_only_with_a_public_endpoint(s3: S3, configure: Configure) -> None:
    values = s3_settings(s3)
    assert open_storage(configure(**values)).presign("key", 60, "x", "text/plain") is None
    blobs = open_storage(configure(**values, storage_public_endpoint=s3.endpoint))
    blobs.put("a b/key", b"0123456789")
    link = blobs.presign("a b/key", 60, 'a "file" ü.txt', "text/x-test")
    assert link is not None
    with urllib.request.urlopen(urllib.request.Request(link, headers={"Range": "bytes=2-4"})) as answer:
        assert answer.read() == b"234"
        assert answer.headers["Content-Type"] == "text/x-test"
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20%22file%22%20%C3%BC.txt"
    for forged in (link.replace("a%20b", "a%20c"), link.replace("x-test", "html"), link[:-1] + "0" + link[-1:]):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(forged)
        assert refused.value.code == 403
        refused.value.close()


def test_incomplete_uploads_of_a_killed_writer_are_aborted(s3: S3, configure: Configure) -> None:
    other = open_storage(configure(**s3_settings(s3)))  # with its own prefix
    blobs = open_storage(configure(**s3_settings(s3)))
    blobs.put("uploads/y/1", b"whole")
    calls = blobs._s3
    assert calls is not None and list(calls.unfinished()) == []
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=ROOT) as writer:
        give_up = time.monotonic() + 30
        while not (left := list(calls.unfinished())) and time.monotonic() < give_up:
            time.sleep(0.2)
        writer.kill()
    assert [one.key.rpartition("uploads/")[2] for one in left] == ["x/1"]
    assert other.discard_partial(-60) == 0 == blobs.discard_partial(3600)
    assert [entry.key for entry in blobs.list()] == ["uploads/y/1"]
    assert blobs.discard_partial(-60) == 1 and list(calls.unfinished()) == []
    assert whole(blobs, "uploads/y/1") == b"whole"


def keyless(s3: S3) -> dict[str, str]:
    """Settings with a public endpoint and without access keys."""
    values = {name: value for name, value in s3_settings(s3).items() if not name.endswith("_key")}
    return values | {"storage_public_endpoint": s3.endpoint}


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the credentials of the user who runs the tests; no cloud service is asked."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def works(blobs: Storage) -> None:
    """Reading, writing, links and aborting uploads work with the credentials that were found."""
    blobs.put("key", b"0123456789")
    assert whole(blobs, "key") == b"0123456789"
    link = blobs.presign("key", 60, "x", "text/plain")
    assert link is not None
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"0123456789"
    assert blobs.discard_partial(3600) == 0


@pytest.mark.usefixtures("no_credentials")
def test_credentials_of_a_profile_are_used(
    s3: S3, configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        f"[distillery]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "distillery")
    works(open_storage(configure(**keyless(s3))))


@contextmanager
def role(s3: S3) -> Iterator[tuple[str, list[str]]]:
    """A server of a container's role credentials: its address, and the paths that were requested."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            given = {"AccessKeyId": s3.access_key, "SecretAccessKey": s3.secret_key, "Token": "", "Expiration": end}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(given).encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/role", asked
        finally:
            server.shutdown()


@pytest.mark.usefixtures("no_credentials")
def test_credentials_of_a_containers_role_are_used(
    s3: S3, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with role(s3) as (address, asked):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        works(open_storage(configure(**keyless(s3))))
        assert asked == ["/role"]  # one request for all operations


@pytest.mark.usefixtures("no_credentials")
def test_without_credentials_the_storage_is_unavailable(s3: S3, configure: Configure) -> None:
    blobs = open_storage(configure(**keyless(s3)))
    with pytest.raises(Unavailable, match="credentials"):
        blobs.put("key", b"x")
    with pytest.raises(Unavailable, match="credentials"):
        blobs.presign("key", 60, "x", "text/plain")
    with pytest.raises(Unavailable, match="credentials"):
        blobs.discard_partial(0)


def test_aborting_uploads_raises_unavailable_without_a_server(configure: Configure) -> None:
    unreachable = {"storage_endpoint": "http://127.0.0.1:9", "storage_access_key": "a", "storage_secret_key": "b"}
    with pytest.raises(Unavailable, match="cannot be listed"):
        open_storage(configure(storage_url="s3://bucket", **unreachable)).discard_partial(0)


def test_boto3_is_imported_only_when_needed() -> None:
    code = (
        "import sys; from models.settings import Settings; from models.storage.opening import open_storage\n"
        "keys = {'storage_access_key': 'a', 'storage_secret_key': 'b', 'storage_endpoint': 'http://127.0.0.1:9'}\n"
        "s3 = open_storage(Settings(storage_url='s3://bucket', storage_public_endpoint='http://127.0.0.1:9', **keys))\n"
        "before = 'boto3' in sys.modules; s3.presign('key', 60, 'x', 'text/plain')\n"
        "print(before, 'boto3' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout.split() == ["False", "True"], answer.stderr
