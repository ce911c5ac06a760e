"""Requests of the worker to a run: save a checkpoint and stop (drain), or stop at once (cancel)."""

import time

from worker.distillation.distributed.ranks import Ranks
from worker.distillation.process.event_pipe import Channel

ALIVE_SECONDS = 10.0
"""Minimum time between two `alive` events."""
ACTIONS = (None, "checkpoint", "drain", "cancel")
"""What ranks may have to do after a step; ranks exchange the index."""


class Stopped(Exception):
    """The worker asked the run to stop; `reason` is `drain` or `cancel`."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class WorkerRequests:
    """Reads the channel's request, on rank 0 for all ranks."""

    def __init__(self, channel: Channel, ranks: Ranks):
        self.channel = channel
        self.ranks = ranks
        self._last_alive = time.monotonic()

    def action(self, checkpoint_due: bool) -> str | None:
        """The action of every rank after this step: `checkpoint`, `drain`, or None.

        Raises:
            Stopped: the worker has cancelled the job.
        """
        due = "checkpoint" if checkpoint_due else None
        action = ACTIONS[self.ranks.agree(ACTIONS.index(self.channel.request or due))]
        if action == "cancel":
            raise Stopped("cancel")
        return action

    def pulse(self) -> None:
        """Stop if the job is cancelled, and send `alive` regularly; called during long work between steps.

        Raises:
            Stopped: the worker has cancelled the job.
        """
        if self.channel.request == "cancel":
            raise Stopped("cancel")
        now = time.monotonic()
        if now - self._last_alive >= ALIVE_SECONDS:
            self._last_alive = now
            self.channel.say("alive")
