"""Control groups (cgroup v2) that limit the memory of an engine and of all processes that it starts, together.

`DISTILL_ENGINE_CGROUP` names a folder that the operator has delegated to the workers (docs/operations.md). Each training
engine gets a group of its own in it. Unlike RLIMIT_DATA, a group counts only memory that is used, so that it also works with
CUDA, which reserves far more.
"""

import uuid
from contextlib import suppress
from pathlib import Path

import structlog

from models.settings import settings

PREFIX = "engine-"
WANTED = "memory"
"""The controller that the folder must have."""

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
        trial.end()
    except OSError as error:
        raise Unusable(f"no group can be made in {folder} ({error.strerror}): delegate it to this user") from error


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
        """Kill what is left in the group and remove it; if that takes too long, a later call of `sweep` removes it.

        Returns:
            Whether the kernel has killed its processes because they used too much memory.
        """
        killed = self._kills() > 0
        with suppress(OSError):  # the file exists from Linux 5.14 on
            _write(self.path / "cgroup.kill", "1")
        with suppress(OSError):
            self.path.rmdir()
        return killed

    def _kills(self) -> int:
        try:
            lines = (self.path / "memory.events").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _write(file: Path, text: str) -> None:
    with file.open("r+") as opened:  # never makes the file: outside a cgroup that would hide the mistake
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
