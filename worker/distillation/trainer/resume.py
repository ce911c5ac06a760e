"""Resuming from a checkpoint: read it, and restore a stage and the random generators."""

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.distillation.distributed.ranks import Ranks
from worker.distillation.errors import CheckpointError
from worker.distillation.randomness import restore_random_state, seed_all, seed_for
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_run import StageRun


@dataclass(frozen=True)
class Resumed:
    """A checkpoint: its step, the run's state, and the parts with the running stage's state."""

    step: int
    state: RunState
    parts: Mapping[str, Any]

    @property
    def recipes(self) -> Mapping[str, Any]:
        """The recipes of the running stage's transforms, by member."""
        with _fits_this_version():
            return self.parts["transforms"]


def read_checkpoint(manifest: Path | None, checkpoints: Checkpoints) -> Resumed | None:
    """Read the checkpoint of a manifest file; None without a file.

    Raises:
        CheckpointError: it cannot be read.
    """
    if manifest is None:
        return None
    content = json.loads(manifest.read_text())
    parts = checkpoints.load(content)
    with _fits_this_version():
        return Resumed(content["step"], RunState.from_state(parts), parts)


def restore_stage(run: StageRun, resumed: Resumed, ranks: Ranks, seed: int) -> None:
    """Restore a newly built stage and this rank's random generators from the checkpoint.

    If the checkpoint has no state for this rank, its random stream is seeded from the job's `seed`.

    Raises:
        CheckpointError: the parts do not fit the stage.
    """
    states = resumed.state.random_states
    with _fits_this_version():
        run.load_state_dict(resumed.parts)
        if ranks.rank < len(states):
            restore_random_state(states[ranks.rank], run.context.device)
        else:
            seed_all(seed_for(seed, run.stage.seeded_by, "joined", ranks.rank, run.number))


@contextmanager
def _fits_this_version() -> Iterator[None]:
    """Raise CheckpointError for errors that show that another version of the engine wrote the parts."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise  # an error of the device, not of the checkpoint
        traceback.print_exc()
        raise CheckpointError(f"the checkpoint does not fit this version of the engine: {error}") from error
