"""Route constrained optimisation: anchors in order, and one anchor is plain distillation."""

import random
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, run_killed, same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of, stages_of
from tests.worker.distillation.procedures.trained import (
    HALF,
    LEARNS,
    LENET,
    run,
    run_in,
    taught,
    weights_of,
    with_teacher_of,
)
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.procedure import GIVEN, StageResult, kl_of

UNTAUGHT = {"teacher": None}
HELD_OUT = UNTAUGHT | {"held_out": True}


def test_anchors_come_in_order_at_equal_intervals_and_the_weights_are_carried_on():
    (teacher, *anchors), history = stages_of(procedure_of("route", teacher=LENET), plan_of(**UNTAUGHT, epochs=10))
    assert (teacher.epochs, teacher.snapshots, teacher.phase) == (10, (2, 5, 7), "training_teacher")
    place = "stage:teacher/teacher"
    assert [stage.teacher for stage in anchors] == [f"{place}@2", f"{place}@5", f"{place}@7", place]
    initial = [stage.members["student"].initial for stage in anchors]
    assert initial == [GIVEN, "stage:anchor_1", "stage:anchor_2", "stage:anchor_3"]
    assert [stage.epochs for stage in anchors] == [3, 3, 2, 2]  # together the job's own
    assert all(stage.members["student"].objectives == STUDENT.objectives for stage in anchors)
    assert procedure_of("route").kept_places(history, plan_of(**UNTAUGHT)) == {"teacher": "teacher/teacher"}


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


PLACES = [f"stage:teacher/teacher@{epoch}" for epoch in (2, 4, 6, 8)] + ["stage:teacher/teacher"]


@pytest.mark.parametrize(
    ("divergences", "chosen"),
    [
        ([1.0, 1.1, 1.2, 1.25, 1.3], 4),  # 1 / 1.25 is the default delta
        ([1.0, 1.3, 1.4, 1.5, 1.6], 2),  # all much harder: takes the next
        ([1.0, 1.3, 0.9, 1.5, 1.6], 3),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 5),
        ([0.0, 0.1, 0.2, 0.3, 0.4], 2),
    ],
)
def test_greedily_the_furthest_anchor_that_is_not_much_harder(divergences, chosen):
    procedure, plan = procedure_of("route", choice="greedy", anchors=5), plan_of(**HELD_OUT, epochs=10)
    teacher = StageResult("teacher", 10, {})
    first = procedure.next((teacher,), plan)
    assert (first.name, first.compared) == ("anchor_1", tuple(PLACES))
    figures = {kl_of("student", place): value for place, value in zip(PLACES, divergences, strict=True)}
    stage = procedure.next((teacher, StageResult("anchor_1", 2, figures)), plan)
    assert (stage.name, stage.teacher) == (f"anchor_{chosen}", PLACES[chosen - 1])
    assert stage.epochs == 2 * (chosen - 1)  # with the budget of the anchors that it skips
    assert stage.members["student"].initial == "stage:anchor_1"
    assert stage.compared == (tuple(PLACES[chosen - 1 :]) if chosen < 4 else ())


@pytest.mark.parametrize("seed", range(5))
def test_greedily_the_job_s_budget_is_used_up_and_the_finished_teacher_comes_last(seed):
    draw = random.Random(seed)
    procedure, plan = procedure_of("route", choice="greedy", anchors=7), plan_of(**HELD_OUT, epochs=23)
    history, steps, stage = [StageResult("teacher", 23, {})], 0, None
    while (following := procedure.next(tuple(history), plan)) is not None:
        stage = following
        figures = {kl_of("student", place): draw.uniform(1, 1.6) for place in stage.compared}
        history.append(StageResult(stage.name, stage.epochs, figures))
        steps += stage.epochs
    assert (stage.teacher, steps) == ("stage:teacher/teacher", 23)


