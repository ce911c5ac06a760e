"""Teacher and student with different classes: objectives on features work, objectives on logits are refused."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from worker.distillation.check import check
from worker.distillation.errors import SpecError

FEATURES = [{"name": "cross_entropy"}, {"name": "attention_transfer", "weight": 10.0}]
FSP = {
    "procedure": {"name": "two_stage", "first": [{"name": "fsp", "weight": 1e-4}], "fraction": 0.4},
    "objectives": [{"name": "cross_entropy"}], "student": {"network": "lenet5", "options": {}, "classes": 3},
}  # fmt: skip
THREE = {"student": {"network": "lenet5_half", "options": {}, "classes": 3}}


def relabelled(folder, names, label):
    """Change the labels of the dataset and their names."""
    path = folder / "inputs" / "dataset.safetensors"
    held = load_file(path)
    held["train.label"] = label(held["train.label"])
    save_file(held, path, {"class_names": json.dumps(names)})


@pytest.fixture
def folder(engine_inputs, tmp_path):
    """A dataset of three classes, and a teacher of four."""
    shutil.copytree(engine_inputs, tmp_path / "job")
    relabelled(tmp_path / "job", ["cat", "dog", "emu"], lambda label: (label * 7 + 1) % 3)
    return tmp_path / "job"


def evaluated(job, **teacher):
    values = {**job.values, "evaluation": "inputs/dataset.safetensors"}
    return replace(job, values=values | {"teacher": values["teacher"] | teacher})


def test_the_student_has_the_datasets_classes_and_their_names(folder):
    run_whole(evaluated(job_of(folder, objectives=FEATURES, **THREE), class_names=list("abcd")))
    with safe_open(folder / "output" / "student.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["class_names"]) == ["cat", "dog", "emu"]
    report = json.loads((folder / "output" / "report.json").read_text())
    assert report["evaluation"]["teacher"] is None and "agreement" not in report["evaluation"]["student"]
    assert report["teacher"]["network"] == "lenet5"


@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.parametrize("spec", [{"objectives": FEATURES}, FSP], ids=["features", "fsp"])
def test_killed_and_restored_bit_equal(folder, tmp_path, spec, at):
    shutil.copytree(folder, tmp_path / "killed")
    run_whole(job_of(folder, **(THREE | spec)))
    run_killed(job_of(tmp_path / "killed", **(THREE | spec)), at, tmp_path / "restored")
    assert same_bits(student_of(folder), student_of(tmp_path / "restored"))


def test_an_objective_on_logits_is_refused_with_its_pointer(folder):
    with pytest.raises(SpecError) as caught:
        check(job_of(folder, objectives=[*FEATURES, {"name": "kd"}], **THREE))
    assert [problem.pointer for problem in caught.value.problems] == ["/objectives/2/name"]
    assert "the student has 3 and the teacher 4" in caught.value.problems[0].message


def test_a_teacher_with_as_many_but_different_classes_is_not_checked_on_the_labels(engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    relabelled(folder, ["cat", "dog", "emu", "fox"], lambda label: (label + 1) % 4)
    job = job_of(folder, objectives=FEATURES)
    run_whole(evaluated(job, class_names=["one", "two", "three", "four"]))
    for names in ([], ["cat", "dog", "emu", "fox"]):
        with pytest.raises(SpecError, match=r"classes in another order: 100\.0%"):
            run_whole(evaluated(job, class_names=names))


@pytest.mark.parametrize(
    ("classes", "known", "names", "transfers"),
    [
        (4, [], list("abcd"), False),
        (4, list("abcd"), list("abcd"), False),
        (4, list("abcd"), list("dcba"), False),
        (4, list("abcd"), list("efgh"), True),
        (4, list("abcd"), list("0123"), False),
        (3, [], list("abc"), True),
    ],
)
def test_different_classes_are_recognised_by_number_or_names(tmp_path, classes, known, names, transfers):
    job = evaluated(job_of(tmp_path, student={"network": "lenet5_half", "classes": classes}), class_names=known)
    assert job.transfers(names) is transfers


def test_a_student_without_a_teacher_has_the_datasets_names(folder):
    student = {
        "network": "lenet5_half",
        "options": {},
        "classes": 3,
        "input": job_of(folder).values["teacher"]["input"],
    }
    job = job_of(folder, student=student)
    run_whole(replace(job, values={**job.values, "teacher": None}))
    with safe_open(folder / "output" / "student.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["class_names"]) == ["cat", "dog", "emu"]
