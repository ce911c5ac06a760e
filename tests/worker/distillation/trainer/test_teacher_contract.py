"""A job whose teacher is given other images or classes than it was trained on stops, or goes on in the right way."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError

KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}]
NAMES = ["ant", "bee", "cat", "dog"]
AMOUNT = 320


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A job's folder with a teacher whose class is told by the mean brightness of an image, so that mean and std matter."""
    folder = tmp_path_factory.mktemp("bright")
    (folder / "inputs").mkdir()
    draw = torch.Generator().manual_seed(1)
    label = torch.arange(AMOUNT) % 4
    noise = torch.randint(0, 30, (AMOUNT, 1, 16, 16), generator=draw)
    image = (noise + 20 + 60 * label.view(-1, 1, 1, 1)).to(torch.uint8)
    save_file({"train.image": image, "train.label": label}, folder / "inputs" / "dataset.safetensors")
    torch.manual_seed(2)
    teacher = networks.build("lenet5", 4, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher((image.float() / 255 - 0.5) / 0.25), label).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "job")


def job(folder, mean=(0.5,), std=(0.25,), names=(), **spec):
    made = job_of(folder, objectives=KD, **spec)
    given = made.values["teacher"] | {
        "input": INPUT | {"mean": list(mean), "std": list(std)},
        "class_names": list(names),
    }
    return replace(made, values=made.values | {"teacher": given, "evaluation": "inputs/dataset.safetensors"})


def report(folder):
    return json.loads((folder / "output" / "report.json").read_text())


def named(folder, names, order):
    """Give the dataset names, and its labels the numbers in `order`."""
    path = folder / "inputs" / "dataset.safetensors"
    held = load_file(path)
    held["train.label"] = torch.tensor(order)[held["train.label"]]
    save_file(held, path, {"class_names": json.dumps(names)})


def test_the_right_input_passes_and_the_report_has_the_table(folder):
    run_whole(job(folder))
    found = report(folder)["teacher_check"]
    assert found["taken"] is None and found["table"][0]["name"] == "declared" and found["table"][0]["accuracy"] > 0.95
    assert found["images"] == AMOUNT


def test_a_wrong_normalisation_stops_the_job_with_the_table(folder):
    with pytest.raises(SpecError) as caught:
        run_whole(job(folder, mean=(0.0,), std=(1.0,)))
    (problem,) = caught.value.problems
    assert problem.pointer == "/teacher/input"
    assert "declared:" in problem.message and "standard deviations" in problem.message
    assert "Upload the teacher with mean [" in caught.value.hint and "`auto`" in caught.value.hint


def test_the_contract_auto_takes_the_better_one_and_trust_none(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "trusting")
    run_whole(job(folder, mean=(0.0,), std=(1.0,), contract="auto"))
    found = report(folder)
    taken = found["teacher_check"]["taken"]
    best = max(found["teacher_check"]["table"], key=lambda row: row["accuracy"])
    assert taken["mean"] == best["mean"] and taken["name"] in " ".join(found["notes"])
    assert found["evaluation"]["teacher"]["accuracy"] == pytest.approx(best["accuracy"], abs=0.05)
    with pytest.raises(SpecError, match="chance level"):  # nothing is compared, and the teacher knows nothing so
        run_whole(job(tmp_path / "trusting", mean=(0.0,), std=(1.0,), contract="trust"))


@pytest.mark.parametrize("at", [2, 5])
def test_what_was_taken_is_kept_by_a_restored_run(folder, tmp_path, at):
    shutil.copytree(folder, tmp_path / "killed")
    run_whole(job(folder, mean=(0.0,), std=(1.0,), contract="auto"))
    run_killed(job(tmp_path / "killed", mean=(0.0,), std=(1.0,), contract="auto"), at, tmp_path / "restored")
    assert same_bits(student_of(folder), student_of(tmp_path / "restored"))
    assert report(folder)["teacher_check"] == report(tmp_path / "restored")["teacher_check"]


