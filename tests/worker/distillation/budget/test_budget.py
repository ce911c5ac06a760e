"""Students within a budget: the largest that fits is chosen when the spec is checked, and measured again when it is finished."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole, with_residual_teacher
from tests.worker.distillation.procedures.trained import report_of
from worker.distillation import networks
from worker.distillation.budget import search
from worker.distillation.budget.candidates import STEPS, Candidate, with_changes
from worker.distillation.budget.limits import Budget, budget_of
from worker.distillation.budget.search import Search, planned
from worker.distillation.budget.trial import BYTES_PART, TIME_PART, Trial, layers_of, least_bytes, measure
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.transforms.int8 import Int8

KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
RGB = {"channels": 3, "height": 32, "width": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def job_with(folder, budget, student=None, **spec) -> Job:
    """A job whose student has a budget, as it is read from its file."""
    student = {"like": "teacher", "width": 1.0} if student is None else student
    job = job_of(folder, student={**student, "budget": budget}, objectives=KD, **spec)
    (folder / "job.json").write_text(json.dumps({**job.values}))
    return Job.read(folder / "job.json")


def finished(job: Job, facts) -> dict:
    """The report of the job with the student that its check has chosen."""
    changes = {name: facts["chosen"][name] for name in ("student", "transforms")}
    run_whole(with_changes(job, changes))
    return report_of(job.folder)


def test_the_largest_student_whose_file_is_small_enough(folder):
    budget = {"file": "safetensors", "bytes": 50_000, "allow": ["width"]}
    job = job_with(folder, budget)
    facts = check(job)
    chosen = facts["chosen"]["student"]
    step = chosen["budget"]["chosen"]["step"]
    assert chosen["width"] == step / STEPS and 0 < step < STEPS
    (folder / "budget").mkdir()
    limit = BYTES_PART * budget["bytes"]
    own, next_one = (
        measure(Candidate(way="width", step=each), job, budget_of(job.spec["student"]), folder / "budget").bytes
        for each in (step, step + 1)
    )
    assert own <= limit < next_one and own == chosen["budget"]["chosen"]["bytes"]
    assert facts["student"]["parameters"] * 4 < own
    report = finished(job, facts)
    found = report["budget"]
    assert found["kept"] and found["bytes"] == (folder / "output" / "student.safetensors").stat().st_size <= 50_000
    assert found["bytes"] == pytest.approx(own, rel=0.01) and found["limits"] == {"bytes": 50_000, "milliseconds": None}
    assert "## Budget" in (folder / "output" / "README.md").read_text()


def test_a_student_that_fits_stays_as_it_is(folder):
    facts = check(job_with(folder, {"file": "safetensors", "bytes": 10_000_000}))
    assert facts["chosen"]["student"].keys() == {"budget"} and facts["chosen"]["transforms"] == []
    assert facts["student"]["parameters"] == facts["teacher"]["parameters"]


@pytest.mark.parametrize("way", ["prune_channels", "factorise"])
def test_named_students_lose_channels_or_parameters(folder, way):
    student = {"network": "lenet5", "options": {}}
    job = job_with(folder, {"file": "safetensors", "bytes": 50_000, "allow": [way]}, student)
    facts = check(job)
    (transform,) = facts["chosen"]["transforms"]
    assert transform["name"] == way and 0 < transform["keep"] < 1
    report = finished(job, facts)
    assert report["budget"]["kept"] and report["budget"]["bytes"] > 40_000
    assert report["budget"]["planned"]["way"] == way


def test_what_cannot_be_reached_is_refused_with_what_can(folder):
    with pytest.raises(SpecError) as refused:
        check(job_with(folder, {"file": "safetensors", "bytes": 700, "allow": ["width"]}))
    (problem,) = refused.value.problems
    assert problem.pointer == "/student/budget/bytes"
    assert "the smallest is 1 of 32 parts of the channels (width): its file has" in problem.message
    least = int(problem.message.partition("has ")[2].partition(" bytes")[0].replace(",", ""))
    assert check(job_with(folder, {"file": "safetensors", "bytes": int(least / BYTES_PART) + 1, "allow": ["width"]}))


def test_a_transform_that_does_not_fit_the_network_is_refused(folder, monkeypatch):
    student = {"network": "mlp", "options": {"hidden": []}}
    with pytest.raises(SpecError) as refused:
        check(job_with(folder, {"file": "safetensors", "bytes": 700, "allow": ["prune_channels"]}, student))
    assert "has what this network does not take" in refused.value.problems[0].message


@pytest.mark.parametrize(
    ("budget", "pointer"),
    [
        ({"file": "onnx"}, "/student/budget"),
        ({"file": "safetensors", "bytes": 9000, "milliseconds": 1.0}, "/student/budget/milliseconds"),
        ({"bytes": 9000, "allow": ["int8", "int8"]}, "/student/budget/allow"),
        ({"bytes": 9000, "allow": ["quantise"]}, "/student/budget/allow"),
        ({"bytes": 0}, "/student/budget/bytes"),
        ({"bytes": 9000, "more": 1}, "/student/budget/more"),
    ],
)
def test_budgets_that_say_nothing(folder, budget, pointer):
    with pytest.raises(SpecError) as refused:
        check(job_with(folder, budget))
    assert [problem.pointer for problem in refused.value.problems] == [pointer]


def test_a_transform_twice_is_refused(folder):
    int8 = {"name": "int8"}
    with pytest.raises(SpecError, match="is among the job's `transforms` already"):
        check(job_with(folder, {"bytes": 900, "allow": ["int8"]}, transforms=[int8]))


def test_a_job_runs_only_with_a_chosen_student(folder):
    with pytest.raises(SpecError, match="has no student yet"):
        run_whole(job_with(folder, {"file": "safetensors", "bytes": 50_000}))


def test_transforms_are_added_in_their_order_with_all_parameters(folder):
    spec = {"student": {"network": "lenet5"}, "transforms": [{"name": "prune"}]}
    changes = Candidate(rounded=True, way="factorise", step=8).changes(spec)
    assert [each["name"] for each in changes["transforms"]] == ["factorise", "prune", "int8"]
    assert changes["transforms"][0]["keep"] == 0.25 and changes["transforms"][2] == {
        "name": "int8",
        **asdict(Int8.Parameters()),
    }


def test_weights_that_are_too_large_are_not_written(folder):
    job = job_with(folder, {"file": "safetensors", "bytes": 50_000, "allow": ["width"]})
    found = Search(job, budget_of(job.spec["student"]))
    lower = least_bytes(layers_of(Candidate(), job), Candidate(), found.budget)
    weights = networks.build("lenet5", 4, read_contract(INPUT), {}).state_dict()
    assert lower == 4 * sum(tensor.numel() for name, tensor in weights.items() if name.endswith("weight")) > 50_000
    (folder / "budget").mkdir()
    found.run()
    assert all(trial.candidate.way == "width" for trial in found.tried)
    assert len(found.tried) < STEPS / 4


def test_a_teacher_and_the_layers_of_a_student_are_built_once(folder, monkeypatch):
    job = job_with(folder, {"file": "safetensors", "bytes": 50_000, "allow": ["width"]})
    teachers, students = [], []
    build, layers = Job.build_teacher, search.layers_of
    monkeypatch.setattr(Job, "build_teacher", lambda self, device: teachers.append(device) or build(self, device))
    monkeypatch.setattr(search, "layers_of", lambda each, job: students.append(each) or layers(each, job))
    assert check(job)["chosen"]["student"]["width"] < 1
    assert len(teachers) == 1 and len(set(students)) == len(students) > 2


def test_room_to_spare():
    budget = Budget(bytes=1000, milliseconds=2.0)
    assert Trial(Candidate(), 990, 1.8).fits(budget)
    assert not Trial(Candidate(), 991, 1.8).fits(budget) and not Trial(Candidate(), 990, 1.81).fits(budget)
    assert TIME_PART == 0.9 and not Trial(Candidate(), 10).fits(budget)


def test_planned_budgets_are_not_planned_again(folder):
    job = job_with(folder, {"file": "safetensors", "bytes": 50_000, "chosen": {"step": 3}})
    assert planned(job) is None and "chosen" not in check(job)


@pytest.mark.slow
def test_integers_come_first_and_the_file_is_timed(engine_inputs, tmp_path):
    """A ResNet-8 in float32 has twice the bytes; in integers it fits as it is, and is published."""
    folder = with_residual_teacher(engine_inputs, tmp_path / "job")
    budget = {"bytes": 140_000, "milliseconds": 200.0, "batch": 2, "allow": ["int8", "width"]}
    job = job_with(folder, budget, exports=["safetensors", "onnx"], training={"steps": 30, "optimizer": "adam"})
    job.values["teacher"]["network"] = "resnet8_cifar"
    job = Job.of(
        {**job.values, "spec": {**job.spec, "student": {"like": "teacher", "width": 1.0, "budget": budget}}}, folder
    )
    facts = check(job)
    assert [each["name"] for each in facts["chosen"]["transforms"]] == ["int8"]
    chosen = facts["chosen"]["student"]["budget"]["chosen"]
    assert chosen["way"] is None and chosen["rounded"] and 0 < chosen["milliseconds"] < 200
    report = finished(job, facts)
    assert report["budget"]["kept"] and report["budget"]["bytes"] == pytest.approx(chosen["bytes"], rel=0.01)
    assert report["budget"]["milliseconds"] > 0 and report["budget"]["batch"] == 2


@pytest.mark.slow
def test_200_kilobytes_and_2_milliseconds_of_a_cifar_sized_teacher(tmp_path):
    """A ResNet-20 has 1.1 MB in float32 and about 310 KB in integers: it loses channels as well."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    draw = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (64, 3, 32, 32), generator=draw, dtype=torch.uint8)
    torch.manual_seed(0)
    teacher = networks.build("resnet20_cifar", 10, read_contract(RGB), {})
    save_file(teacher.state_dict(), inputs / "teacher.safetensors")
    mean, std = (torch.tensor(RGB[name]).view(-1, 1, 1) for name in ("mean", "std"))
    label = teacher.eval()((image / 255 - mean) / std).argmax(1)  # a teacher at chance level would be refused
    save_file({"train.image": image, "train.label": label}, inputs / "dataset.safetensors")
    spec = {"student": {"like": "teacher", "width": 1.0}, "exports": ["onnx"], "training": {"steps": 4}}
    base = job_of(tmp_path, classes=10, **spec, objectives=KD, contract="trust")
    base.values["teacher"].update(network="resnet20_cifar", input=RGB)

    def with_budget(**limits):
        student = {**spec["student"], "budget": {"allow": ["int8", "width"], **limits}}
        return Job.of({**base.values, "spec": {**base.spec, "student": student}}, tmp_path)

    job = with_budget(bytes=200_000, milliseconds=50.0)  # a busy machine is slower
    facts = check(job)
    chosen = facts["chosen"]["student"]["budget"]["chosen"]
    assert chosen["rounded"] and chosen["way"] == "width" and 0.6 < facts["chosen"]["student"]["width"] < 1
    assert 140_000 < chosen["bytes"] <= 198_000 and chosen["milliseconds"] <= 45
    report = finished(job, facts)
    assert report["budget"]["bytes"] <= 200_000 and report["budget"]["milliseconds"] > 0
    with pytest.raises(SpecError) as refused:
        check(with_budget(bytes=2_000, milliseconds=0.001))
    places = {problem.pointer: problem.message for problem in refused.value.problems}
    assert set(places) == {"/student/budget/bytes", "/student/budget/milliseconds"}
    assert "the smallest is 1 of 32 parts" in places["/student/budget/bytes"]


def test_the_event_of_a_check_has_what_was_chosen(folder, capsys):
    """The engine's command says it to whoever runs it."""
    from worker.distillation.__main__ import perform

    job = job_with(folder, {"file": "safetensors", "bytes": 50_000, "allow": ["width"]})
    event, fields = perform(Job({**job.values, "kind": "check"}, folder), None, None)
    assert event == "checked" and fields["facts"]["chosen"]["reasons"]["/student/width"].startswith("the largest")
    json.dumps(fields)
    assert not (folder / "budget").exists()
