"""A teacher that the job trains first gives the same student as an uploaded one."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.trainer.deadline import TimeLimit

LEARNS = {"network": "lenet5", "options": {}, "training": {"epochs": 2, "steps": None, "learning_rate": 0.02}}
LEARNT = LEARNS | {"training": {"epochs": 20, "optimizer": "adam", "learning_rate": 3e-3}}
STUDENT = {"network": "lenet5_half", "options": {}, "classes": 4, "input": INPUT}
TAUGHT = {"objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]}
PROCEDURES = {
    "direct": {},
    "two_stage": {"procedure": {"name": "two_stage", "first": [{"name": "hint", "taps": [["maxpool2", "maxpool2"]]}]}},
    "assistant": {"procedure": {"name": "assistant", "assistants": [{"network": "lenet5_half", "options": {}}]}},
}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def first_job(folder, teacher=LEARNS, **spec):
    job = job_of(folder, **({"teacher": teacher, "student": STUDENT} | TAUGHT | spec))
    return replace(job, values={**job.values, "teacher": None, "evaluation": "inputs/dataset.safetensors"})


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_it_teaches_as_if_it_had_been_given(folder, tmp_path, procedure):
    """The student is bit-equal to that of a job whose teacher is the first stage's result."""
    spec = PROCEDURES[procedure]
    run_whole(first_job(folder, LEARNT, **spec))
    shutil.copytree(folder / "inputs", tmp_path / "given" / "inputs")
    shutil.copy(folder / "output" / "teacher.safetensors", tmp_path / "given" / "inputs" / "teacher.safetensors")
    run_whole(job_of(tmp_path / "given", **(TAUGHT | spec)))
    assert same_bits(student_of(folder), student_of(tmp_path / "given"))


@pytest.mark.parametrize("at", [1, 4, 8, 9, 12, 13])
def test_killed_in_either_stage_and_restored_bit_equal(folder, tmp_path, at):
    shutil.copytree(folder, tmp_path / "killed")
    run_whole(first_job(folder))  # eight steps of the teacher, five of the student
    run_killed(first_job(tmp_path / "killed"), at, tmp_path / "restored")
    assert same_bits(student_of(folder), student_of(tmp_path / "restored"))
    for name in (folder, tmp_path / "restored"):
        assert same_bits(
            load_file(folder / "output" / "teacher.safetensors"), load_file(name / "output" / "teacher.safetensors")
        )


def test_the_report_has_the_teacher_and_its_metrics(folder):
    events = run_whole(first_job(folder, training={"steps": None, "epochs": 8}))
    assert [event["phase"] for event in events if event["event"] == "phase"][:2] == ["training_teacher", "distilling"]
    report = json.loads((folder / "output" / "report.json").read_text())
    assert report["teacher"]["network"] == "lenet5"
    assert report["teacher"]["file_bytes"] == (folder / "output" / "teacher.safetensors").stat().st_size
    assert report["evaluation"]["teacher"]["accuracy"] == report["kept"][0]["evaluation"]["accuracy"]
    assert report["kept"][0]["name"] == "teacher" and report["evaluation"]["student"]["agreement"] is not None
    assert [stage["steps"] for stage in report["stages"]] == [8, 32]


def test_the_check_builds_both_stages(tmp_path):
    facts = check(first_job(tmp_path, {"network": "lenet5"}))
    assert facts["stages"][0] == "given_teacher" and len(facts["stages"]) == 2


def test_a_network_that_is_none_is_pointed_at(tmp_path):
    with pytest.raises(SpecError) as caught:
        check(first_job(tmp_path, {"network": "lenet55"}))
    assert {problem.pointer for problem in caught.value.problems} == {"/teacher/network"}


def test_a_procedure_that_trains_a_teacher_of_its_own_refuses_another(tmp_path):
    own = {"name": "early_stopped", "teacher": {"network": "lenet5", "options": {}}}
    with pytest.raises(SpecError) as caught:
        check(first_job(tmp_path, procedure=own, training={"steps": None, "epochs": 2}))
    assert {problem.pointer for problem in caught.value.problems} == {"/teacher"}


def test_when_time_is_up_before_the_student_has_trained_there_is_none(folder):
    with pytest.raises(TimeLimit):
        run_whole(first_job(folder, training={"time_limit_minutes": 1e-9}))
