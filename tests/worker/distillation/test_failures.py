"""Which error an engine reports for an exception of Python, torch or the system."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.distillation.killed_runs import job_of, write_inputs
from worker.distillation.errors import CheckpointError, EngineError, UploadError
from worker.distillation.failures import engine_error

ROOT = Path(__file__).parents[3]
INPUT = {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.2]}


def caused(error: Exception, cause: Exception) -> Exception:
    """The error as it is after `raise error from cause`."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("kind", ["teacher", "check", "distill"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_or_fails_is_the_services_fault(kind: str, number: int):
    full = OSError(number, "no")
    for error in (
        full,
        caused(CheckpointError("no checkpoint"), full),
        caused(UploadError("cannot be unpacked"), full),
    ):
        found = engine_error(error, kind)
        assert found is not None and (found.code, found.fault) == ("disk_error", "service")


def test_a_word_in_a_refusal_is_not_a_disk():
    said = engine_error(UploadError("the name `(os error 28)` is bad"), "teacher")
    assert said is not None and said.code == "rejected"


def test_an_inspection_never_ends_without_a_verdict_and_a_training_shows_its_bugs():
    found = engine_error(KeyError("shape"), "dataset")
    assert found is not None and (found.code, found.fault, found.message) == (
        "unreadable",
        "user",
        "the file cannot be read: KeyError: 'shape'",
    )
    found = engine_error(ZeroDivisionError("by zero"), "check")
    assert found is not None and (found.code, found.fault) == ("check_failed", "job") and "by zero" in found.message
    assert engine_error(KeyError("shape"), "distill") is None
    own = EngineError("mine")
    assert engine_error(own, "distill") is own


def test_memory_that_runs_out_in_torch_is_no_bug():
    torch_says = RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    )
    for error in (
        MemoryError(),
        torch_says,
        caused(UploadError("damaged"), ValueError()),
        RuntimeError("std::bad_alloc"),
    ):
        found = engine_error(error, "teacher")
        assert found is not None and found.code == ("rejected" if isinstance(error, UploadError) else "out_of_memory")


def inspected(folder: Path, job: dict[str, Any], **files: bytes) -> dict[str, Any]:
    """The last event of a real engine that runs a job file.

    It writes no bytecode: where files may not be long enough, Python stores a part of a module's without an error.
    """
    (folder / "job.json").write_text(json.dumps(job))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    code = (
        "import resource, runpy, sys; sys.argv = ['engine', 'job.json']; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.stdin.readline()),) * 2); "
        "runpy.run_module('worker.distillation', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}, text=True, capture_output=True,
        input=f"{job.get('file_bytes', 2**40)}\n", check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def npz(**arrays: Any) -> bytes:
    import io

    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def images(count: int) -> Any:
    """Black and white images, of which a zip takes an eighth."""
    return 255 * np.random.default_rng(3).integers(0, 2, (count, 28, 28), dtype=np.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="limits on private memory are Linux's")
def test_an_inspection_that_needs_too_much_memory_is_a_verdict(tmp_path: Path):
    """The images take 28 MB; the engine may use 16 MB."""
    sent = npz(x_train=images(36_000), y_train=np.arange(36_000) % 2)
    job = {"kind": "dataset", "upload": "sent", "options": {}, "memory_bytes": 16 * 2**20}
    event = inspected(tmp_path, job, sent=sent)
    assert (event["event"], event["code"]) == ("error", "out_of_memory"), event
    assert "more memory than an inspection" in event["message"]


def test_a_canonical_form_that_is_too_large_is_refused_before_and_while_it_is_written(tmp_path: Path):
    sent = npz(x_train=images(2000), y_train=np.arange(2000) % 2)
    job = {"kind": "dataset", "upload": "sent", "options": {}}
    event = inspected(tmp_path, job | {"limits": {"canonical_bytes": 10**6}}, sent=sent)
    assert (event["code"], event["fault"]) == ("rejected", "user") and "the maximum is 1000000" in event["message"]
    event = inspected(tmp_path, job | {"file_bytes": 10**6}, sent=sent)
    assert (event["code"], event["fault"]) == ("rejected", "user") and "more bytes on disk" in event["message"], event


def test_a_training_that_cannot_write_its_checkpoint_says_that_it_is_the_disk(tmp_path: Path):
    """Not `checkpoint_unreadable`, after which the newest checkpoint would be dropped."""
    write_inputs(tmp_path)
    job = job_of(tmp_path, training={"steps": 40}).values | {"checkpoint_seconds": 0, "file_bytes": 4096}
    event = inspected(tmp_path, job)
    assert (event["event"], event["code"], event["fault"]) == ("error", "disk_error", "service"), event
