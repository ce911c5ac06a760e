"""The end of a run: select, measure, export and report the student."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from worker.distillation.compression.integer_form import rounds_activations
from worker.distillation.distributed.ranks import ALONE
from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.reporting.artifacts import Artifacts
from worker.distillation.reporting.environment import environment
from worker.distillation.reporting.finished_run import FinishedRun, KeptNetwork
from worker.distillation.reporting.measurement import Measurement
from worker.distillation.reporting.phases import PhaseTimes
from worker.distillation.reporting.run_previews import RunPreviews
from worker.distillation.reporting.transformed import transformed
from worker.distillation.source import Source
from worker.distillation.synthesis.estimate import Estimate
from worker.distillation.trainer.inputs import Inputs
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.trainer.run_state import RunState
from worker.distillation.trainer.stage_context import StageContext
from worker.distillation.trainer.stage_source import calibration_images
from worker.distillation.trainer.weight_selection import Selected, WeightSelection

COMPARED_IMAGES = 256


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
            images=self.inputs.evaluation[0] if self.inputs.evaluation else self.inputs.dataset,
            step=self.state.steps_before,
        )
        member, entries = self.lineage.member(place), self.lineage.entries_at(place)
        if rounds_activations(selected.network) or isinstance(selected.network, Detector):
            self.artifacts.sample = self._sample()
        kept = self._keep_others(measurement)
        files = self.artifacts.export_student(selected.network, member)
        finished = FinishedRun(
            job=self.lineage.job,
            student=selected.network,
            member=member,
            teacher=teacher,
            files=files,
            entries=entries,
            transformed=self._transformed(selected.network, place, files, measurement) if entries else None,
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

    def _sample(self) -> Tensor:
        """Images on which files that round activations, and those of detectors, are compared with the student."""
        context = StageContext.of(self.lineage.job, self.inputs.dataset, self.lineage.device, ALONE)
        return calibration_images(context, self.source, COMPARED_IMAGES)

    def _transformed(
        self, student: nn.Module, place: str, files: Sequence[Mapping[str, Any]], measurement: Measurement
    ) -> dict[str, Any]:
        """What was measured of a transformed student."""
        member, network = self.lineage.member(place), self.lineage.network(place)
        card = self.artifacts.card_of(member)
        return transformed(student, network, member, self.lineage.entries_at(place), files, measurement, card)

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
