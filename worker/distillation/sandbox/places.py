"""The files that the engine needs: of Python, of this checkout, of the system, and of its GPUs."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.distillation.sandbox import landlock
from worker.distillation.sandbox.landlock import Rule

ENGINE = Path(__file__).resolve().parent.parent
PARTS_OF_A_PREFIX = (
    "bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "ssl", "nvvm", "targets", "pyvenv.cfg",
)  # fmt: skip
"""Subfolders of a prefix. A whole prefix is never readable, since data could be below it, for example in `/usr/src/app`."""
SYSTEM = (
    "/lib", "/lib32", "/lib64", "/bin", "/nix/store", "/gnu/store", "/opt/nvidia",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime",
    "/etc/timezone", "/etc/nsswitch.conf", "/etc/hosts", "/etc/passwd", "/etc/group", "/etc/mime.types",
    "/etc/os-release", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf",
)  # fmt: skip
# single files of /proc/self: `net`, also that of each task, contains the database's address
PROCESS = ("cgroup", "cmdline", "limits", "maps", "mountinfo", "smaps", "stat", "statm", "status")
MACHINE = (
    "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/loadavg", "/proc/filesystems",
    "/proc/sys/kernel/random", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/cap_last_cap", "/proc/sys/vm",
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/sys/kernel/mm/hugepages",
)  # fmt: skip
RANDOM_DEVICES = ("/dev/zero", "/dev/random", "/dev/urandom")
# files that CUDA's driver opens according to its documentation; not tested on machines without a GPU
GPU_FACTS = (
    "/proc/devices", "/proc/modules", "/proc/driver/nvidia", "/proc/driver/nvidia-caps", "/sys/bus/pci",
    "/sys/devices", "/sys/module/nvidia", "/sys/module/nvidia_uvm", "/sys/class/net", "/etc/nvidia",
)  # fmt: skip
GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "kfd", "dri/render*")


def rules(folder: Path, gpu: bool, ranks: int, reads: Iterable[Path] = ()) -> Iterator[Rule]:
    """The Landlock rules of an engine in `folder`, which may also read the folders `reads`."""
    yield folder, landlock.OWN
    for path in reads:
        yield path, landlock.READ_FILE | landlock.READ_DIR
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
    """Additional rules for several ranks: each is an interpreter that the confined rank 0 starts."""
    yield Path("/dev/shm"), landlock.SHARED_MEMORY  # to exchange tensors; other processes' segments are there too
    yield ENGINE.parent.parent, landlock.READ_DIR  # to find this package; only the names of other files are readable
    for path in ("/sys/bus/pci", "/sys/devices", "/sys/class/net"):  # gloo lists devices
        yield Path(path), landlock.READ
    if gpu:  # CUDA's driver reads files of its own process; memory and environment of other processes stay unreadable
        yield Path("/proc"), landlock.READ


def readable() -> list[Path]:
    """Files, and folders with everything below them, that every engine may read and execute."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, "/usr", "/usr/local"}
    prefixes |= {str(path) for path in Path("/usr/local").glob("cuda*")}
    paths = {Path(prefix, part) for prefix in prefixes for part in PARTS_OF_A_PREFIX}
    paths |= {Path(path) for path in sys.path if _is_packages(path)}
    paths |= {Path(path) for name in ("LD_LIBRARY_PATH", "CUDA_HOME") for path in _named(name)}
    paths |= {Path(path) for path in (*SYSTEM, *MACHINE, *RANDOM_DEVICES)}
    paths |= {Path("/proc/self", name) for name in PROCESS}
    return sorted(paths | {ENGINE, ENGINE.parent / "__init__.py"})


def _is_packages(path: str) -> bool:
    return Path(path).name in ("site-packages", "dist-packages")


def _named(variable: str) -> list[str]:
    return [path for path in os.environ.get(variable, "").split(os.pathsep) if path.startswith("/") and path != "/"]
