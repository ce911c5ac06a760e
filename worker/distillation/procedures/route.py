"""Route constrained optimisation: the student follows the teacher's own training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Items, NetworkChoice, Range, WeightsFile
from worker.distillation.planning.stages import companion, no_given_teacher, split_budget, teacher_epochs, teacher_stage
from worker.distillation.procedure import FILE, GIVEN, Plan, Procedure, ProcedureNeeds, Stage, StageResult, kl_of

TEACHER = "teacher"


class Route(Procedure):
    """A teacher is trained first and leaves snapshots at equal intervals; the student learns from them in turn, easy to hard.

    Jin et al., "Knowledge distillation via route constrained optimization", arXiv:1904.09149. With the choice `equal` the
    student learns from every snapshot, the last being the finished teacher. With `greedy` it begins with the first, and
    goes on with the furthest that is not much harder than the one that it has learnt from: whose divergence from the
    student's predictions, on held-out images, makes a share of at least `delta` with that one's; else with the next. The
    student keeps its weights from anchor to anchor, while its optimiser and its learning rate begin anew. How hardness is
    compared, `delta`, and dividing the job's budget equally among the snapshots (what `greedy` skips goes to the anchor
    that it skips to) are ours; with one anchor this is plain distillation from the finished teacher, to the bit. Where the
    teacher was trained elsewhere, its uploaded `checkpoints` are the snapshots, and the job's teacher the last anchor.
    """

    paper = "arXiv:1904.09149"
    own_teacher = True
    when = {("choice", "greedy"): {"needs": ProcedureNeeds(held_out_images=True, tasks=("classification",))}}

    @dataclass(frozen=True)
    class Parameters:
        """The teacher and its route."""

        teacher: Annotated[
            NetworkChoice | None, "The network that is trained first, on labels; null is one like the student's."
        ] = None
        teacher_epochs: Annotated[int | None, Range(ge=1), "For how many epochs; null is the job's number."] = None
        anchors: Annotated[int, Range(ge=1, le=50), "How many of its states the student may learn from."] = 4
        checkpoints: Annotated[
            tuple[WeightsFile, ...] | None,
            Items(least=1, most=49),
            "Files of the weights of the job's teacher as it once was, easy to hard; null trains a teacher here.",
        ] = None
        choice: Annotated[
            Literal["equal", "greedy"],
            "Learn from all of them, or skip those that are hardly harder; that needs training/validation_fraction.",
        ] = "equal"
        delta: Annotated[
            float,
            Range(gt=0, le=1),
            "Least share, the student's divergence from its last anchor by that from a later one, to skip to it; our default.",
        ] = 0.8

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        self._check_teacher(plan)
        uploaded = self.settings.checkpoints is not None
        budgets = split_budget(plan, self._count, "/procedure/checkpoints" if uploaded else "/procedure/anchors")
        if not history and not uploaded:
            member = companion(plan, self.settings.teacher, "/procedure/teacher")
            epochs = self._epochs(plan)
            return teacher_stage(TEACHER, member, plan.task, epochs=epochs[-1], snapshots=tuple(epochs[:-1]))
        last = history[-1] if history and history[-1].name != TEACHER else None
        before = int(last.name.removeprefix("anchor_")) if last else 0
        if before == self._count:
            return None
        number = self._after(before, last, plan)
        first = before == 0
        student = plan.student if first else replace(plan.student, initial=f"stage:{history[-1].name}")
        return Stage(
            f"anchor_{number}",
            {"student": student},
            self._anchor(number, plan),
            seed_name="distil" if first else None,  # begins as plain distillation does
            compared=self._compared(number, plan),
            **_sum(budgets[before:number]),
        )

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The finished teacher, where it was trained here."""
        return {TEACHER: f"{TEACHER}/teacher"} if self.settings.checkpoints is None else {}

    @property
    def _count(self) -> int:
        """How many anchors there are."""
        uploaded = self.settings.checkpoints
        return self.settings.anchors if uploaded is None else len(uploaded) + 1

    def _check_teacher(self, plan: Plan) -> None:
        if self.settings.checkpoints is None:
            no_given_teacher(plan)
        elif plan.teacher is None:
            raise SpecError([Problem("/teacher", "is the last anchor, after its checkpoints, and the job has none")])

    def _compared(self, number: int, plan: Plan) -> tuple[str, ...]:
        """This anchor and the later ones, where there is a choice among them."""
        if self.settings.choice == "equal" or number >= self._count - 1:
            return ()
        return tuple(self._anchor(each, plan) for each in range(number, self._count + 1))

    def _after(self, before: int, result: StageResult | None, plan: Plan) -> int:
        """The number of the anchor after one; of a stage that is only planned, the next."""
        places = self._compared(before, plan) if result else ()
        names = [kl_of("student", place) for place in places]
        kl = [result.metrics[name] for name in names if name in result.metrics] if result else []
        if not kl or len(kl) < len(places):
            return before + 1
        near = [before + ahead for ahead, each in enumerate(kl) if ahead and kl[0] >= self.settings.delta * each]
        return max(near, default=before + 1)

    def _epochs(self, plan: Plan) -> list[int]:
        """After which epochs of the teacher's training the anchors are taken."""
        total = teacher_epochs(self.settings.teacher_epochs, plan, "/procedure/teacher_epochs")
        count = self.settings.anchors
        if total < count:
            words = f"{count} anchors need at least {count} epochs of the teacher's training, not {total}"
            raise SpecError([Problem("/procedure/anchors", words)])
        return [number * total // count for number in range(1, count + 1)]

    def _anchor(self, number: int, plan: Plan) -> str:
        uploaded = self.settings.checkpoints
        if uploaded is not None:
            return f"{FILE}{uploaded[number - 1]}" if number < self._count else GIVEN
        epochs = self._epochs(plan)
        snapshot = f"@{epochs[number - 1]}" if number < len(epochs) else ""
        return f"stage:{TEACHER}/teacher{snapshot}"


def _sum(budgets: Sequence[dict[str, int]]) -> dict[str, Any]:
    return {unit: sum(budget[unit] for budget in budgets) for unit in budgets[0]}
