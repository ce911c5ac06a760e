"""The end of a run: select, measure, export and report the student."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.distillation.reporting.artifacts import Artifacts
from worker.distillation.reporting.environment import environment
from worker.distillation.reporting.finished_run import FinishedRun, KeptNetwork
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.reporting.phases import PhaseTimes
from worker.distillation.reporting.run_previews import RunPreviews
from worker.distillation.source import Source
from worker.distillation.synthesis.estimate import Estimate
from worker.distillation.trainer.inputs import Inputs
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.weight_selection import Selected, WeightSelection


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """Finishes a run. `source` is the last stage's source; `seconds` returns the time spent in the job so far; `warn` logs a
    warning that the report repeats."""

    lineage: Lineage
    state: RunState
    selection: WeightSelection
    inputs: Inputs
    source: Source
    phases: PhaseTimes
    previews: RunPreviews
    artifacts: Artifacts
    seconds: Callable[[], float]
    warn: Callable[[str], None]

    def finish(self) -> dict[str, Any]:
        """Select, measure, export and report the student; return the summary of the report."""
        self.phases.enter("evaluating")
        place = self.lineage.student_place()
        selected = self.selection.select(place, self.state.best)
        teacher = self.lineage.teacher_of_job()
        measurement = Measurement(
            job=self.lineage.job,
            teacher=teacher,
            evaluation=self.inputs.evaluation,
            source=self.source,
            estimator=lambda: self.lineage.estimator("report"),
        )
        measured = _measure(selected, measurement)
        found = (measured["without_data"] or {}).get("estimate")
        if found and (words := Estimate(**found).warning):
            self.warn(words)
        self.phases.enter("exporting")
        previews = self.previews.at_end(
            student=selected.network,
            teacher=teacher,
            source=self.source,
            dataset=self.inputs.dataset,
            step=self.state.steps_before,
        )
        kept = self._keep_others(measurement)
        member = self.lineage.member(place)
        finished = FinishedRun(
            job=self.lineage.job,
            student=selected.network,
            member=member,
            teacher=teacher,
            files=self.artifacts.export_student(selected.network, member),
            checkpoint={"checkpoint": selected.checkpoint, "why": selected.why},
            measured=measured,
            history=self.state.history,
            environment=environment(self.lineage.device),
            seconds=self.seconds(),
            phase_seconds=self.phases.seconds(),
            previews=previews,
            kept=kept,
            decisions=self.lineage.decisions(),
            stopped_early=self.state.stopped_early,
            warnings=[*self.state.warnings, *self.artifacts.notes],
            teacher_check=self.state.teacher_check,
        )
        return self.artifacts.publish(finished)

    def _keep_others(self, measurement: Measurement) -> list[KeptNetwork]:
        """Export other networks that the procedure keeps, and its ensembles."""
        kept = [
            self.artifacts.keep(name, self.lineage.deployed(place), self.lineage.member(place), measurement)
            for name, place in self.lineage.kept_places().items()
        ]
        for name, places in self.lineage.ensembles().items():
            parts = [(self.lineage.deployed(place), self.lineage.member(place)) for place in places]
            kept.append(self.artifacts.keep_ensemble(name, parts, measurement))
        return kept


def _measure(selected: Selected, measurement: Measurement) -> dict[str, Any]:
    """Measurements of the student, and in `other_weights` of the alternative weights."""
    measured = measurement.measure(selected.network.eval())
    if selected.other is not None:
        other = measurement.measure(selected.other.eval())
        measured["other_weights"] = {"checkpoint": selected.other_checkpoint, **other}
    return measured
