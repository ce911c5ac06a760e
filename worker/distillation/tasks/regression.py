"""Regression: a vector of real numbers for each sample.

Shapes: N samples, D outputs.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement, beats_mean, by_truth
from worker.distillation.errors import Problem, SpecError
from worker.distillation.task import Predict, Task, TeacherAssessment, predict

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

NAMED_AT_MOST = 16
"""Maximum number of outputs for which each has its own metric."""


class Regression(Task):
    """A vector of real numbers for each sample, such as a pose; a network's output is the prediction itself."""

    labels = "target"
    field = "target"
    output = "values"
    least_outputs = 1
    ground_truth = {"name": "target_error"}
    objective_defaults = (
        {"name": "target_error", "weight": 0.5},
        {"name": "logit_distance", "weight": 0.5, "norm": "l2"},
    )
    main_metric = "root_mean_squared_error"
    higher_is_better = False

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        target = images.fields.get("target")
        if target is None:
            raise SpecError([Problem(pointer, "has no targets")], "Choose another dataset or task.")
        if target.shape[1] != outputs:
            message = f"has {target.shape[1]} targets for each image, but the student has {outputs} outputs"
            raise SpecError(
                [Problem(pointer, message)], "Choose a dataset with as many targets, or set student/classes."
            )

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of regression.

        `mean_absolute_error`, `root_mean_squared_error` and `r2` (the mean over outputs of their coefficients of
        determination; an output whose target never changes is left out), all in the targets' units or none;
        `mean_absolute_error/NAME` of each of up to 16 outputs; with a teacher `teacher_distance`, the root of the mean
        squared difference from its outputs.
        """
        given, teacher = predict(network_fn, images, batch_size, teacher_fn)
        target = images.fields["target"].cpu().double()
        error = given - target
        coefficients = determination(given, target)
        metrics = {
            "mean_absolute_error": error.abs().mean(),
            "root_mean_squared_error": error.square().mean().sqrt(),
        }
        if len(coefficients):
            metrics["r2"] = coefficients.mean()
        if 1 < error.shape[1] <= NAMED_AT_MOST:
            means = zip(images.class_names, error.abs().mean(0), strict=True)
            metrics |= {f"mean_absolute_error/{name}": mean for name, mean in means}
        if teacher is not None:
            metrics["teacher_distance"] = (given - teacher).square().mean().sqrt()
        return {name: float(value) for name, value in metrics.items()}

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses R²; a teacher that predicts no output better than the targets' mean is at chance level."""
        given, _ = predict(teacher_fn, images, batch_size)
        coefficients = determination(given, images.fields["target"].cpu().double())
        best = float(coefficients.max()) if len(coefficients) else 1.0
        return TeacherAssessment(f"R² of its best output is {best:.3f} on {len(images)} images", best <= 0)

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        target, words = (
            fields["target"],
            "is nearer to the targets than their mean on {score} of {count} training images",
        )
        return by_truth(partial(beats_mean, all_MD=target), target, words)


def determination(given: Tensor, target: Tensor) -> Tensor:
    """Coefficients of determination, `1 - sum (y - f)² / sum (y - mean y)²`, of those outputs (N, D) whose targets
    differ."""
    spread = (target - target.mean(0)).square().sum(0)
    varied = spread > 0
    return 1 - (given - target).square().sum(0)[varied] / spread[varied]
