"""A network namespace with loopback only, for jobs whose ranks communicate with each other."""

import fcntl
import os
import socket
import struct
from pathlib import Path

from worker.distillation.sandbox.kernel import LIBC, check

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def leave_network() -> None:
    """Move this process, which must have a single thread, into a network namespace with only the loopback interface.

    Raises:
        OSError: the kernel or the container does not let unprivileged processes create one.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        check(LIBC.unshare(CLONE_NEWNET), "unshare")  # succeeds for root with all capabilities
    except OSError:
        check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
        request = fcntl.ioctl(any, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(any, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
