"""What a student begins with whose user left it open."""

import pytest
from pydantic import ValidationError

from models.spec.facts import Facts, TeacherFacts
from models.spec.initial_weights import file_of
from models.spec.job_spec import JobSpec, resolve

INPUT = {"channels": 1, "height": 32, "width": 32, "mean": [0.5], "std": [0.5]}
TEACHER = "tch_" + "0" * 32
LENET = {"network": "lenet5_half"}


def begun(student, teacher="lenet5", options=None, **spec):
    facts = Facts(TeacherFacts(teacher, 10, INPUT, options or {}))
    spec = JobSpec.model_validate({"teacher": TEACHER, "student": student, "source": "dafl", **spec})
    full = resolve(spec, facts)
    assert resolve(JobSpec.model_validate(full), facts) == full
    return full["student"]["initial_weights"], full["reasons"].get("/student/initial_weights", "")


def test_a_student_that_is_a_slice_of_its_teacher_begins_so_without_data():
    assert begun(LENET) == (
        "teacher",
        "lenet5_half is a slice of lenet5, and without data that is a better beginning",
    )


@pytest.mark.parametrize(
    ("student", "teacher", "options", "expected"),
    [
        ("resnet8_cifar", "resnet20_cifar", {}, "teacher"),
        ("resnet20_cifar", "resnet8_cifar", {}, "random"),
        ("lenet5", "lenet5_half", {}, "random"),
        ("lenet5", "lenet5", {}, "teacher"),
        ("torchvision/resnet18", "torchvision/resnet18", {}, "teacher"),
        ("torchvision/resnet18", "torchvision/resnet34", {}, "random"),
        ("mlp", "mlp", {}, "teacher"),
        ("mlp", "mlp", {"hidden": [800, 800]}, "random"),
        ("mlp", "mlp", {"activation": "none"}, "random"),
    ],
)
def test_what_is_known_of_two_networks_decides(student, teacher, options, expected):
    assert begun({"network": student}, teacher, options)[0] == expected


def test_a_perceptron_of_narrower_layers_is_a_slice():
    assert begun({"network": "mlp", "options": {"hidden": [800, 800]}}, "mlp")[0] == "teacher"
    assert begun({"network": "mlp", "options": {"hidden": [800]}}, "mlp")[0] == "random"


def test_a_student_of_other_classes_begins_afresh():
    assert begun({**LENET, "classes": 4})[0] == "random"


def test_with_a_dataset_a_student_begins_afresh_and_nothing_is_said_of_it():
    assert begun(LENET, source="dataset", dataset="dts_" + "0" * 32) == ("random", "")


@pytest.mark.parametrize("words", ["random", "teacher", "neuron_merging", "fil_" + "0" * 32])
def test_what_the_user_says_stands(words):
    assert begun({**LENET, "initial_weights": words}) == (words, "")


def test_anything_else_is_refused():
    with pytest.raises(ValidationError, match="must be `teacher`, `neuron_merging`, `random`, or the id of a file"):
        JobSpec.model_validate({"student": {**LENET, "initial_weights": "kaiming"}})


def test_only_uploads_are_files():
    assert [file_of(each) for each in ("fil_1", "teacher", "random", None)] == ["fil_1", None, None, None]
