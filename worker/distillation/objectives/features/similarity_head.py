"""SimKD: the student's features pass a projector and the teacher's classifier."""

import copy
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.networks.reused_classifier import ReusedClassifier, classifier_of, deepest_map, projector
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK


class SimilarityHead(Objective):
    """Mean squared difference between the student's projected features and the input of the teacher's classifier; the
    projector and the teacher's classifier become part of the exported student.

    Chen et al., "Knowledge distillation with the reused teacher classifier", arXiv:2203.14001, section 3. The projector
    (1x1, 3x3 and 1x1 convolutions, each with batch normalisation and ReLU) and the weight of 1 without any other
    objective are those of the authors' code (DefangChen/SimKD). The exported network is the student without its own
    classifier, the projector, and the teacher's classifier. If the teacher's classifier does not read the average of a
    feature map, set `vectors`: then linear layers match the input vectors of the two classifiers (ours).
    """

    paper = "arXiv:2203.14001"
    needs = ObjectiveNeeds(logits=True, tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The projector, and the features that it reads."""

        reduction: Annotated[
            int,
            Range(ge=1, le=64),
            "Reduction of the projector's inner width: the teacher's feature channels divided by this.",
        ] = 2
        rectified: Annotated[
            bool, "Whether the projector ends in a ReLU. Set it if the teacher's features are never negative."
        ] = True
        vectors: Annotated[bool, "Match the input vectors of the classifiers instead of the maps before pooling."] = (
            False
        )
        student_tap: Annotated[
            str | None, "The student's map or vector, PATH or PATH:in, that the projector reads. If null: the last one."
        ] = None

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        if teacher is None:
            raise SpecError([Problem("/name", "needs a teacher")])
        self.classifier = classifier_of(teacher, "teacher")
        self.own_classifier = classifier_of(student, "student")
        read = f"{self.classifier}:in"
        map_ = None if self.settings.vectors else deepest_map(teacher, teacher.inputs[read][0])
        last = deepest_map(student) if map_ else f"{self.own_classifier}:in"
        self.teacher_tap = map_ or read
        self.student_tap = _student_tap(self.settings.student_tap or last, student, dimensions=3 if map_ else 1)
        return Taps((self.student_tap,), tuple(dict.fromkeys((self.teacher_tap, read))))

    def build(self, context: BuildContext) -> None:
        super().build(context)
        given, network = context.teacher or context.student, context.teacher_network
        self._check_classifier(given.taps, given.logits, network.get_submodule(self.classifier) if network else None)
        mine, theirs = context.student.taps[self.student_tap], given.taps[self.teacher_tap]
        self.size = tuple(min(pixels) for pixels in zip(mine.shape[2:], theirs.shape[2:], strict=True))
        inner = max(1, theirs.shape[1] // self.settings.reduction)
        self.projector = projector(mine.shape[1], inner, theirs.shape[1], mine.ndim == 4, self.settings.rectified)

    def _check_classifier(self, taps: dict[str, Tensor], logits: Tensor, classifier: nn.Module | None) -> None:
        words, read = "", taps[f"{self.classifier}:in"]
        features = taps[self.teacher_tap].flatten(2).mean(2) if taps[self.teacher_tap].ndim == 4 else read
        if not isinstance(classifier, nn.Linear) or classifier.out_features != logits.shape[1]:
            words = "the teacher's last layer is not a linear classifier that can be reused"
        elif not logits.is_meta and not _close(classifier(read), logits):
            words = f"the teacher's logits are not the output of its last linear layer {self.classifier!r}"
        if words:
            raise SpecError([Problem("/name", words)], "Choose another objective.")
        if not logits.is_meta and not _close(features, read):
            words = f"the teacher's classifier does not read the average of {self.teacher_tap!r}"
            raise SpecError([Problem("/vectors", words)], "Set `vectors` to true.")

    def forward(self, step: Step) -> dict[str, Tensor]:
        mine, theirs = step.student.taps[self.student_tap], step.need_teacher().taps[self.teacher_tap]
        if self.size:
            height, width = self.size
            mine, theirs = (F.adaptive_avg_pool2d(maps, (height, width)) for maps in (mine, theirs))
        return {"features": F.mse_loss(single(self.projector(mine)), single(theirs))}

    def deploy(self, student: nn.Module, teacher: nn.Module | None) -> nn.Module:
        if teacher is None:
            raise RuntimeError("the teacher's classifier cannot be exported: there is no teacher")
        own, classifier = copy.deepcopy(student), copy.deepcopy(teacher.get_submodule(self.classifier))
        own.set_submodule(self.own_classifier, nn.Identity())
        deployed = ReusedClassifier(own, self.student_tap, self.size, copy.deepcopy(self.projector), classifier)
        return deployed.requires_grad_(True).eval()


def _student_tap(tap: str | None, student: TapMap, dimensions: int) -> str:
    """The student's tap, checked to exist and to have this many dimensions.

    Raises:
        SpecError: the student has no such tap, or it has another number of dimensions.
    """
    if tap is None:
        words = "the student has no feature maps: set `vectors` to true"
    elif (shape := student.shape(tap)) is None or tap.endswith(":pre"):
        words = f"the student has no tap PATH or PATH:in called {tap!r}; {student.nearest(tap)}"
    elif len(shape) != dimensions:
        words = f"must have {dimensions + 1} dimensions, including the batch, but {tap!r} has {len(shape) + 1}"
    else:
        return tap
    raise SpecError([Problem("/student_tap", words)])


def _close(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach().float(), other.detach().float()
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
