"""Control groups (cgroup v2) that limit the memory of an engine and of all processes that it starts, together.

`DISTILL_ENGINE_CGROUP` names a folder that the operator has delegated to the workers (docs/operations.md). Each training
engine gets a group of its own in it. Unlike RLIMIT_DATA, a group counts only memory that is used, so that it also works with
CUDA, which reserves far more.
"""

import errno
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import structlog

from models.settings import settings

PREFIX = "engine-"
WANTED = "memory"
"""The controller that the folder must have."""
END_SECONDS = 5.0
"""Time limit for the end of the processes of a group that is killed."""
PAUSE_SECONDS = 0.01
WAITING = (sys.executable, "-ISc", "input()")
"""A process that does nothing until its input is closed."""

log = structlog.get_logger(__name__)


class Unusable(Exception):
    """The folder cannot limit engines; the message says why."""


def require(folder: Path) -> None:
    """Check that groups with a limit can be made in a folder.

    Raises:
        Unusable: they cannot.
    """
    try:
        controllers = (folder / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise Unusable(f"{folder} is not a folder of cgroup v2 ({error.strerror})") from error
    if WANTED not in controllers:
        raise Unusable(f"{folder} has no {WANTED} controller: enable it in the group above")
    try:
        _write(folder / "cgroup.subtree_control", f"+{WANTED}")
        trial = Group.make(folder, f"{PREFIX}{uuid.uuid4().hex}", 2**30)
    except OSError as error:
        hint = "delegate it to this user"
        if error.errno == errno.EBUSY:
            hint = "it has processes of its own, which must be in a group below it"
        raise Unusable(f"no group can be made in {folder} ({error.strerror}): {hint}") from error
    try:
        _move_a_process(trial)
    except OSError as error:
        hint = "it must contain the worker's own group, and the user must own its cgroup.procs"
        raise Unusable(f"no process can be moved into groups of {folder} ({error.strerror}): {hint}") from error
    finally:
        trial.end()


def _move_a_process(group: "Group") -> None:
    with subprocess.Popen(WAITING, stdin=subprocess.PIPE) as process:
        try:
            group.add(process.pid)
        finally:
            process.kill()


class Group:
    """The group of one engine."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def make(cls, folder: Path, name: str, memory_bytes: int) -> "Group":
        """Make an empty group whose processes together may use so much memory, without swap. If they use more, the kernel
        kills all of them."""
        group = cls(folder / name)
        group.path.mkdir()
        try:
            _write(group.path / "memory.max", str(memory_bytes))
            for file, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                with suppress(FileNotFoundError):  # a kernel without swap, or older than 4.19
                    _write(group.path / file, value)
        except OSError:
            group.path.rmdir()
            raise
        return group

    def add(self, pid: int) -> None:
        """Move a process into the group; what it starts later belongs to the group too."""
        _write(self.path / "cgroup.procs", str(pid))

    def end(self) -> bool:
        """Kill what is left in the group, wait for its end, and remove the group; if that takes too long, a later call of
        `sweep` removes it.

        Returns:
            Whether the kernel has killed its processes because together they used too much memory.
        """
        events = self._memory_events()
        with suppress(OSError):  # the file exists from Linux 5.14 on
            _write(self.path / "cgroup.kill", "1")
        deadline = time.monotonic() + END_SECONDS
        while not _removed(self.path) and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
        # `oom`: this group's own limit was reached; without it, a group above or the machine had no memory left
        return events.get("oom_kill", 0) > 0 and events.get("oom", 0) > 0

    def _memory_events(self) -> dict[str, int]:
        try:
            lines = (self.path / "memory.events").read_text().splitlines()
        except OSError:
            return {}
        return {name: int(count) for name, count in map(str.split, lines)}


def _removed(path: Path) -> bool:
    """Remove a group; false if it still has processes."""
    try:
        path.rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _write(file: Path, text: str) -> None:
    """Write to a file of a group, some of which are write-only; never makes it, since outside a cgroup that would hide a mistake."""
    with open(os.open(file, os.O_WRONLY), "w") as opened:  # noqa: PTH123 - a descriptor
        opened.write(text)


def sweep(folder: Path) -> None:
    """Remove the groups of engines that have ended. A group that still has processes cannot be removed."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            path.rmdir()


def group_of(pid: int, memory_bytes: int) -> Group | None:
    """A new group that holds a newly started engine; None if no folder is set, or it fails, which is logged."""
    folder = settings().engine_cgroup
    if folder is None:
        return None
    try:
        sweep(folder)
        group = Group.make(folder, f"{PREFIX}{uuid.uuid4().hex}", memory_bytes)
        try:
            group.add(pid)
        except OSError:
            group.end()
            raise
    except OSError as error:
        log.warning("engine_without_cgroup", folder=str(folder), error=str(error))
        return None
    return group
