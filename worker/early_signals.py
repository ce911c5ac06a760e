"""Keeps termination signals that arrive before Celery handles them, so that the worker still shuts down gracefully."""

import os
import signal
import threading
import time
from types import FrameType

LOOK_SECONDS = 0.02
_waiting: list[int] = []


def install() -> None:
    """Start keeping SIGTERM and SIGINT; call it in the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _keep)


def received() -> bool:
    """Whether a signal has arrived."""
    return bool(_waiting)


def hand_over() -> None:
    """Pass kept signals on when Celery has installed its own handlers."""
    threading.Thread(target=_pass_on, name="early-signals", daemon=True).start()


def _keep(number: int, frame: FrameType | None) -> None:
    _waiting.append(number)


def _pass_on() -> None:
    while signal.getsignal(signal.SIGTERM) is _keep:
        time.sleep(LOOK_SECONDS)
    if _waiting:
        os.kill(os.getpid(), signal.SIGTERM)
