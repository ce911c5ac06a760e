"""Landlock: what of the file system a process, and all that it starts, may reach from now on.

Rights are given on folders, with everything below them, and on single files. A kernel knows more of them the newer it
is; a right that it does not know cannot be withheld, so the version in force is part of the sandbox's report.
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from worker.distillation.sandbox.kernel import syscall

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on every machine."""
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
NEWEST = 7
"""The newest version that this module knows."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

READ = EXECUTE | READ_FILE | READ_DIR
# no links, pipes, sockets or devices: the worker opens what an engine names, and must not be led elsewhere or held up
OWN = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
SHARED_MEMORY = READ_FILE | READ_DIR | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""Rights that a single file can have."""

Rule = tuple[Path, int]


class RulesetAttributes(ctypes.Structure):
    """landlock_ruleset_attr."""

    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class PathBeneath(ctypes.Structure):
    """landlock_path_beneath_attr."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def version() -> int:
    """The version that this kernel has, up to the newest known here; 0 for none."""
    try:
        return min(NEWEST, syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION))
    except OSError:
        return 0


def known_rights(version: int) -> int:
    """Rights on files that a version knows."""
    last = 15 if version >= 5 else 14 if version >= 3 else 13 if version >= 2 else 12
    return (1 << last + 1) - 1


def restrict(rules: Iterable[Rule], tcp: bool, version: int) -> None:
    """Confine this thread and all that it starts; it must be the only one of its process.

    Args:
        rules: a path and the rights on it and below; one that does not exist is left out.
        tcp: whether TCP stays allowed.
        version: of Landlock, at most the kernel's.

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
        return  # it is not there, or is out of reach already
    try:
        rights = rights if path.is_dir() else rights & OF_FILES
        beneath = PathBeneath(rights, descriptor)
        syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(beneath), 0)
    finally:
        os.close(descriptor)
