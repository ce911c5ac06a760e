"""The environment variables and resource limits of an engine."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import structlog

CHECKOUT = Path(__file__).resolve().parents[2]
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "TZ", "SSL_CERT_FILE")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EngineLimits:
    """Resource limits of an engine, in the units of setrlimit(2); None means no limit."""

    cpu_seconds: int | None = None
    file_bytes: int | None = None

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

    def try_to_impose(self, pid: int) -> None:
        """`impose` for a process that may have ended already; a failure is logged."""
        try:
            self.impose(pid)
        except (ProcessLookupError, PermissionError, ValueError) as error:
            log.warning("engine_limits_not_set", error=str(error))


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
