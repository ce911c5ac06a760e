"""Runs of every task except classification, which all other tests cover: whole, killed and restored, refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.procedures.plans import STUDENT, plan_of
from worker.distillation import networks, registry
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.objectives.ground_truth.triplet import batch_hard
from worker.distillation.parameters import NetworkChoice
from worker.distillation.task import DENSE_TASKS, EVERY_TASK, MAP_TASKS

SAMPLES, STRIPES = 64, 4
TRAINING = {"epochs": 2, "steps": None, "validation_fraction": 0.25, "selection": "best"}
OTHERS = tuple(name for name in EVERY_TASK if name != "classification")
SEEN = {"multi_label": 0.5, "regression": 0.5, "embedding": 0.4}
"""Minimum of the teacher's metric of `ABOVE`, so that there is something to distil."""
ABOVE = {"multi_label": "mean_average_precision", "regression": "r2", "embedding": "mean_average_precision"}


def loss_of(task, outputs, fields):
    if task == "multi_label":
        return F.binary_cross_entropy_with_logits(outputs, fields["label"].float())
    if task == "regression":
        return F.mse_loss(outputs, fields["target"])
    return batch_hard(outputs, fields["label"], None)


@pytest.fixture(scope="module", params=OTHERS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def inputs(task, tmp_path_factory):
    """A folder with a dataset of bright or dark stripes, and a teacher that has learnt it a little."""
    folder, draw = tmp_path_factory.mktemp(task), torch.Generator().manual_seed(7)
    bright = (torch.rand(SAMPLES, STRIPES, generator=draw) < 0.5).float()
    noise = torch.rand(SAMPLES, 1, 16, 16, generator=draw)
    image = (bright.repeat_interleave(16 // STRIPES, 1)[:, None, :, None] * 120 + 100 * noise).byte()
    fields = {
        "multi_label": {"label": bright.to(torch.uint8)},
        "regression": {"target": torch.stack([bright.sum(1), bright[:, 0] - bright[:, 1]], dim=1)},
        "embedding": {"label": (2 * bright[:, 0] + bright[:, 1]).long()},
    }[task]
    tensors = {f"train.{name}": value for name, value in {"image": image, **fields}.items()}
    if task == "embedding":
        tensors |= {f"test.{name}": value.clone() for name, value in {"image": image, **fields}.items()}
        tensors |= {"test.camera": torch.arange(SAMPLES) % 2, "test.query": (torch.arange(SAMPLES) % 4 == 0).long()}
    (folder / "inputs").mkdir()
    names = [str(number) for number in range(outputs_of(task))]
    save_file(tensors, folder / "inputs" / "dataset.safetensors", {"class_names": json.dumps(names)})
    torch.manual_seed(11)
    teacher = networks.build("lenet5", outputs_of(task), read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(task, teacher((image.float() / 255 - 0.5) / 0.25), fields).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder


def outputs_of(task):
    return {"multi_label": STRIPES, "regression": 2, "embedding": 8}[task]


def job(folder, task, asked=None, **spec):
    """A job on the data and teacher of one task, for this task or another."""
    asked = asked or task
    objectives = [dict(each) for each in registry.find("tasks", asked).objective_defaults]
    if asked == "embedding":
        objectives.append({"name": "triplet", "weight": 0.1})
    made = job_of(folder, outputs_of(task), task=asked, **{"objectives": objectives, "training": TRAINING} | spec)
    return Job({**made.values, "evaluation": "inputs/dataset.safetensors"}, folder)


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(task, inputs, tmp_path_factory):
    folder = shutil.copytree(inputs, tmp_path_factory.mktemp("whole") / "job")
    (folder / "events.json").write_text(json.dumps(run_whole(job(folder, task))))
    return folder


def test_a_run_is_measured_by_its_tasks_metrics(task, undisturbed):
    report = report_of(undisturbed)
    evaluation, figure = report["evaluation"], registry.find("tasks", task).main_metric
    assert evaluation["teacher"][ABOVE[task]] > SEEN[task]
    assert report["summary"]["main_metric"]["name"] == figure
    assert report["summary"]["main_metric"]["student"] == evaluation["student"][figure]
    assert f"best {figure.replace('_', ' ')} (" in report["chosen_weights"]["why"]
    if task == "embedding":
        assert evaluation["student"]["queries"] == 16.0
        assert {"cmc_1", "cmc_5", "cmc_10"} <= evaluation["student"].keys()


def test_the_best_epoch_is_exported_whether_more_or_less_is_better(task, undisturbed):
    found, events = registry.find("tasks", task)(), json.loads((undisturbed / "events.json").read_text())
    metrics = [event["values"] for event in events if event["event"] == "metrics"]
    of_epochs = [values[name] for values in metrics if (name := f"validation/{found.main_metric}") in values]
    assert len(of_epochs) == TRAINING["epochs"]
    best = max(of_epochs) if found.higher_is_better else min(of_epochs)
    assert f"({best:.4f})" in report_of(undisturbed)["chosen_weights"]["why"]
    assert found.higher_is_better == (task != "regression")


def test_the_students_file_holds_its_task(task, undisturbed):
    with safe_open(undisturbed / "output" / "student.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["task"], metadata["output"]) == (task, registry.find("tasks", task).output)


@pytest.mark.parametrize("at", [1, 3, 4, 6])
def test_killed_anywhere_and_restored_bit_equal(task, inputs, undisturbed, tmp_path, at):
    folder = shutil.copytree(inputs, tmp_path / "killed")
    run_killed(job(folder, task), at, tmp_path / "restored")
    assert same_bits(student_of(undisturbed), student_of(tmp_path / "restored"))


@pytest.mark.parametrize("action", [check, run_whole])
def test_objectives_that_treat_logits_as_classes_are_refused(task, inputs, tmp_path, action):
    folder = shutil.copytree(inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job(folder, task, objectives=[{"name": "hint", "taps": [["maxpool2", "maxpool2"]]}, {"name": "dist"}]))
    (problem,) = caught.value.problems
    assert problem.pointer == "/objectives/1/name"
    assert problem.message == f"is for classification, not for the task {task}"


@pytest.mark.parametrize("action", [check, run_whole])
def test_a_synthesiser_of_classes_is_refused(task, inputs, tmp_path, action):
    if task in registry.find("sources", "dafl").tasks:
        pytest.skip("it makes images for this task too")
    folder = shutil.copytree(inputs, tmp_path / "job")
    with pytest.raises(SpecError) as caught:
        action(job(folder, task, source={"name": "dafl"}, objectives=[{"name": "hint"}], training={"steps": 2}))
    assert [problem.pointer for problem in caught.value.problems] == ["/source"]


def test_a_dataset_of_another_kind_is_refused(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    for asked in set(EVERY_TASK) - {task} - ({"classification"} if task == "embedding" else set()):
        with pytest.raises(SpecError) as caught:
            run_whole(job(folder, task, asked))
        assert [problem.pointer for problem in caught.value.problems] == ["/dataset"]


def test_a_teacher_that_knows_nothing_is_refused(task, inputs, tmp_path):
    folder = shutil.copytree(inputs, tmp_path / "job")
    torch.manual_seed(5)
    blank = networks.build("lenet5", outputs_of(task), read_contract(INPUT), {})
    for parameter in blank.conv1.parameters():
        parameter.data.zero_()  # constant: the same output for all images
    save_file(blank.state_dict(), folder / "inputs" / "teacher.safetensors")
    with pytest.raises(SpecError, match="at chance level"):
        run_whole(job(folder, task, training={"steps": 1, "epochs": None}))


def test_a_procedure_trains_a_teacher_on_the_tasks_own_ground_truth(task):
    network, ground_truth = NetworkChoice("lenet5", {}), registry.find("tasks", task).ground_truth
    plan = plan_of(student=replace(STUDENT, objectives=(ground_truth,)), teacher=None, task=task, epochs=20)
    for name, given in (("early_stopped", {"teacher": network}), ("born_again", {}), ("route", {"teacher": network})):
        method = registry.find("procedures", name)
        first = method(method.Parameters(**given)).next((), plan)
        (trained,) = first.members.values()
        assert trained.objectives == ({**ground_truth, "weight": 1.0},)


def test_a_teacher_is_trained_and_teaches(task, inputs, tmp_path):
    """The whole of early-stopped distillation: the first stage learns from the dataset alone."""
    folder = shutil.copytree(inputs, tmp_path / "job")
    student = {"network": "lenet5_half", "options": {}, "classes": outputs_of(task), "input": INPUT}
    procedure = {"name": "early_stopped", "teacher": {"network": "lenet5"}, "stop": 0.5}
    objectives = [{"name": "hint", "weight": 1.0}, {**registry.find("tasks", task).ground_truth, "weight": 1.0}]
    training = {"steps": None, "epochs": 1}
    made = job(folder, task, student=student, procedure=procedure, objectives=objectives, training=training)
    run_whole(Job({**made.values, "teacher": None}, folder))
    assert [stage["name"] for stage in report_of(folder)["stages"]] == ["teacher", "distil"]


def test_the_names_of_all_tasks():
    assert set(EVERY_TASK) | set(MAP_TASKS) <= set(registry.names("tasks")) <= set(EVERY_TASK) | set(DENSE_TASKS)
    for name in registry.names("tasks"):
        task = registry.find("tasks", name)
        assert task.main_metric and task.ground_truth
        assert name in registry.find("objectives", task.ground_truth["name"]).needs.tasks
