"""The phases of a run: said as they begin, and how long each took."""

import time

from worker.distillation.process.event_pipe import Channel


class PhaseTimes:
    """Seconds by phase, on top of those of earlier attempts."""

    def __init__(self, channel: Channel, earlier: dict[str, float]):
        self._channel = channel
        self._seconds = dict(earlier)
        self._phase: str | None = None
        self._since = time.monotonic()

    def enter(self, phase: str, stage: str | None = None) -> None:
        """Say that a phase begins, and end the one before."""
        self.seconds()
        self._phase = phase
        self._since = time.monotonic()
        self._channel.say("phase", phase=phase, stage=stage)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase until now."""
        now = time.monotonic()
        if self._phase is not None:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
        return dict(self._seconds)
