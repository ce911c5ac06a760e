"""Signals to leave that come before Celery listens for them: they wait until it does, so that the worker leaves in good order."""

import os
import signal
import threading
import time
from types import FrameType

LOOK_SECONDS = 0.02
_waiting: list[int] = []


def hear() -> None:
    """Keep SIGTERM and SIGINT from now on; to be called by the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _keep)


def asked() -> bool:
    """Whether one has come."""
    return bool(_waiting)


def hand_over() -> None:
    """Pass on what comes before Celery has set handlers of its own."""
    threading.Thread(target=_pass_on, name="early-signals", daemon=True).start()


def _keep(number: int, frame: FrameType | None) -> None:
    _waiting.append(number)


def _pass_on() -> None:
    while signal.getsignal(signal.SIGTERM) is _keep:
        time.sleep(LOOK_SECONDS)
    if _waiting:
        os.kill(os.getpid(), signal.SIGTERM)
