"""Starts a command that ends when the process that started it does: `python -m worker.tether PARENT COMMAND…`.

On Linux the kernel then sends it SIGTERM, however its parent has died. Elsewhere it is only started.
"""

import ctypes
import os
import signal
import sys


def main() -> None:
    """Become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the process that started this one is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
