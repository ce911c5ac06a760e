"""The phases of a run: an event when each begins, and its duration."""

import time

from worker.distillation.process.event_pipe import Channel


class PhaseTimes:
    """Seconds by phase, including earlier attempts."""

    def __init__(self, channel: Channel, earlier: dict[str, float]):
        self._channel = channel
        self._seconds = dict(earlier)
        self._phase: str | None = None
        self._since = time.monotonic()

    def enter(self, phase: str, stage: str | None = None) -> None:
        """End the current phase, begin the next, and send an event `phase`."""
        self.seconds()
        self._phase = phase
        self._since = time.monotonic()
        self._channel.say("phase", phase=phase, stage=stage)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase so far."""
        now = time.monotonic()
        if self._phase is not None:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
        return dict(self._seconds)
