"""Restarts of a stage whose synthetic images have collapsed, as often as its source allows."""

from worker.distillation.errors import Collapsed
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_run import StageRun


def restart(run: StageRun, error: Collapsed, state: RunState) -> str:
    """Count the stage's steps as done, drop its best weights, and return the warning to log.

    Raises:
        Collapsed: a restart would not help, or the source allows no more restarts.
    """
    most = run.source.most_restarts
    if not error.restart_may_help or state.restarts >= most:
        tried = f"; restarting with other loss weights did not help ({state.restarts} of {most} restarts used)"
        raise Collapsed(
            error.message + (tried if state.restarts else ""), error.hint, error.restart_may_help
        ) from error
    state.restarts += 1
    state.steps_before += run.number
    state.generator_steps_before += run.generator_steps_done
    if state.best is not None and state.best.place.startswith(f"{run.stage.name}/"):
        state.best = None
    restarted = f"stage {run.stage.name!r} restarts with corrected loss weights"
    return f"{error.message}; {restarted} (restart {state.restarts} of at most {most})"
