"""The loop of a worker's threads that claim rows and send what is due: one after the other until nothing is due, then a pause."""

import threading
from typing import Self

import structlog

from models import migrate
from models.database import UNAVAILABLE
from models.settings import settings

log = structlog.get_logger(__name__)


class SendingThread:
    """A thread that sends what is due, from entering to leaving the context.

    A subclass sets `name` and defines `next_pause`. It notifies `changed` if there may be more to do before a pause has ended.
    """

    name: str

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def next_pause(self) -> float:
        """Claim what has been due the longest, and do it or begin it; returns the seconds until the next call, 0 if more may be due.

        An exception is logged, and followed by a pause.
        """
        raise NotImplementedError

    def await_end(self) -> None:
        """Wait for work that is running, but not long: the worker stops."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self.changed:
            self._over = True
            self.changed.notify_all()
        self.await_end()

    def _run(self) -> None:
        while not self._over:
            pause = settings().sweep_seconds
            try:
                if migrate.is_current():
                    pause = self.next_pause()
            except UNAVAILABLE as error:
                log.warning(f"{self.name}_claimed_nothing", error=str(error).partition("\n")[0])
            except Exception:
                log.exception(f"{self.name}_failed")
            with self.changed:
                if pause and not self._over:
                    self.changed.wait(pause)