def test_classes_in_another_order_are_matched_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "straight")
    run_whole(job(tmp_path / "straight", names=NAMES))
    named(folder, ["cat", "ant", "dog", "bee"], order=[1, 3, 0, 2])
    run_whole(job(folder, names=NAMES))
    assert same_bits(student_of(folder), student_of(tmp_path / "straight"))
    assert any("matched by name" in note for note in report(folder)["notes"])
    assert report(folder)["evaluation"]["teacher"]["accuracy"] > 0.95


def test_names_that_are_wrong_about_the_labels_stop_the_job(folder):
    named(folder, ["cat", "ant", "dog", "bee"], order=[0, 1, 2, 3])
    with pytest.raises(SpecError, match="classes matched by number, not by name"):
        run_whole(job(folder, names=NAMES))


def test_names_that_are_only_partly_the_same_are_refused(folder):
    named(folder, ["ant", "bee", "cat", "eel"], order=[0, 1, 2, 3])
    with pytest.raises(SpecError, match="only the dataset has `eel`, and only the teacher `dog`"):
        run_whole(job(folder, names=NAMES))


def ensemble(folder, **spec):
    """Two teachers with the same weights, of which the second says that it reads other numbers."""
    made = job(folder, **spec)
    given = made.values["teacher"]
    wrong = given | {"id": "tch_2", "input": INPUT | {"mean": [0.0], "std": [1.0]}}
    return replace(made, values=made.values | {"teacher": None, "teachers": [given | {"id": "tch_1"}, wrong]})


def test_every_member_of_an_ensemble_is_checked(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "auto")
    with pytest.raises(SpecError, match="the teacher tch_2 is right on"):
        run_whole(ensemble(folder))
    run_whole(ensemble(tmp_path / "auto", contract="auto"))
    found = report(tmp_path / "auto")
    first, second = found["teacher_check"]["members"]
    assert first["taken"] is None and second["taken"]["mean"] != [0.0]
    assert found["evaluation"]["teacher"]["accuracy"] > 0.9


TASKS = {
    "multi_label": [{"name": "binary_cross_entropy", "weight": 1.0}],
    "regression": [{"name": "target_error", "weight": 1.0}],
}


def truth_of(task, label):
    """Labels of an image, or a target, that its class tells."""
    if task == "regression":
        return {"train.target": label[:, None].float()}
    return {"train.label": nn.functional.one_hot(label, 4).to(torch.uint8)}


@pytest.mark.parametrize("task", TASKS)
def test_the_contract_is_checked_for_other_tasks(folder, task):
    path = folder / "inputs" / "dataset.safetensors"
    held = load_file(path)
    image, outputs = held["train.image"], 4 if task == "multi_label" else 1
    truth = truth_of(task, held["train.label"])
    (wanted,) = truth.values()
    names = {"class_names": json.dumps([str(number) for number in range(outputs)])}
    save_file({"train.image": image} | truth, path, names)
    torch.manual_seed(2)
    teacher = networks.build("lenet5", outputs, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    loss = nn.functional.mse_loss if task == "regression" else nn.functional.binary_cross_entropy_with_logits
    for _ in range(150):
        optimizer.zero_grad()
        loss(teacher((image.float() / 255 - 0.5) / 0.25), wanted.float()).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")

    def run(**said):
        made = job_of(folder, classes=outputs, **({"task": task, "objectives": TASKS[task]} | said.pop("spec", {})))
        given = made.values["teacher"] | {"input": INPUT | said}
        run_whole(replace(made, values=made.values | {"teacher": given}))
        return report(folder)["teacher_check"]

    assert run()["table"][0]["accuracy"] > 0.9
    wrong = {"mean": [0.0], "std": [1.0]}
    with pytest.raises(SpecError, match="its input says, and on") as caught:
        run(**wrong)
    assert caught.value.problems[0].pointer == "/teacher/input"
    found = run(**wrong, spec={"contract": "auto"})
    assert max(row["accuracy"] for row in found["table"]) > 0.9 and found["taken"]["mean"] != [0.0]
