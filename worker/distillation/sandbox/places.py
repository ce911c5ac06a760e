"""Which files the engine needs: of Python, of this checkout, of the system, and of the devices that it computes on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from worker.distillation.sandbox import landlock
from worker.distillation.sandbox.landlock import Rule

ENGINE = Path(__file__).resolve().parent.parent
PARTS_OF_A_PREFIX = (
    "bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "ssl", "nvvm", "targets", "pyvenv.cfg",
)  # fmt: skip
"""Never a prefix as a whole: a checkout and its data may lie in `/usr/src/app`, say."""
SYSTEM = (
    "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/gnu/store", "/opt/nvidia",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime",
    "/etc/timezone", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd", "/etc/group", "/etc/mime.types",
    "/etc/os-release", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf",
)  # fmt: skip
# of /proc/self no whole folder: its `net`, and that of each of its tasks, names the database's address
PROCESS = ("cgroup", "cmdline", "limits", "maps", "mountinfo", "smaps", "stat", "statm", "status")
MACHINE = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/loadavg", "/proc/filesystems",
    "/proc/sys/kernel/random", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/cap_last_cap", "/proc/sys/vm",
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages",
)  # fmt: skip
SOURCES_OF_CHANCE = ("/dev/zero", "/dev/random", "/dev/urandom")
# what CUDA's driver opens, by its documentation; on a machine without a GPU none of it is there to be tried
GPU_FACTS = (
    "/proc/devices", "/proc/modules", "/proc/driver/nvidia", "/proc/driver/nvidia-caps", "/sys/bus/pci",
    "/sys/devices", "/sys/module/nvidia", "/sys/module/nvidia_uvm", "/sys/class/net", "/etc/nvidia",
)  # fmt: skip
GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "kfd", "dri/render*")


def rules(folder: Path, gpu: bool, ranks: int) -> Iterator[Rule]:
    """What an engine in `folder` may reach, and how."""
    yield folder, landlock.OWN
    yield Path("/dev/null"), landlock.DEVICE
    for path in readable():
        yield path, landlock.READ
    for name in ("task", "fd"):  # their names only
        yield Path("/proc/self", name), landlock.READ_DIR
    if gpu:
        for fact in GPU_FACTS:
            yield Path(fact), landlock.READ
        for pattern in GPU_DEVICES:
            for device in Path("/dev").glob(pattern):
                yield device, landlock.DEVICE
    if ranks > 1:
        yield from _among_ranks(gpu)


def _among_ranks(gpu: bool) -> Iterator[Rule]:
    """What several ranks need besides: each is an interpreter that rank 0 starts when it is confined already."""
    yield Path("/dev/shm"), landlock.SHARED_MEMORY  # they exchange tensors through it; others' segments lie there too
    yield ENGINE.parent.parent, landlock.READ_DIR  # to find this package; of other files there, names alone
    for path in ("/sys/bus/pci", "/sys/devices", "/sys/class/net"):  # gloo asks which devices there are
        yield Path(path), landlock.READ
    if gpu:  # CUDA's driver reads facts of its own process; memory and environment of others stay out of reach
        yield Path("/proc"), landlock.READ


def readable() -> list[Path]:
    """Files, and folders with all that is below them, that every engine may read and run."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, "/usr", "/usr/local"}
    prefixes |= {str(path) for path in Path("/usr/local").glob("cuda*")}
    paths = {Path(prefix, part) for prefix in prefixes for part in PARTS_OF_A_PREFIX}
    paths |= {Path(path) for path in sys.path if _is_packages(path)}
    paths |= {Path(path) for name in ("LD_LIBRARY_PATH", "CUDA_HOME") for path in _named(name)}
    paths |= {Path(path) for path in (*SYSTEM, *MACHINE, *SOURCES_OF_CHANCE)}
    paths |= {Path("/proc/self", name) for name in PROCESS}
    return sorted(paths | {ENGINE, ENGINE.parent / "__init__.py"})


def _is_packages(path: str) -> bool:
    return Path(path).name in ("site-packages", "dist-packages")


def _named(variable: str) -> list[str]:
    return [path for path in os.environ.get(variable, "").split(os.pathsep) if path.startswith("/") and path != "/"]
