"""Architecture search: rewards, the best trained in full, a replay from the history, and a killed run."""

import shutil
from dataclasses import replace

import pytest
import torch

from tests.worker.distillation.killed_runs import run_killed, run_whole, same_bits
from tests.worker.distillation.procedures.plans import STUDENT, plan_of, procedure_of
from tests.worker.distillation.procedures.trained import HALF, report_of, run_in, taught, weights_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.procedure import GIVEN, StageResult, metric_of, milliseconds_of
from worker.distillation.trainer import stage_metrics

SPACE = [{"network": "lenet", "options": {"first": [2, 4], "hidden": [8, 16, 32]}}, {"network": "lenet5"}]
SEARCH = {"name": "architecture_search", "space": SPACE, "trials": 4, "trial_fraction": 0.5, "population": 2}
HELD_OUT = {"held_out": True}
TRAINING = {"steps": 4, "validation_fraction": 0.25}


def result(stage, accuracy, milliseconds):
    metrics = {metric_of("student", "accuracy"): accuracy, milliseconds_of("student"): milliseconds}
    return StageResult(stage.name, 1, metrics)


def searched(procedure, plan, measure):
    """The stages of a search whose trials have the results that `measure` gives for their members, and their
    history."""
    stages, history = [], []
    while (stage := procedure.next(tuple(history), plan)) is not None:
        stages.append(stage)
        history.append(result(stage, *measure(stage.members["student"])))
    return stages, history


def by_width(member):
    """Wider networks are better and slower."""
    width = member.options.get("first", 3) * member.options.get("hidden", 42)
    return min(0.99, width / 200), width / 10


def test_the_job_s_own_student_is_the_first_trial_and_the_best_is_trained_in_full():
    procedure, plan = procedure_of(**{**SEARCH, "trials": 20}), plan_of(**HELD_OUT, epochs=10)
    stages, history = searched(procedure, plan, by_width)
    *trials, final = stages
    assert len(trials) == 1 + 6 + 1  # all architectures of the space
    assert trials[0].members["student"] == replace(STUDENT, initial=None)
    assert all((stage.epochs, stage.evaluated, stage.timed) == (5, True, True) for stage in trials)
    assert all(stage.members["student"].objectives == STUDENT.objectives for stage in trials)
    assert all(stage.members["student"].transforms == STUDENT.transforms for stage in trials)
    target = by_width(STUDENT)[1]
    rewards = []
    for stage in trials:
        accuracy, milliseconds = by_width(stage.members["student"])
        rewards.append(accuracy * (milliseconds / target) ** -0.07)
    best = trials[rewards.index(max(rewards))].members["student"]
    assert final.members["student"] == (best if final.members["student"].initial is None else STUDENT)
    assert (final.name, final.epochs, final.evaluated) == ("distil", 10, False)
    assert procedure.student_place(history, plan) == "distil/student"
    decisions = procedure.decisions(history, plan)
    assert [row["reward"] for row in decisions["trials"]] == pytest.approx(rewards)
    assert decisions["best"] == trials[rewards.index(max(rewards))].name
    assert decisions["target_milliseconds"] == target


@pytest.mark.parametrize(("exponent", "chosen"), [(0, "slow"), (-0.07, "slow"), (-2, "fast")])
def test_what_latency_weighs_decides(exponent, chosen):
    space = [{"network": "lenet", "options": {"hidden": [8, 80]}}]
    procedure = procedure_of("architecture_search", space=space, latency_exponent=exponent, target_milliseconds=1.0)
    measured = {8: (0.8, 1.0), 80: (0.9, 2.0), None: (0.1, 1.0)}
    stages, _ = searched(procedure, plan_of(**HELD_OUT), lambda member: measured[member.options.get("hidden")])
    assert stages[-1].members["student"].options == {"hidden": {"fast": 8, "slow": 80}[chosen]}


def test_a_student_that_nothing_beats_is_trained_from_its_given_weights():
    plan = plan_of(**HELD_OUT)
    stages, _ = searched(procedure_of(**SEARCH), plan, lambda member: (float(member.network == "lenet5_half"), 1.0))
    assert stages[-1].members["student"] == STUDENT and STUDENT.initial == GIVEN


def test_a_replay_of_the_history_gives_the_same_stages():
    plan = plan_of(**HELD_OUT)
    stages, history = searched(procedure_of(**SEARCH), plan, by_width)
    again = [procedure_of(**SEARCH).next(tuple(history[:count]), plan) for count in reversed(range(len(history) + 1))]
    assert again == [None, *reversed(stages)]


def test_without_a_space_there_are_residual_networks(engine_inputs):
    procedure, plan = procedure_of("architecture_search", trials=8), plan_of(**HELD_OUT)
    stages, _ = searched(procedure, plan, lambda member: (0.5, 1.0))
    assert {stage.members["student"].network for stage in stages[1:8]} == {"resnet_cifar"}
    assert check(taught(engine_inputs, {"name": "architecture_search", "trials": 2}, training=TRAINING))["stages"] == [
        "trial_1", "trial_2", "distil",
    ]  # fmt: skip


