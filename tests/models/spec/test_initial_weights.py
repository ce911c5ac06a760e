"""The default initial weights of a student."""

import pytest
from pydantic import ValidationError

from models.spec.facts import Facts, TeacherFacts
from models.spec.initial_weights import file_of
from models.spec.job_spec import JobSpec, resolve

INPUT = {"channels": 1, "height": 32, "width": 32, "mean": [0.5], "std": [0.5]}
TEACHER = "tch_" + "0" * 32
LENET = {"network": "lenet5_half"}


def chosen(student, teacher="lenet5", options=None, **spec):
    facts = Facts(TeacherFacts(teacher, 10, INPUT, options or {}))
    spec = JobSpec.model_validate({"teacher": TEACHER, "student": student, "source": "dafl", **spec})
    full = resolve(spec, facts)
    assert resolve(JobSpec.model_validate(full), facts) == full
    return full["student"]["initial_weights"], full["reasons"].get("/student/initial_weights", "")


def test_without_data_a_slice_of_the_teacher_starts_with_the_teachers_weights():
    assert chosen(LENET) == (
        "teacher",
        "lenet5_half is a slice of lenet5, and without data its weights are a better start than random ones",
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
def test_the_catalogue_decides_whether_a_student_is_a_slice(student, teacher, options, expected):
    assert chosen({"network": student}, teacher, options)[0] == expected


def test_a_perceptron_of_narrower_layers_is_a_slice():
    assert chosen({"network": "mlp", "options": {"hidden": [800, 800]}}, "mlp")[0] == "teacher"
    assert chosen({"network": "mlp", "options": {"hidden": [800]}}, "mlp")[0] == "random"


def test_a_student_with_other_classes_starts_with_random_weights():
    assert chosen({**LENET, "classes": 4})[0] == "random"


def test_with_a_dataset_the_default_is_random_without_a_reason():
    assert chosen(LENET, source="dataset", dataset="dts_" + "0" * 32) == ("random", "")


@pytest.mark.parametrize("words", ["random", "teacher", "neuron_merging", "pretrained", "fil_" + "0" * 32])
def test_initial_weights_that_the_user_sets_are_kept(words):
    assert chosen({**LENET, "initial_weights": words}) == (words, "")


def test_other_values_are_refused():
    with pytest.raises(ValidationError, match="must be `teacher`, `neuron_merging`, `random`, `pretrained`, or the id"):
        JobSpec.model_validate({"student": {**LENET, "initial_weights": "kaiming"}})


def test_only_uploads_are_files():
    assert [file_of(each) for each in ("fil_1", "teacher", "random", None)] == ["fil_1", None, None, None]