def test_divergences_are_measured_on_the_held_out_images(engine_inputs, tmp_path):
    greedy = {"name": "route", "teacher": HALF, "teacher_epochs": 3, "anchors": 3, "choice": "greedy", "delta": 1e-9}
    training = {"steps": 6, "validation_fraction": 0.25}
    done = run_in(engine_inputs, tmp_path / "job", greedy, teacher=False, training=training)
    assert [(result.name, result.steps) for result in done.lineage.history][1:] == [("anchor_1", 2), ("anchor_3", 4)]
    images, student = done.inputs.validation, done.lineage.network("anchor_1/student").eval()
    for place in done.lineage.procedure.next(done.lineage.history[:1], done.lineage.plan).compared:
        teacher = done.lineage.network(place.removeprefix("stage:")).eval()
        with torch.no_grad():
            q, p = (each(images.normalise(images.image)).double().softmax(1) for each in (teacher, student))
        expected = float((q * (q / p).log()).sum(1).mean())
        assert done.lineage.history[1].metrics[kl_of("student", place)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "teacher", "pointer"),
    [
        ({"teacher_epochs": 4}, True, "/teacher"),
        ({}, False, "/procedure/teacher_epochs"),  # the job counts steps
        ({"teacher_epochs": 3}, False, "/procedure/anchors"),
        ({"teacher_epochs": 9, "anchors": 6}, False, "/procedure/anchors"),  # of five steps
        ({"teacher_epochs": 4, "teacher": {"network": "lenet6"}}, False, "/procedure/teacher/network"),
        ({"teacher_epochs": 4, "choice": "greedy"}, False, "/training/validation_fraction"),
    ],
)
def test_invalid_parameters_are_refused_with_their_pointer(engine_inputs, values, teacher, pointer):
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, {"name": "route", **values}, teacher=teacher))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


UPLOADED = ("fil_1", "fil_2")
ELSEWHERE = {"name": "route", "checkpoints": list(UPLOADED)}


def with_files(job, network="lenet5"):
    """The job, with the weights files that its procedure names."""
    for seed, name in enumerate(UPLOADED):
        torch.manual_seed(seed)
        weights = networks.build(network, 4, read_contract(INPUT), {}).state_dict()
        save_file(weights, job.folder / "inputs" / f"{name}.safetensors")
    return Job({**job.values, "files": {name: f"inputs/{name}.safetensors" for name in UPLOADED}}, job.folder)


def test_uploaded_checkpoints_are_the_anchors_before_the_given_teacher():
    stages, history = stages_of(procedure_of(**ELSEWHERE), plan_of(epochs=10))
    assert [stage.teacher for stage in stages] == ["file:fil_1", "file:fil_2", GIVEN]
    assert [stage.members["student"].initial for stage in stages] == [GIVEN, "stage:anchor_1", "stage:anchor_2"]
    assert [stage.epochs for stage in stages] == [4, 3, 3]
    assert procedure_of(**ELSEWHERE).kept_places(history, plan_of()) == {}


@pytest.mark.parametrize("at", [1, 3, 5])
@pytest.mark.parametrize("choice", ["equal", "greedy"])
def test_the_student_learns_from_uploaded_checkpoints_killed_or_not(engine_inputs, tmp_path, choice, at):
    def job(name):
        folder = tmp_path / name
        shutil.copytree(engine_inputs, folder)
        training = {"steps": 5, "validation_fraction": 0.25}
        return with_files(taught(folder, {**ELSEWHERE, "choice": choice, "delta": 1e-9}, training=training))

    done = run(job("whole"))
    stages, _ = stages_of(done.lineage.procedure, done.lineage.plan)
    for name, stage in zip(UPLOADED, stages, strict=False):
        assert same_bits(done.lineage.teacher_of(stage).network.state_dict(), load_file(done.job.files[name]))
    names = [result.name for result in done.lineage.history]
    assert names == (["anchor_1", "anchor_2", "anchor_3"] if choice == "equal" else ["anchor_1", "anchor_3"])
    run_killed(job("killed"), at, tmp_path / "restored")
    assert same_bits(weights_of(tmp_path / "whole"), weights_of(tmp_path / "restored"))


def test_checkpoints_of_another_network_are_refused_before_any_step(engine_inputs, tmp_path):
    shutil.copytree(engine_inputs, tmp_path / "job")
    with pytest.raises(SpecError, match="fil_1 does not contain weights of the teacher's network") as caught:
        run(with_files(taught(tmp_path / "job", ELSEWHERE), "lenet5_half"))
    assert [problem.pointer for problem in caught.value.problems] == ["/procedure"]
    with pytest.raises(SpecError, match="not among the job's `files`"):
        run(taught(tmp_path / "job", ELSEWHERE))


def test_checkpoints_are_those_of_one_finished_teacher(engine_inputs):
    trained_here = taught(engine_inputs, ELSEWHERE, teacher=False)
    trained_here.spec["teacher"] = {"network": "lenet5"}
    for job in (taught(engine_inputs, ELSEWHERE, teacher=False), trained_here):
        with pytest.raises(SpecError) as caught:
            check(job)
        assert [problem.pointer for problem in caught.value.problems] == ["/teacher"]
