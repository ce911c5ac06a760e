"""Events of a run during training: metrics, progress and warnings."""

from worker.distillation.process.event_pipe import Channel
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_run import StageRun

REPORTS_A_STAGE = 100
MOST_STEPS_BETWEEN_REPORTS = 50


class Progress:
    """Sends events on the channel, and stores warnings in the run's `state`."""

    def __init__(self, channel: Channel, lineage: Lineage, state: RunState):
        self.channel = channel
        self.lineage = lineage
        self.state = state

    def due(self, run: StageRun) -> bool:
        """Whether to report after this step: after a stage's first and last step, and at a regular interval."""
        every = max(1, min(MOST_STEPS_BETWEEN_REPORTS, run.total // REPORTS_A_STAGE))
        done = run.number + run.generator_steps_done
        return run.finished or done == 1 or done % every == 0

    def report(self, run: StageRun) -> None:
        """Send the metrics since the last report, and the progress of the stage."""
        self.channel.say("metrics", step=self.state.steps_before + run.number, values=run.metrics())
        self.channel.say(
            "progress",
            stage=run.stage.name,
            step=run.number,
            steps=run.total,
            epoch=run.epoch,
            fraction=self.lineage.fraction(run.fraction),
        )
        for words in run.source.warnings():
            self.warn(f"stage {run.stage.name!r}: {words}")

    def validation(self, run: StageRun, metrics: dict[str, float]) -> None:
        """Send the metrics of the student on the held-out images."""
        values = {f"validation/{name}": value for name, value in metrics.items()}
        self.channel.say("metrics", step=self.state.steps_before + run.number, values=values)

    def warn(self, words: str) -> None:
        """Log a warning once over all attempts; the report repeats it."""
        if words not in self.state.warnings:
            self.state.warnings.append(words)
            self.channel.log(words, "warning")
