"""Landlock: restricts the files that a process, and all processes that it starts, can access.

Rights are granted on single files, and on folders with everything below them. Newer kernels know more rights. A right that
the kernel does not know cannot be denied, so the sandbox's report contains the version in force.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from worker.distillation.sandbox.kernel import syscall

# System call numbers, the same on every architecture.
CREATE_RULESET = 444
ADD_RULE = 445
RESTRICT_SELF = 446
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
NEWEST = 7
"""The newest Landlock version that this module supports."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

READ = EXECUTE | READ_FILE | READ_DIR
# no links, pipes, sockets or devices: the worker opens files that an engine names, and must not be redirected or blocked
OWN = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
SHARED_MEMORY = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that apply to single files."""

Rule = tuple[Path, int]


class RulesetAttributes(ctypes.Structure):
    """landlock_ruleset_attr."""

    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathBeneath(ctypes.Structure):
    """landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The kernel's Landlock version, at most `NEWEST`; 0 if it has none."""
    try:
        return min(NEWEST, syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION))
    except OSError:
        return 0


def known_rights(version: int) -> int:
    """The file rights that a version knows."""
    last = 15 if version >= 5 else 14 if version >= 3 else 13 if version >= 2 else 12
    return (1 << last + 1) - 1


def restrict(rules: Iterable[Rule], tcp: bool, version: int) -> None:
    """Restrict this thread, which must be the only one of its process, and all that it starts.

    Args:
        rules: paths with the rights on them and below; paths that do not exist are skipped.
        tcp: whether TCP stays allowed.
        version: Landlock version, at most the kernel's.

    Raises:
        OSError: the kernel refuses.
    """
    known = known_rights(version)
    attributes = RulesetAttributes(
        known,
        BIND_TCP | CONNECT_TCP if version >= 4 and not tcp else 0,
        SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if version >= 6 else 0,
    )
    size = ctypes.sizeof(attributes) if version >= 6 else 16 if version >= 4 else 8
    ruleset = syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & known)
        syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it does not exist, or is already inaccessible
    try:
        rights = rights if path.is_dir() else rights & OF_FILES
        beneath = PathBeneath(rights, descriptor)
        syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        os.close(descriptor)
