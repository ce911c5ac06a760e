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
        "lenet5_half is a slice of lenet5, and its weights are a better start than random ones",
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


WITH_DATA = {"source": "dataset", "dataset": "dts_" + "0" * 32}


@pytest.mark.parametrize(
    ("student", "teacher", "options", "expected"),
    [
        ("lenet5_half", "lenet5", {}, "is a slice of lenet5"),
        ("resnet8_cifar", "resnet20_cifar", {}, "is a slice of resnet20_cifar"),
        ("lenet5", "lenet5", {}, "as large as the teacher"),
        ("lenet", "lenet5_half", {}, "as large as the teacher"),
        ("torchvision/resnet18", "torchvision/resnet18", {}, "as large as the teacher"),
        ("mlp", "mlp", {"hidden": [1200, 1300]}, "is a slice of mlp"),
        ("mlp", "mlp", {"hidden": [1200, 1100]}, "not known to be a slice"),
    ],
)
def test_with_a_dataset_a_student_that_is_smaller_starts_as_slices(student, teacher, options, expected):
    words, why = chosen({"network": student}, teacher, options, **WITH_DATA)
    assert expected in why
    assert words == ("teacher" if expected.startswith("is a slice") else "random")


def test_with_a_dataset_procedures_of_papers_start_at_random():
    assert chosen(LENET, procedure="born_again", **WITH_DATA)[0] == "random"
    assert chosen(LENET, procedure="direct", **WITH_DATA)[0] == "teacher"
    assert chosen(LENET, procedure="born_again")[0] == "teacher"


def test_widths_that_are_options_are_compared():
    assert chosen({"network": "resnet_cifar", "options": {"width": 8}}, "resnet_cifar", {"width": 16})[0] == "teacher"
    assert chosen({"network": "resnet_cifar", "options": {"width": 8}}, "resnet_cifar", {"depth": 14})[0] == "random"
    narrow = {"network": "vgg_features", "options": {"hidden": 64}}
    assert chosen(narrow, "vgg_features", {"hidden": 128})[0] == "teacher"
    assert chosen(narrow, "vgg_features")[0] == "random"


def test_students_like_their_teacher_start_as_slices():
    like = {"like": "teacher", "width": 0.25}
    assert chosen(like, "torchvision/resnet18")[0] == "teacher"
    assert chosen(like, "torchvision/resnet18", **WITH_DATA)[0] == "teacher"
    assert chosen(like | {"width": 1}, "lenet5", **WITH_DATA)[0] == "random"
    assert chosen(like | {"classes": 7})[0] == "random"


def test_a_student_that_reads_other_images_starts_at_random():
    other = INPUT | {"channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert chosen(LENET | {"input": other}, **WITH_DATA)[0] == "random"


@pytest.mark.parametrize("words", ["random", "teacher", "neuron_merging", "pretrained", "fil_" + "0" * 32])
def test_initial_weights_that_the_user_sets_are_kept(words):
    assert chosen({**LENET, "initial_weights": words}) == (words, "")


def test_other_values_are_refused():
    with pytest.raises(ValidationError, match="must be `teacher`, `neuron_merging`, `random`, `pretrained`, or the id"):
        JobSpec.model_validate({"student": {**LENET, "initial_weights": "kaiming"}})


def test_only_uploads_are_files():
    assert [file_of(each) for each in ("fil_1", "teacher", "random", None)] == ["fil_1", None, None, None]
