"""Runs a command that ends when its parent does: `python -m worker.tether PARENT COMMAND…`.

On Linux, the kernel sends it SIGTERM when the parent dies. On other systems, the command is only started.
"""

import ctypes
import os
import signal
import sys


def main() -> None:
    """Replace this process by the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent process has ended")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
