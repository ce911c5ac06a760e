"""Source trials: which source is tried, which goes on, and what happens to a student that learns too little."""

import json
import shutil

import pytest

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.procedures.plans import plan_of, procedure_of
from worker.distillation import check, run
from worker.distillation.errors import Collapsed, SpecError
from worker.distillation.procedure import StageResult, estimate_of
from worker.distillation.procedures import source_trials
from worker.distillation.synthesis import estimate

FALLBACK = {"network": "lenet5", "options": {}}
SMALL = {
    "generator_batch": 16,
    "pool_images": 64,
    "first_batches": 1,
    "student_steps_per_batch": 2,
    "family_images": 16,
}


def plan(**values):
    return plan_of(**{"epochs": None, "steps": 100, "synthesises": True} | values)


def walk(estimates, **values):
    """The stages, and the place of the student, if stages end with these estimates in turn; None for none."""
    procedure = procedure_of("source_trials", **{"sources": ["dafl"]} | values)
    history, stages = [], []
    for found in [*estimates, None]:
        stage = procedure.next(tuple(history), plan())
        if stage is None:
            break
        stages.append(stage)
        metrics = {} if found is None else {estimate_of("student"): found}
        history.append(StageResult(stage.name, stage.steps, metrics))
    assert procedure.next(tuple(history), plan()) is None
    return stages, procedure.student_place(history, plan())


def test_the_source_with_the_highest_estimate_goes_on():
    (own, other, last), place = walk([0.5, 0.6, 0.9])
    assert [own.name, other.name, last.name] == ["trial_own", "trial_dafl", "distil"] and place == "distil/student"
    assert own.source is None and other.source == last.source == {"name": "dafl"}
    assert [own.steps, other.steps, last.steps] == [10, 10, 100]
    assert own.may_fail and other.may_fail and not last.may_fail
    assert last.seeded_by == "distil" and all(each.estimated for each in (own, other, last))
    assert last.training["learning_rate"] == 4e-3  # dafl's own
    (*_, last), _ = walk([0.6, 0.6, 0.9])
    assert last.source is None and last.training == {}


def test_a_trial_without_an_estimate_counts_as_the_worst():
    (_, _, last), _ = walk([None, 0.1, 0.9])
    assert last.source == {"name": "dafl"}
    (_, _, last), _ = walk([None, None, None])
    assert last.source is None


def test_a_low_estimate_trains_for_longer_and_then_the_fallback():
    stages, place = walk([0.5, 0.6, 0.8, 0.84, 0.7], fallback=FALLBACK)
    assert [each.name for each in stages[2:]] == ["distil", "longer", "fallback"] and place == "longer/student"
    longer, fallback = stages[3:]
    assert (longer.steps, longer.members["student"].initial) == (200, "stage:distil/student")
    assert (fallback.steps, fallback.members["student"].network) == (100, "lenet5")
    assert all(each.source == {"name": "dafl"} for each in stages[2:])
    assert walk([0.5, 0.6, 0.8, 0.84, 0.9], fallback=FALLBACK)[1] == "fallback/student"
    assert [each.name for each in walk([0.5, 0.6, 0.8, 0.84])[0][2:]] == ["distil", "longer"]
    assert walk([0.5, 0.6, 0.8, 0.79])[1] == "distil/student"
    assert [each.name for each in walk([0.5, 0.6, 0.8], least_estimate=0.8)[0][2:]] == ["distil"]


def test_a_poor_student_begins_again_from_the_second_source_and_the_better_one_goes_on():
    stages, place = walk([0.5, 0.6, 0.69, 0.75, 0.9])
    assert [each.name for each in stages[2:]] == ["distil", "again", "longer"] and place == "longer/student"
    assert [each.source for each in stages[2:]] == [{"name": "dafl"}, None, None]
    assert stages[3].members["student"].initial != "stage:distil/student" and stages[3].seeded_by == "again"
    assert stages[4].members["student"].initial == "stage:again/student"
    stages, _ = walk([0.5, 0.6, 0.69, 0.6, 0.9])
    assert stages[4].members["student"].initial == "stage:distil/student" and stages[4].source == {"name": "dafl"}
    assert [each.name for each in walk([0.5, 0.6, 0.3, 0.86])[0][2:]] == ["distil", "again"]
    assert [each.name for each in walk([0.3, 0.86], sources=[])[0]] == ["distil", "again"]
    assert [each.name for each in walk([0.5, 0.6, 0.3], least_estimate=0.2)[0][2:]] == ["distil"]


