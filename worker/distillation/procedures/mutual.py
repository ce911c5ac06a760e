"""Deep mutual learning: a cohort of networks that train together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Items, NetworkChoice, Range
from worker.distillation.planning.stages import companion
from worker.distillation.procedure import Plan, Procedure, Stage, StageResult

STAGE = "distil"


class Mutual(Procedure):
    """The student and its peers train together on the same batches, each on all of the job's objectives.

    Zhang, Xiang, Hospedales, Lu, "Deep mutual learning", arXiv:1706.00384. The objective `mutual` compares the members.
    If the job has a teacher, all members have it. `sequential` is the paper's algorithm 1: the networks are updated in
    turn, and each reads its predecessors' predictions after their update; with `simultaneous`, all read the predictions
    from before. The authors' code (YingZhangDUT/Deep-Mutual-Learning) draws a new batch for every network; here all
    read the same images.
    """

    paper = "arXiv:1706.00384"
    cohort = True
    objective_defaults = ({"name": "cross_entropy", "weight": 1.0}, {"name": "mutual", "weight": 1.0})

    @dataclass(frozen=True)
    class Parameters:
        """The members of the cohort."""

        peers: Annotated[
            tuple[NetworkChoice, ...] | None,
            Items(least=1, most=15),
            "Networks of the peers, in order. If null: one more of the student's own.",
        ] = None
        update: Annotated[
            Literal["sequential", "simultaneous"],
            "Whether each network reads its predecessors' predictions after their update, or before it.",
        ] = "sequential"
        student_member: Annotated[
            int, Range(ge=0), "Index of the member that becomes the job's student: 0 the student, 1 the first peer, ..."
        ] = 0

    def next(self, history: Sequence[StageResult], plan: Plan) -> Stage | None:
        if history:
            return None
        peers = self._peers()
        if self.settings.student_member > len(peers):
            raise SpecError(
                [Problem("/procedure/student_member", f"must be at most {len(peers)}, the number of peers")]
            )
        members = {"student": plan.student}
        for index, choice in enumerate(peers):
            members[f"peer_{index + 1}"] = companion(plan, choice, f"/procedure/peers/{index}")
        return Stage(STAGE, members, plan.teacher, epochs=plan.epochs, steps=plan.steps, update=self.settings.update)

    def student_place(self, history: Sequence[StageResult], plan: Plan) -> str:
        return f"{STAGE}/{self._names()[self.settings.student_member]}"

    def kept_places(self, history: Sequence[StageResult], plan: Plan) -> dict[str, str]:
        """All other members of the cohort: `peer_1`, ..., and `cohort_student` if a peer becomes the job's student."""
        others = [name for index, name in enumerate(self._names()) if index != self.settings.student_member]
        return {"cohort_student" if name == "student" else name: f"{STAGE}/{name}" for name in others}

    def _peers(self) -> tuple[NetworkChoice | None, ...]:
        return (None,) if self.settings.peers is None else self.settings.peers

    def _names(self) -> list[str]:
        return ["student", *(f"peer_{number}" for number in range(1, len(self._peers()) + 1))]
