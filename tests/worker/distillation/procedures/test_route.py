"""Route constrained optimisation: anchors in order, and one anchor is plain distillation."""

from itertools import pairwise

import pytest

from tests.worker.distillation.killed_runs import same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import (
    HALF,
    LEARNS,
    LENET,
    run_in,
    taught,
    weights_of,
    with_teacher_of,
)
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.procedure import GIVEN

UNTAUGHT = {"teacher": None}


def test_anchors_come_in_order_at_equal_intervals_and_the_weights_are_carried_on():
    (teacher, *anchors), history = stages_of(procedure_of("route", teacher=LENET), plan_of(**UNTAUGHT, epochs=10))
    assert (teacher.epochs, teacher.snapshots, teacher.phase) == (10, (2, 5, 7), "training_teacher")
    place = "stage:teacher/teacher"
    assert [stage.teacher for stage in anchors] == [f"{place}@2", f"{place}@5", f"{place}@7", place]
    initial = [stage.members["student"].initial for stage in anchors]
    assert initial == [GIVEN, "stage:anchor_1", "stage:anchor_2", "stage:anchor_3"]
    assert [stage.epochs for stage in anchors] == [3, 3, 2, 2]  # together the job's own
    assert all(stage.members["student"].objectives == STUDENT.objectives for stage in anchors)
    assert procedure_of("route").keeps(history, plan_of(**UNTAUGHT)) == {"teacher": "teacher/teacher"}


@pytest.mark.parametrize(("anchors", "epochs"), [(1, 1), (3, 3), (4, 9), (7, 50)])
def test_every_interval_is_equal_but_for_rounding(anchors, epochs):
    plan = plan_of(**UNTAUGHT, epochs=None, steps=70)
    (teacher, *stages), _ = stages_of(procedure_of("route", anchors=anchors, teacher_epochs=epochs), plan)
    taken = [0, *teacher.snapshots, teacher.epochs]
    gaps = [after - before for before, after in pairwise(taken)]
    assert len(gaps) == len(stages) == anchors
    assert max(gaps) - min(gaps) <= 1
    assert sum(stage.steps for stage in stages) == 70


def test_with_one_anchor_it_is_plain_distillation_to_the_bit(engine_inputs, tmp_path):
    one = {"name": "route", "teacher": LENET, "teacher_epochs": 10, "anchors": 1}
    run_in(engine_inputs, tmp_path / "route", one, teacher=False, training=LEARNS)
    inputs = with_teacher_of(tmp_path / "route", engine_inputs, tmp_path / "inputs")
    run_in(inputs, tmp_path / "plain", {"name": "direct"}, training=LEARNS)
    assert same_bits(weights_of(tmp_path / "route"), weights_of(tmp_path / "plain"))


def test_the_student_learns_from_the_snapshots(engine_inputs, tmp_path):
    two = {"name": "route", "teacher": HALF, "teacher_epochs": 2, "anchors": 2}
    done = run_in(engine_inputs, tmp_path / "job", two, teacher=False)
    stages, _ = stages_of(done.lineage.procedure, done.lineage.plan)
    taught_by = [done.lineage.teacher_of(stage).network.state_dict() for stage in stages[1:]]
    parts = [done.checkpoints.thaw(part) for part in ("snapshot/teacher/teacher@1", "stage/teacher/teacher")]
    assert same_bits(taught_by[0], parts[0])
    assert same_bits(taught_by[1], parts[1])
    assert not same_bits(*parts)
    carried = done.lineage.initial(stages[2], "student").state_dict()
    assert same_bits(carried, done.checkpoints.thaw("stage/anchor_1/student"))
    assert [(result.name, result.steps) for result in done.lineage.history] == [
        ("teacher", 8), ("anchor_1", 3), ("anchor_2", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "teacher", "pointer"),
    [
        ({"teacher_epochs": 4}, True, "/teacher"),
        ({}, False, "/procedure/teacher_epochs"),  # the job counts steps
        ({"teacher_epochs": 3}, False, "/procedure/anchors"),
        ({"teacher_epochs": 9, "anchors": 6}, False, "/procedure/anchors"),  # of five steps
        ({"teacher_epochs": 4, "teacher": {"network": "lenet6"}}, False, "/procedure/teacher/network"),
    ],
)
def test_what_cannot_work_is_refused_with_its_place(engine_inputs, values, teacher, pointer):
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, {"name": "route", **values}, teacher=teacher))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
