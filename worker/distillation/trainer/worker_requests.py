"""What the worker asks of a run while it trains: to save a checkpoint and stop, or to stop at once."""

import time

from worker.distillation.distributed.ranks import Ranks
from worker.distillation.process.event_pipe import Channel

ALIVE_SECONDS = 10.0
"""A run that has said nothing for so long says at the next pulse that it is alive."""
ACTIONS = (None, "checkpoint", "drain", "cancel")
"""What all ranks may have to do after a step; ranks exchange the index."""


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
        self._said_alive = time.monotonic()

    def action(self, checkpoint_due: bool) -> str | None:
        """What every rank has to do after this step: `checkpoint`, `drain`, or None.

        Raises:
            Stopped: the worker has cancelled the job.
        """
        due = "checkpoint" if checkpoint_due else None
        action = ACTIONS[self.ranks.agree(ACTIONS.index(self.channel.request or due))]
        if action == "cancel":
            raise Stopped("cancel")
        return action

    def pulse(self) -> None:
        """Called within long work between the steps: stop if the job is cancelled, and say now and then `alive`.

        Raises:
            Stopped: the worker has cancelled the job.
        """
        if self.channel.request == "cancel":
            raise Stopped("cancel")
        now = time.monotonic()
        if now - self._said_alive >= ALIVE_SECONDS:
            self._said_alive = now
            self.channel.say("alive")
