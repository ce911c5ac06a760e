"""Route constrained optimisation: the student follows the course of the teacher's training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Items, NetworkChoice, Range, WeightsFile
from worker.distillation.planning.stages import companion, no_given_teacher, split_budget, teacher_epochs, teacher_stage
from worker.distillation.procedure import FILE, GIVEN, Plan, Procedure, ProcedureNeeds, Stage, StageResult, kl_of

TEACHER = "teacher"


class Route(Procedure):
    """Trains a teacher that leaves snapshots at equal intervals, the anchors; the student learns from them in turn,
    from easy to hard.

    Jin et al., "Knowledge distillation via route constrained optimization", arXiv:1904.09149. With the choice `equal`
    the student learns from every anchor; the last is the finished teacher. With `greedy` it starts with the first
    anchor. It then takes the furthest anchor that is not much harder than the current one, or else the next one.
    Hardness is the divergence of the anchor from the student's predictions on held-out images; an anchor is not much
    harder if the current anchor's divergence is at least `delta` times that anchor's. The student keeps its weights
    from anchor to anchor, while its optimiser and its learning rate start anew. The comparison of hardness, `delta`,
    and the equal division of the job's budget among the anchors are ours; the budget of skipped anchors goes to the
    next anchor used. With one anchor, the result is bit-equal to plain distillation from the finished teacher. If the
    teacher was trained elsewhere, its uploaded `checkpoints` are the anchors, and the job's teacher the last one.
    """

    paper = "arXiv:1904.09149"
    own_teacher = True
    when = {("choice", "greedy"): {"needs": ProcedureNeeds(held_out_images=True, tasks=("classification",))}}

    @dataclass(frozen=True)
    class Parameters:
        """The teacher, and the choice of its anchors."""

        teacher: Annotated[
            NetworkChoice | None,
            "Network of the teacher that is trained first, on labels. If null: one like the student's.",
        ] = None
        teacher_epochs: Annotated[
            int | None, Range(ge=1), "Number of epochs for which it trains. If null: the job's number of epochs."
        ] = None
        anchors: Annotated[
            int,
            Range(ge=1, le=50),
            "Number of snapshots of the teacher, including the finished one, from which the student may learn.",
        ] = 4
        checkpoints: Annotated[
            tuple[WeightsFile, ...] | None,
            Items(least=1, most=49),
            "Files of earlier weights of the job's teacher, from easy to hard. If null: the procedure trains a teacher.",
        ] = None
        choice: Annotated[
            Literal["equal", "greedy"],
            "Learn from all anchors (`equal`), or skip ahead to the furthest that is not much harder than the current one "
            "(`greedy`), which needs training/validation_fraction.",
        ] = "equal"
        delta: Annotated[
            float,
            Range(gt=0, le=1),
            "Minimum ratio of the student's divergence from its last anchor to that from a later anchor, for the "
            "later one to be used next. The default is ours.",
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
            seed_name="distil" if first else None,  # seeded like plain distillation
            compared=self._compared(number, plan),
            **_sum(budgets[before:number]),
        )

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """The finished teacher, if the procedure trained it."""
        return {TEACHER: f"{TEACHER}/teacher"} if self.settings.checkpoints is None else {}

    @property
    def _count(self) -> int:
        """The number of anchors."""
        uploaded = self.settings.checkpoints
        return self.settings.anchors if uploaded is None else len(uploaded) + 1

    def _check_teacher(self, plan: Plan) -> None:
        if self.settings.checkpoints is None:
            no_given_teacher(plan)
        elif plan.teacher is None:
            raise SpecError([Problem("/teacher", "is required: it is the last anchor, after its checkpoints")])

    def _compared(self, number: int, plan: Plan) -> tuple[str, ...]:
        """This anchor and the later ones, if there is a choice among them."""
        if self.settings.choice == "equal" or number >= self._count - 1:
            return ()
        return tuple(self._anchor(each, plan) for each in range(number, self._count + 1))

    def _after(self, before: int, result: StageResult | None, plan: Plan) -> int:
        """The number of the anchor after `before`. After a stage that is only planned, it is the next one."""
        places = self._compared(before, plan) if result else ()
        names = [kl_of("student", place) for place in places]
        kl = [result.metrics[name] for name in names if name in result.metrics] if result else []
        if not kl or len(kl) < len(places):
            return before + 1
        near = [before + ahead for ahead, each in enumerate(kl) if ahead and kl[0] >= self.settings.delta * each]
        return max(near, default=before + 1)

    def _epochs(self, plan: Plan) -> list[int]:
        """The epochs of the teacher's training after which the anchors are taken."""
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