def test_before_the_end_the_best_trial_is_the_student():
    procedure, plan = procedure_of(**SEARCH), plan_of(**HELD_OUT)
    stages, _ = searched(procedure, plan, by_width)
    history = [result(stages[0], 0.5, 1.0), result(stages[1], 0.9, 1.0), result(stages[2], 0.7, 1.0)]
    assert procedure.student_place(history, plan) == "trial_2/student"


@pytest.fixture
def clock(monkeypatch):
    """Latencies of one millisecond for every thousand parameters."""

    def latency(network, contract, threads):
        return {"milliseconds": sum(each.numel() for each in network.parameters()) / 1000}

    monkeypatch.setattr(stage_metrics, "latency", latency)


def test_trials_are_measured_and_the_report_shows_them_all(engine_inputs, tmp_path, clock):
    done = run_in(engine_inputs, tmp_path / "job", SEARCH, training=TRAINING)
    report = report_of(tmp_path / "job")
    decisions = report["procedure"]
    assert [row["stage"] for row in decisions["trials"]] == ["trial_1", "trial_2", "trial_3", "trial_4"]
    assert decisions["architectures"] == 7
    for row in decisions["trials"]:
        network = done.lineage.network(f"{row['stage']}/student").eval()
        assert row["latency_milliseconds"] == sum(each.numel() for each in network.parameters()) / 1000
        images = done.inputs.validation
        with torch.no_grad():
            right = network(images.normalise(images.image)).argmax(1) == images.label
        assert row["accuracy"] == pytest.approx(right.double().mean().item())
        reward = row["accuracy"] * (row["latency_milliseconds"] / decisions["target_milliseconds"]) ** -0.07
        assert row["reward"] == pytest.approx(reward)
    best = next(row for row in decisions["trials"] if row["stage"] == decisions["best"])
    assert (report["student"]["network"], done.lineage.member("distil/student").options) == (
        best["network"],
        best["options"],
    )
    assert [(each.name, each.steps) for each in done.lineage.history] == [(f"trial_{n}", 2) for n in range(1, 5)] + [
        ("distil", 4)
    ]


def test_latency_is_measured_by_default(engine_inputs, tmp_path):
    threads = torch.get_num_threads()
    run_in(engine_inputs, tmp_path / "job", {**SEARCH, "trials": 2}, training=TRAINING)
    assert all(0 < row["latency_milliseconds"] < 1000 for row in report_of(tmp_path / "job")["procedure"]["trials"])
    assert torch.get_num_threads() == threads


@pytest.fixture(scope="module")
def undisturbed():
    return {}


@pytest.mark.parametrize("at", range(1, 13))
def test_killed_in_and_between_trials_and_restored_bit_equal(at, engine_inputs, tmp_path, clock, undisturbed):
    def job(folder):
        return taught(folder, SEARCH, student=dict(HALF), training=TRAINING)

    if not undisturbed:
        shutil.copytree(engine_inputs, tmp_path / "whole")
        run_whole(job(tmp_path / "whole"))
        undisturbed.update(weights=weights_of(tmp_path / "whole"), decisions=report_of(tmp_path / "whole")["procedure"])
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job(tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(undisturbed["weights"], weights_of(tmp_path / "restored"))
    assert report_of(tmp_path / "restored")["procedure"] == undisturbed["decisions"]


@pytest.mark.parametrize(
    ("space", "training", "pointer"),
    [
        (SPACE, {}, "/training/validation_fraction"),
        ([{"network": "lenet6"}], TRAINING, "/procedure/space/0/network"),
        (
            [{"network": "lenet5"}, {"network": "lenet", "options": {"first": [3, 0]}}],
            TRAINING,
            "/procedure/space/1/options/first",
        ),
        (
            [{"network": "lenet", "options": {"hidden": [8], "depth": [3]}}],
            TRAINING,
            "/procedure/space/0/options/depth",
        ),
        ([{"network": "lenet", "options": {"hidden": 8}}], TRAINING, "/procedure/space"),
        ([{"network": "lenet", "options": {"hidden": []}}], TRAINING, "/procedure/space"),
        ([], TRAINING, "/procedure/space"),
        ([{"network": "mlp"}], TRAINING | {"objectives": "nst"}, "/objectives/0/taps"),
    ],
)
def test_invalid_parameters_are_refused_before_any_trial(engine_inputs, space, training, pointer):
    training = dict(training)
    spec = {"objectives": [{"name": training.pop("objectives")}]} if "objectives" in training else {}
    with pytest.raises(SpecError) as caught:
        check(taught(engine_inputs, {**SEARCH, "space": space}, training=training, **spec))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
