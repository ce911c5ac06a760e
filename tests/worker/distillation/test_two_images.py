"""A teacher that reads another image of each sample than the student: privileged information, and other modalities."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.two_images import COLOUR, READS, STUDENT, add_colour, job_with_two, normalised
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job

LABEL = {"name": "cross_entropy"}
KD = {"objectives": [{"name": "kd"}]}
MOVED = READS | {"augmentation": "standard"}
SHAPES = {
    "kd": KD | {"source": MOVED},
    "crd": {"objectives": [LABEL, {"name": "crd", "negatives": 8}]},
    "hint": {"procedure": {"name": "two_stage", "first": [{"name": "hint"}]}},
    "second views": {"objectives": [LABEL | {"second_view": True}, {"name": "kd"}], "source": MOVED},
    "privileged": {"objectives": [{"name": "privileged", "imitation": 0.5, "temperature": 2}]},
    "assistant": KD | {"procedure": {"name": "assistant", "assistants": [{"network": "lenet5"}]}},
}


@pytest.fixture(scope="module")
def inputs(engine_inputs, tmp_path_factory):
    folder = shutil.copytree(engine_inputs, tmp_path_factory.mktemp("two") / "engine")
    add_colour(folder)
    return folder


@pytest.fixture
def folder(inputs, tmp_path):
    return shutil.copytree(inputs, tmp_path / "job")


@pytest.mark.parametrize("at", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_anywhere_and_restored_bit_equal(shape, at, folder, inputs, tmp_path):
    shutil.copytree(inputs, tmp_path / "killed")
    spec = SHAPES[shape] | {"training": {"steps": 4}}
    check(job_with_two(folder, **spec))
    run_whole(job_with_two(folder, **spec))
    run_killed(job_with_two(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(student_of(folder), student_of(tmp_path / "restored"))


def test_nothing_changes_if_both_images_are_the_same(engine_inputs, inputs, tmp_path):
    """If the teacher's image and input contract equal the student's, the student's bits are those of an ordinary job."""
    for name in ("one", "two"):
        shutil.copytree(engine_inputs, tmp_path / name)
    path = tmp_path / "two" / "inputs" / "dataset.safetensors"
    data = load_file(path)
    save_file(data | {"train.privileged": data["train.image"].clone()}, path, {"class_names": '["0", "1", "2", "3"]'})
    one = {"name": "dataset", "augmentation": "standard"}
    run_whole(job_of(tmp_path / "one", **KD, source=one))
    run_whole(job_of(tmp_path / "two", **KD, source=MOVED, student=STUDENT))
    assert same_bits(student_of(tmp_path / "one"), student_of(tmp_path / "two"))


def test_the_teacher_reads_only_its_own_image(folder, tmp_path):
    """One full-batch step of gradient descent, written slowly: the teacher reads colour, the student reads grey."""
    once = {
        "steps": 1,
        "batch_size": 64,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "learning_rate": 0.1,
        "schedule": "constant",
    }
    linear = {"network": "mlp", "options": {"hidden": []}, "input": INPUT}
    path = folder / "inputs" / "weights.safetensors"
    torch.manual_seed(4)
    student = networks.build("mlp", 4, read_contract(INPUT), {"hidden": []})
    save_file(student.state_dict(), path)
    job = job_with_two(folder, objectives=[{"name": "kd", "temperature": 1.0}], student=linear, training=once)
    run_whole(Job({**job.values, "initial_weights": "inputs/weights.safetensors"}, folder))
    data = load_file(folder / "inputs" / "dataset.safetensors")
    teacher = networks.build("lenet5", 4, read_contract(COLOUR), {})
    teacher.load_state_dict(load_file(folder / "inputs" / "teacher.safetensors"))
    with torch.no_grad():
        soft = teacher.eval()(normalised(data["train.privileged"], COLOUR)).softmax(1)
    log_p = student(normalised(data["train.image"], INPUT)).log_softmax(1)
    (-(soft * log_p).sum() / 64).backward()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(student_of(folder)[name], (parameter - 0.1 * parameter.grad).detach())


