import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.programs.samples import Residual, learnt, of
from worker.distillation.check import check
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.programs import is_program, load
from worker.distillation.programs.packing import pack

FILE = "fil_1"
STUDENT = {"network": "program", "options": {}, "program": FILE}
OBJECTIVES = [
    {"name": "cross_entropy", "weight": 1.0},
    {"name": "kd", "weight": 1.0, "temperature": 4},
    {"name": "attention_transfer", "weight": 1.0},
]
CONTRACT = {"channels": 1, "height": 16, "width": 16, "mean": INPUT["mean"], "std": INPUT["std"]}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    """Inputs with a program as the teacher, and another that students are built of."""
    shutil.copytree(engine_inputs, tmp_path / "job")
    inputs = tmp_path / "job" / "inputs"
    teacher = learnt(of(Residual, 1, channels=1, width=16, classes=4), inputs / "dataset.safetensors")
    pack(teacher, inputs / "net.safetensors", **CONTRACT)
    pack(of(Residual, 2, channels=1, width=8, classes=4), inputs / "student.safetensors", **CONTRACT, train=True)
    return tmp_path / "job"


def program_job(folder, **spec):
    job = job_of(folder, **{"student": STUDENT, "objectives": OBJECTIVES} | spec)
    teacher = {"network": "program", "program": "inputs/net.safetensors"}
    values = {**job.values, "teacher": teacher, "files": {FILE: "inputs/student.safetensors"}}
    (folder / "job.json").write_text(json.dumps(values))
    return Job.read(folder / "job.json")


def test_the_job_file_takes_classes_and_contract_from_the_program(folder):
    job = program_job(folder)
    assert (job.classes, job.contract.channels, job.contract.mean) == (4, 1, (0.5,))


def test_a_program_teaches_a_program_and_a_kill_changes_nothing(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "killed")
    run_whole(program_job(folder))
    run_killed(program_job(tmp_path / "killed"), 3, tmp_path / "elsewhere")
    assert same_bits(student_of(folder), student_of(tmp_path / "elsewhere"))
    fresh = load(folder / "inputs" / "student.safetensors").state_dict()
    assert not any(torch.equal(each, fresh[name]) for name, each in student_of(folder).items() if "conv" in name)


def test_the_student_ships_as_a_program_that_can_teach(folder):
    events = run_whole(program_job(folder, exports=["safetensors", "program"]))
    names = [event["name"] for event in events if event["event"] == "artifact"]
    assert {"student.safetensors", "student.program.safetensors", "student.py"} <= set(names)
    for name in ("student.safetensors", "student.program.safetensors"):
        path = folder / "output" / name
        assert is_program(path)
        assert same_bits(load(path).state_dict(), load_file(path))
    shutil.copy(folder / "output" / "student.safetensors", folder / "inputs" / "net.safetensors")
    again = program_job(folder).build_teacher(torch.device("cpu"))
    assert same_bits(dict(again.state_dict()), student_of(folder))
    assert check(program_job(folder))["teacher"] == {"parameters": sum(each.numel() for each in again.parameters())}


def test_a_named_student_ships_as_a_program(folder):
    run_whole(program_job(folder, student={"network": "lenet5_half", "options": {}}, exports=["safetensors", "program"],
                          objectives=OBJECTIVES[:2]))  # fmt: skip
    network = load(folder / "output" / "student.program.safetensors").eval()
    assert same_bits(dict(network.state_dict()), student_of(folder))


def test_statistics_of_batch_norm_are_found_in_a_program(folder):
    source = {"name": "deep_inversion", "generator_batch": 8, "iterations": 3, "initial_rounds": 1, "rounds": 1}
    job = program_job(folder, source=source, objectives=OBJECTIVES[1:2])
    assert check(job)["teacher"]["parameters"] > 0
    run_whole(job)


def test_the_check_builds_programs_without_weights(folder):
    facts = check(program_job(folder))
    assert facts["student"]["parameters"] == sum(
        each.numel() for each in of(Residual, channels=1, classes=4).parameters()
    )


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"student": STUDENT | {"program": "fil_2"}}, "/student/program", "not among"),
        ({"student": STUDENT | {"classes": 7}}, "/student/program", "gives 4 outputs"),
    ],
)
def test_a_student_that_does_not_fit_is_refused(folder, change, pointer, words):
    with pytest.raises(SpecError) as caught:
        check(program_job(folder, **change))
    assert [(problem.pointer, words in problem.message) for problem in caught.value.problems] == [(pointer, True)]


def test_a_program_without_training_mode_is_no_student(folder):
    pack(of(Residual, channels=1, classes=4), folder / "inputs" / "student.safetensors", **CONTRACT)
    with pytest.raises(SpecError, match="no graph of training mode"):
        check(program_job(folder))
