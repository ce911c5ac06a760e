"""A stage whose synthetic images have collapsed begins again, as often as its source allows."""

from worker.distillation.errors import Collapsed
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_run import StageRun


def restart(run: StageRun, error: Collapsed, state: RunState) -> str:
    """Count the stage's steps as taken and forget its best weights; gives the warning to log.

    Raises:
        Collapsed: another start would not help, or the source allows no more.
    """
    most = run.source.most_restarts
    if not error.mendable or state.restarts >= most:
        tried = f"; begun again with other weights, {state.restarts} of {most} times, it ends so too"
        raise Collapsed(error.message + (tried if state.restarts else ""), error.hint, error.mendable) from error
    state.restarts += 1
    state.steps_before += run.number
    state.generator_steps_before += run.generator_steps_done
    if state.best is not None and state.best.place.startswith(f"{run.stage.name}/"):
        state.best = None
    words = f"stage {run.stage.name!r} is begun again, {state.restarts} of at most {most} times"
    return f"{error.message}; {words}, with corrected weights"
