"""The command with which operators fill the folder of pretrained weights, with a mirror on this machine."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from models.pretrained import weights_folder
from models.settings import settings
from worker.weights_command import main

BYTES = b"weights"
DIGEST = hashlib.sha256(BYTES).hexdigest()[:8]
FILES = {
    "torchvision/good": [f"good-{DIGEST}.pth"],
    "torchvision/bad": ["bad-00000000.pth"],
    "timm/good": ["good.in1k.safetensors"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("worker.weights_command.index", lambda: FILES)
    monkeypatch.setattr(weights_folder, "index", lambda: FILES)
    monkeypatch.setenv("DISTILL_WEIGHTS", str(tmp_path / "weights"))
    settings.cache_clear()
    return tmp_path / "weights"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *given: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "file").write_bytes(BYTES)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_checked_by_the_digest_in_its_name(folder: Path, mirror: str, capsys: pytest.CaptureFixture[str]):
    assert main(["download", "torchvision/good", "--url", f"{mirror}/file"]) == 0
    assert (folder / FILES["torchvision/good"][0]).read_bytes() == BYTES
    assert main(["download", "torchvision/bad", "--url", f"{mirror}/file"]) == 1
    assert DIGEST in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == [f"good-{DIGEST}.pth"]


def test_a_file_that_cannot_be_fetched_is_named_with_its_place(
    folder: Path, mirror: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["download", "timm/good", "--url", f"{mirror}/absent"]) == 1
    assert f"put it at {folder / 'good.in1k.safetensors'}" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_the_list_names_what_is_used_and_what_is_not(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["list"]) == 0
    assert "does not exist" in capsys.readouterr().out
    (folder / "good.in1k").mkdir(parents=True)
    (folder / "good.in1k" / "model.safetensors").write_bytes(BYTES)
    (folder / "other.pth").write_bytes(BYTES)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "timm/good: good.in1k/model.safetensors (0.0 MB)",
        "not used: other.pth is not an official name; `distillery-weights files NETWORK` shows those",
    ]


def test_the_files_of_a_network_are_explained(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["files", "torchvision/good"]) == 0
    out = capsys.readouterr().out
    assert f"good-{DIGEST}.pth (absent): put it at {folder}" in out and "https://download.pytorch.org/" in out
    assert main(["files", "lenet5"]) == 1
    assert "no official weights of 'lenet5'" in capsys.readouterr().err
