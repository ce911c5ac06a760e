"""The engine's sandbox: it locks itself in before it reads anything that came from outside.

What is withheld, by which means of Linux:

    files      Landlock: its own folder to write, Python and the system's libraries to read, nothing else
    network    a filter of system calls: no sockets; a job of several ranks gets a network with only itself in it
    memory     others cannot read its memory, nor it theirs; signals reach nobody outside

No step needs rights, and none can be undone. The process must have one thread. It may have imported torch already, and
may import anything later: what confines holds for threads and processes that it starts afterwards.

Belongs here: system calls by which a process confines itself. Does not: deciding whether a sandbox is required
(`worker/engine/sandbox_probe.py`). May import `process/`.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.distillation.process.event_pipe import Channel
from worker.distillation.sandbox.report import Report


def enter(job_file: Path, channel: Channel) -> bool:
    """Confine this process as its job file asks, and say so; false if it asks for more than can be had.

    The key `sandbox` is `required`, `preferred` or absent. `ranks` above 1 leaves the ranks a network among themselves.
    """
    asked = _read(job_file)
    if asked.get("sandbox") not in ("required", "preferred"):
        return True
    report = confine(job_file.absolute().parent, asked.get("ranks") or 1, asked.get("device") != "cpu")
    channel.say("sandbox", **asdict(report))
    if report.holds or asked["sandbox"] == "preferred":
        return True
    message = f"the engine must be confined and cannot be: {'; '.join(report.why)}"
    hint = "Allow what is missing, or set DISTILL_SANDBOX=preferred (docs/operations.md)."
    channel.say("error", fault="service", code="no_sandbox", message=message, hint=hint, errors=[])
    return False


def stay_hidden(job_file: Path) -> None:
    """For a rank that a confined engine has started: it is confined as well, but for its memory, which others could read."""
    if sys.platform == "linux" and _read(job_file).get("sandbox") in ("required", "preferred"):
        from worker.distillation.sandbox.kernel import hide_memory

        hide_memory()


def _read(job_file: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(job_file.read_text())
    except (OSError, ValueError):
        return {}  # nothing is done with such a file but to refuse it
    return values if isinstance(values, dict) else {}


def confine(folder: Path, ranks: int = 1, gpu: bool = True) -> Report:
    """Lock this process into a folder, as far as this machine can; says how far that is.

    Args:
        folder: its own; all that it may write.
        ranks: above 1, loopback works: in a network of its own, or, where none can be made, in everybody's.
        gpu: whether it may use graphics cards.
    """
    if sys.platform != "linux":
        return Report(why=("only Linux can confine the engine",))
    from worker.distillation.sandbox.linux import confine as confine_on_linux

    return confine_on_linux(folder.resolve(), ranks, gpu, os.getpid())
