"""The environment variables and resource limits of an engine."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.engine.cgroup import Group, group_of

CHECKOUT = Path(__file__).resolve().parents[2]
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "TZ", "SSL_CERT_FILE")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EngineLimits:
    """Resource limits of an engine, in the units of setrlimit(2); None means no limit. `group_bytes` is the memory of the engine
    and all that it starts, for its control group; without a folder for such groups it has no effect."""

    cpu_seconds: int | None = None
    file_bytes: int | None = None
    group_bytes: int | None = None

    def impose(self, pid: int) -> None:
        """Set the limits of a newly started process, and forbid core dumps; does nothing except on Linux."""
        if not hasattr(resource, "prlimit"):
            return
        wanted = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_CPU: self.cpu_seconds,
            resource.RLIMIT_FSIZE: self.file_bytes,
        }
        for kind, limit in wanted.items():
            if limit is not None:
                _, hard = resource.prlimit(pid, kind)
                limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
                resource.prlimit(pid, kind, (limit, limit))

    def try_to_impose(self, pid: int) -> Group | None:
        """`impose` for a process that may have ended already, and move it into a control group of its own; failures are
        logged. Returns the group, which the caller removes."""
        try:
            self.impose(pid)
        except (ProcessLookupError, PermissionError, ValueError) as error:
            log.warning("engine_limits_not_set", error=str(error))
        return None if self.group_bytes is None else group_of(pid, self.group_bytes)


def environment(folder: Path, threads: int | None, gpu: bool, trains: bool = True) -> dict[str, str]:
    """All environment variables of an engine. If it `trains`, hashes of text are the same in every run; else they are random,
    so that no file can choose names whose hashes collide."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0" if trains else "random",
    }
    if threads is not None:
        own["OMP_NUM_THREADS"] = str(threads)
    if not gpu:
        own["CUDA_VISIBLE_DEVICES"] = ""
    return passed | own
