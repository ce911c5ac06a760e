"""Ground truth of regression: the error against the targets."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.regression import Form, deviation, pose_weights
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Step


class TargetError(Objective):
    """Error of the student's outputs against the targets, mean over samples and outputs, as in regression without a
    teacher.

    A pose is a translation followed by a rotation, whose units differ. The rotation's outputs are weighted as in
    Kendall et al., "PoseNet", arXiv:1505.07805, whose terms are the lengths of the two errors.
    """

    needs = ObjectiveNeeds(fields=("target",), teacher=False, tasks=("regression",))

    @dataclass(frozen=True)
    class Parameters:
        """The form of the error, and the outputs that are a rotation."""

        form: Annotated[
            Form, "Form of the error: squared error, smooth L1 loss (arXiv:1504.08083), or absolute error."
        ] = "squared"
        threshold: Annotated[
            float, Range(gt=0), "Error at which the smooth L1 loss changes from quadratic to linear."
        ] = 1.0
        rotations: Annotated[int, Range(ge=0), "Number of outputs, at the end, that are the rotation of a pose."] = 0
        rotation_weight: Annotated[float, Range(ge=0), "Factor of the errors of the rotation."] = 1.0

    def build(self, context: BuildContext) -> None:
        super().build(context)
        outputs = context.student.logits.shape[1]
        if self.settings.rotations > outputs:
            raise SpecError([Problem("/rotations", f"must be at most {outputs}, the number of the student's outputs")])

    def forward(self, step: Step) -> dict[str, Tensor]:
        p, outputs = self.settings, single(step.student.logits)
        error = deviation(outputs, step.batch.fields["target"].to(outputs.dtype), p.form, p.threshold)
        if not p.rotations:
            return {"error": error.mean()}
        weighted = error * pose_weights(error.shape[1], p.rotations, p.rotation_weight, error.device) / error.shape[1]
        parts = {"translation": weighted[:, : -p.rotations], "rotation": weighted[:, -p.rotations :]}
        return {name: part.sum(1).mean() for name, part in parts.items()}
