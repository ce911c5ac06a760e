"""Early-stopped distillation: equal to plain distillation before the stop and to plain training after it."""

from dataclasses import replace

import pytest

from tests.worker.distillation.killed_runs import same_bits
from tests.worker.distillation.procedures.plans import KD as ALONE
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import (
    KD,
    LEARNS,
    LENET,
    run_in,
    taught,
    terms_of,
    weights_of,
    with_teacher_of,
)
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.trainer.objective_weight import weight_at

STEPS = {"steps": 6}
BOTH = replace(STUDENT, objectives=({"name": "cross_entropy"}, *ALONE))


def test_before_the_stop_it_is_plain_distillation_and_after_it_the_loss_is_cross_entropy(engine_inputs, tmp_path):
    stopped, plain = (
        run_in(engine_inputs, tmp_path / name, {"name": name}, training=STEPS) for name in ("early_stopped", "direct")
    )
    losses, labels = terms_of(stopped, "loss"), terms_of(stopped, "cross_entropy/cross_entropy")
    assert losses[:3] == terms_of(plain, "loss")[:3]
    assert (
        labels[:4] == terms_of(plain, "cross_entropy/cross_entropy")[:4]
    )  # the fourth belongs to weights after three steps
    assert losses[3:] == labels[3:]
    assert len(terms_of(stopped, "kd/kd")) == 3
    assert labels[4:] != terms_of(plain, "cross_entropy/cross_entropy")[4:]
    assert not same_bits(weights_of(tmp_path / "early_stopped"), weights_of(tmp_path / "direct"))


def test_never_stopped_it_is_plain_distillation_to_the_bit(engine_inputs, tmp_path):
    run_in(engine_inputs, tmp_path / "never", {"name": "early_stopped", "stop": 1})
    run_in(engine_inputs, tmp_path / "plain", {"name": "direct"})
    assert same_bits(weights_of(tmp_path / "never"), weights_of(tmp_path / "plain"))


def test_only_what_reads_the_teacher_stops():
    (stage,), _ = stages_of(procedure_of("early_stopped", stop=0.25), plan_of(student=BOTH))
    labels, kd = stage.members["student"].objectives
    assert labels == {"name": "cross_entropy"}
    assert [weight_at(kd["weight"], progress) for progress in (0.0, 0.24, 0.25, 1.0)] == [1, 1, 0, 0]


def test_a_half_trained_teacher_teaches_and_is_kept(engine_inputs, tmp_path):
    halfway = {"name": "early_stopped", "stop": 1, "teacher": LENET, "teacher_epochs": 12, "teacher_stop": 0.8}
    done = run_in(engine_inputs, tmp_path / "half", halfway, teacher=False, training=LEARNS)
    teacher = weights_of(tmp_path / "half", "teacher")
    assert same_bits(teacher, done.checkpoints.thaw("snapshot/teacher/teacher@10"))
    assert not same_bits(teacher, done.checkpoints.thaw("stage/teacher/teacher"))
    inputs = with_teacher_of(tmp_path / "half", engine_inputs, tmp_path / "inputs")
    run_in(inputs, tmp_path / "given", {"name": "direct"}, training=LEARNS)
    assert same_bits(weights_of(tmp_path / "half"), weights_of(tmp_path / "given"))


@pytest.mark.parametrize(("stop", "snapshots", "teacher"), [
    (1.0, (), "stage:teacher/teacher"), (0.5, (5,), "stage:teacher/teacher@5"), (0.01, (1,), "stage:teacher/teacher@1"),
    (0.99, (), "stage:teacher/teacher"),
])  # fmt: skip
def test_the_epoch_at_which_the_teacher_is_taken(stop, snapshots, teacher):
    plan = plan_of(student=BOTH, teacher=None)
    (first, second), _ = stages_of(procedure_of("early_stopped", teacher=LENET, teacher_stop=stop), plan)
    assert (first.epochs, first.snapshots, first.phase, second.teacher) == (10, snapshots, "training_teacher", teacher)


@pytest.mark.parametrize(
    ("values", "teacher", "spec", "pointer"),
    [
        ({}, False, {}, "/procedure/teacher"),
        ({"teacher_stop": 0.5}, True, {}, "/procedure/teacher"),
        ({"teacher": LENET, "teacher_epochs": 2}, True, {}, "/teacher"),
        ({"teacher": LENET}, False, {}, "/procedure/teacher_epochs"),  # the job counts steps
        ({"teacher": {"network": "lenet6"}, "teacher_epochs": 2}, False, {}, "/procedure/teacher/network"),
        ({}, True, {"objectives": [KD]}, "/objectives"),
        (
            {}, True, {"objectives": [{"name": "cross_entropy"}, KD | {"weight": {"schedule": "linear", "start": 1}}]},
            "/objectives/1/weight",
        ),
    ],
)  # fmt: skip
def test_invalid_parameters_are_refused_with_their_pointer(engine_inputs, values, teacher, spec, pointer):
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, {"name": "early_stopped", **values}, teacher=teacher, **spec))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
