"""The engine's sandbox: the engine confines itself before it reads any input from outside.

What is restricted, and the Linux feature that does it:

    files      Landlock: write access to its own folder, read access to Python, to system libraries and to the folders that
               its job file names in `reads` (the worker's cache of datasets), nothing else
    network    seccomp: no sockets; a job of several ranks gets a network namespace of its own
    memory     no access to the memory of other processes, nor of others to its own; no signals to processes outside
    processes  seccomp: threads only; a job of several ranks may start processes, which its parent kills with it

No step needs privileges, and none can be undone. The process must have a single thread. It may have imported torch before,
and may import anything later: the sandbox also applies to threads and processes that it starts afterwards.

Belongs here: system calls by which a process confines itself. Does not: deciding whether a sandbox is required
(`worker/engine/sandbox_probe.py`). May import `process/`.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.distillation.process.event_pipe import Channel
from worker.distillation.sandbox.report import Report


def enter(job_file: Path, channel: Channel) -> bool:
    """Confine this process as its job file requests, and send the event `sandbox`; false if a required sandbox is unavailable.

    The key `sandbox` is `required`, `preferred` or absent. If `ranks` is above 1, the ranks can communicate with each other.
    """
    job = _read(job_file)
    if job.get("sandbox") not in ("required", "preferred"):
        return True
    reads = [Path(each) for each in job.get("reads") or ()]
    report = confine(job_file.absolute().parent, job.get("ranks") or 1, job.get("device") != "cpu", reads)
    channel.say("sandbox", **asdict(report))
    if report.holds or job["sandbox"] == "preferred":
        return True
    message = f"the required sandbox is not available: {'; '.join(report.why)}"
    hint = "Enable what is missing, or set DISTILL_SANDBOX=preferred (docs/operations.md)."
    channel.say("error", fault="service", code="no_sandbox", message=message, hint=hint, errors=[])
    return False


def stay_hidden(job_file: Path) -> None:
    """Hide the memory of a rank started by a confined engine; the rank inherits all other restrictions."""
    if sys.platform == "linux" and _read(job_file).get("sandbox") in ("required", "preferred"):
        from worker.distillation.sandbox.kernel import hide_memory

        hide_memory()


def _read(job_file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(job_file.read_text())
    except (OSError, ValueError):
        return {}  # the run refuses such a file later
    return values if isinstance(values, dict) else {}


def confine(folder: Path, ranks: int = 1, gpu: bool = True, reads: Sequence[Path] = ()) -> Report:
    """Confine this process to a folder, as far as this machine can; returns what is in force.

    Args:
        folder: the only folder that it may write to.
        ranks: if above 1, loopback works: in a network namespace of its own, or, if none can be created, in the machine's.
        gpu: whether it may use GPUs.
        reads: further folders that it may read.
    """
    if sys.platform != "linux":
        return Report(why=("the sandbox requires Linux",))
    from worker.distillation.sandbox.linux import confine as confine_on_linux

    return confine_on_linux(folder.resolve(), ranks, gpu, os.getpid(), reads=reads)
