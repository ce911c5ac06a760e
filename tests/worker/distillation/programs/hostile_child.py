"""A process that has uploads inspected, each in a child of its own with bounded memory and time; one JSON line each.

`python -m tests.worker.distillation.programs.hostile_child FOLDER`: every file `NAME` in it is inspected as a teacher that is
a program; `honest` is one that is accepted.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from worker.distillation.errors import EngineError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.inspect_upload import inspect

MEMORY_BYTES, SECONDS = 2 * 2**30, 60
"""What a child may take more than it begins with, and CPU seconds."""
SAID = {
    "network": "program", "classes": 4,
    "input": {"channels": 3, "height": 8, "width": 8, "mean": [0.5] * 3, "std": [0.25] * 3},
}  # fmt: skip


def outcome(upload: Path) -> dict:
    """How the inspection of a file ends."""
    folder = upload.parent / f"{upload.name}.inspection"
    folder.mkdir()
    (folder / "upload").write_bytes(upload.read_bytes())
    job = {"kind": "teacher", "upload": "upload", "teacher": SAID, "limits": {"parameters": UploadLimits().parameters}}
    try:
        inspect(job, folder)
        return {"outcome": "accepted"}
    except EngineError as error:
        return {"outcome": "refused", "message": error.message}


def limited(upload: Path) -> dict:
    """The outcome in a forked child, which dies where it takes too much."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        try:
            found = outcome(upload)
        except BaseException as error:  # noqa: BLE001  # the test shows what it is
            found = {"outcome": "raised", "message": f"{type(error).__name__}: {error}"}
        os.write(writer, json.dumps(found).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    began = time.monotonic()
    with os.fdopen(reader) as said:
        text = said.read()
    _, status, usage = os.wait4(child, 0)
    found = json.loads(text) if text else {"outcome": "died", "message": f"status {status}"}
    return found | {"name": upload.name, "seconds": time.monotonic() - began, "cpu": usage.ru_utime + usage.ru_stime}


if __name__ == "__main__":
    torch.set_num_threads(1)
    import onnx  # noqa: F401  # once, before the children
    import onnxruntime  # noqa: F401

    with (
        tempfile.TemporaryDirectory() as warm
    ):  # what torch and onnx load at their first use, every child would load again
        shutil.copy(Path(sys.argv[1]) / "honest", warm)
        outcome(Path(warm) / "honest")
    for path in sorted(Path(sys.argv[1]).iterdir()):
        if path.is_file():
            print(json.dumps(limited(path)), flush=True)