def test_without_other_sources_nothing_is_tried():
    (only,), _ = walk([0.9], sources=[])
    assert only.name == "distil" and only.source is None


def test_decisions_name_all_stages_and_the_source():
    procedure = procedure_of("source_trials")
    history = [
        StageResult("trial_own", 10, {estimate_of("student"): 0.5}),
        StageResult("trial_dafl", 3, {}),
        StageResult("distil", 100, {estimate_of("student"): 0.9}),
    ]
    assert procedure.decisions(history, plan()) == {
        "stages": [
            {"stage": "trial_own", "steps": 10, "estimate": 0.5},
            {"stage": "trial_dafl", "steps": 3, "estimate": None},
            {"stage": "distil", "steps": 100, "estimate": 0.9},
        ],
        "source": "own",
    }


@pytest.mark.parametrize(
    ("change", "pointer"), [({"synthesises": False}, "/source"), ({"steps": None, "epochs": 3}, "/training/steps")]
)
def test_it_needs_synthesised_images_and_steps(change, pointer):
    with pytest.raises(SpecError) as refused:
        procedure_of("source_trials").check(plan(**change))
    assert [each.pointer for each in refused.value.problems] == [pointer]


def job(inputs, folder, source="procedural", **more):
    if not folder.exists():
        shutil.copytree(inputs, folder)
    procedure = {"name": "source_trials", "sources": ["noise"], "trial_fraction": 0.5, "least_estimate": 1.0} | more
    source = {"name": source} | (SMALL if source == "procedural" else {})
    return job_of(folder, source=source, objectives=[{"name": "kd"}], procedure=procedure, training={"steps": 4})


@pytest.fixture
def few_images(monkeypatch):
    """Estimates from a few images, which do not warn: these short trainings teach a student nothing."""
    monkeypatch.setattr(estimate, "IMAGES", 64)
    monkeypatch.setattr(estimate, "LEAST_DRAWN", 64)
    monkeypatch.setattr(estimate, "CONFIDENT", 0.3)
    monkeypatch.setattr(estimate, "FAIR", 0.0)
    monkeypatch.setattr(source_trials, "POOR", 0.0)


def test_trials_are_estimated_and_reported(engine_inputs, tmp_path, few_images):
    made = job(engine_inputs, tmp_path / "job")
    check.check(made)
    run_whole(made)
    report = json.loads((tmp_path / "job" / "output" / "report.json").read_text())
    stages = report["procedure"]["stages"]
    assert [each["stage"] for each in stages] == ["trial_own", "trial_noise", "distil", "longer"]
    assert [each["steps"] for each in stages] == [2, 2, 4, 8]
    assert all(0 <= each["estimate"] <= 1 for each in stages)


def test_a_trial_whose_images_collapse_is_given_up(engine_inputs, tmp_path, few_images, monkeypatch):
    before = run.StageRun.advance

    def collapsing(stage_run):
        if stage_run.stage.source == {"name": "noise"} and stage_run.number == 1:
            raise Collapsed("all images are alike", "Choose another source.", False)
        before(stage_run)

    monkeypatch.setattr(run.StageRun, "advance", collapsing)
    events = run_whole(job(engine_inputs, tmp_path / "job", least_estimate=0.0))
    logged = [event["message"] for event in events if event["event"] == "log"]
    assert any("stage 'trial_noise' was given up: all images are alike" in words for words in logged)
    stages = json.loads((tmp_path / "job" / "output" / "report.json").read_text())["procedure"]["stages"]
    assert [each["steps"] for each in stages] == [2, 1, 4] and stages[1]["estimate"] is None


@pytest.mark.parametrize("at", [2, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 4, 5, 9, 13))])
def test_killed_in_any_stage_and_restored_bit_equal(at, engine_inputs, tmp_path, few_images, monkeypatch):
    monkeypatch.setattr(source_trials, "POOR", 1.0)  # a stage that begins again, in steps 9 to 12
    run_whole(job(engine_inputs, tmp_path / "whole"))
    run_killed(job(engine_inputs, tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))