def test_each_network_is_measured_on_its_own_images(folder):
    job = job_with_two(folder, **KD, evaluation={"dataset": "dts", "split": None})
    run_whole(Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, folder))
    report = json.loads((folder / "output" / "report.json").read_text())
    data = load_file(folder / "inputs" / "dataset.safetensors")
    label, read = data["test.label"], {"student": ("test.image", INPUT), "teacher": ("test.privileged", COLOUR)}
    predicted = {}
    for whose, name, path in (("student", "lenet5_half", "output/student"), ("teacher", "lenet5", "inputs/teacher")):
        key, contract = read[whose]
        network = networks.build(name, 4, read_contract(contract), {})
        network.load_state_dict(load_file(folder / f"{path}.safetensors"))
        predicted[whose] = network.eval()(normalised(data[key], contract)).argmax(1)
        accuracy = float((predicted[whose] == label).float().mean())
        assert report["evaluation"][whose]["accuracy"] == pytest.approx(accuracy)
    agreement = float((predicted["student"] == predicted["teacher"]).float().mean())
    assert report["evaluation"]["student"]["agreement"] == pytest.approx(agreement)
    assert report["teacher"]["multiply_adds"] > 2 * report["student"]["multiply_adds"]


def test_the_student_is_measured_alone_if_the_teachers_images_are_missing(folder):
    path = folder / "inputs" / "dataset.safetensors"
    data = load_file(path)
    del data["test.privileged"]
    save_file(data, path, {"class_names": '["0", "1", "2", "3"]'})
    job = job_with_two(folder, **KD, evaluation={"dataset": "dts", "split": None})
    run_whole(Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, folder))
    measured = json.loads((folder / "output" / "report.json").read_text())["evaluation"]
    assert measured["teacher"] is None
    assert "accuracy" in measured["student"] and "agreement" not in measured["student"]


TALLER = STUDENT | {"input": INPUT | {"height": 20}}
REFUSALS = {
    "no input contract of its own": ({"student": {"network": "lenet5_half"}}, "/student/input"),
    "images of two sizes": ({"student": TALLER, "source": MOVED}, "/source/augmentation"),
    "a gradient to one image": ({"objectives": [LABEL, {"name": "attention_gradient"}]}, "/objectives/1/name"),
    "a second view of one image": ({"objectives": [{"name": "multi_level"}]}, "/objectives/0/name"),
    "a field that the source does not read": (
        {"objectives": [{"name": "privileged"}], "source": {"name": "dataset"}}, "/source/teacher_reads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("action", [check, run_whole])
@pytest.mark.parametrize("reason", REFUSALS)
def test_invalid_jobs_are_refused_with_a_pointer(reason, action, folder):
    spec, pointer = REFUSALS[reason]
    with pytest.raises(SpecError) as caught:
        action(job_with_two(folder, **spec))
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


@pytest.mark.parametrize("action", [check, run_whole])
def test_teacher_reads_without_a_teacher_is_refused(action, folder):
    job = job_with_two(folder, student=STUDENT | {"classes": 4})
    with pytest.raises(SpecError, match="has none") as caught:
        action(Job({**job.values, "teacher": None}, folder))
    assert [problem.pointer for problem in caught.value.problems] == ["/source/teacher_reads"]


def test_a_dataset_with_one_image_per_sample_is_refused(engine_inputs, folder):
    shutil.copy(engine_inputs / "inputs" / "dataset.safetensors", folder / "inputs")
    with pytest.raises(SpecError, match="privileged") as caught:
        run_whole(job_with_two(folder, **KD))
    assert [problem.pointer for problem in caught.value.problems] == ["/dataset"]


def test_an_ensemble_reads_what_its_members_read(folder, tmp_path):
    """An ensemble of twice the same teacher equals that teacher."""
    spec = KD | {"source": MOVED, "student": STUDENT}
    alone = shutil.copytree(folder, tmp_path / "alone")
    run_whole(job_with_two(alone, **spec))
    job = job_with_two(folder, **spec)
    teacher = job.values.pop("teacher")
    job.spec["teacher"] = {"members": ["tch_1", "tch_2"], "combine": "logits", "weights": None, "temperature": None}
    run_whole(Job({**job.values, "teachers": [teacher, teacher]}, folder))
    for name, value in student_of(alone).items():
        torch.testing.assert_close(student_of(folder)[name], value)


def test_held_out_samples_keep_both_images(folder):
    """The best epoch is selected on the student's images, and the teacher still reads its own."""
    training = {"validation_fraction": 0.25, "selection": "best", "steps": None, "epochs": 2}
    events = run_whole(job_with_two(folder, **KD, training=training))
    assert sum("validation/accuracy" in event.get("values", {}) for event in events) == 2
