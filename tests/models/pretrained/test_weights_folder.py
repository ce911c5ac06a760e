"""The official names of pretrained weights, and finding them in a folder."""

from pathlib import Path

import pytest

from models.pretrained.weights_folder import absent, asked, files_of, find
from models.spec.initial_weights import check_pretrained

STUDENT = {"student": {"network": "torchvision/resnet18", "initial_weights": "pretrained"}, "teacher": "tch_1"}


def test_the_librarys_own_choice_comes_first():
    assert files_of("torchvision/resnet18") == ("resnet18-f37072fd.pth",)
    assert files_of("torchvision/resnet50") == ("resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth")
    assert files_of("timm/resnet18")[0] == "resnet18.a1_in1k.safetensors"
    assert files_of("timm/resnet18.tv_in1k") == ("resnet18.tv_in1k.safetensors",)
    assert files_of("lenet5") == files_of("torchvision/lenet5") == files_of("timm/resnet18.nobody") == ()


@pytest.mark.parametrize(
    ("network", "place"),
    [
        ("torchvision/resnet50", "resnet50-0676ba61.pth"),
        ("timm/resnet18", "resnet18.tv_in1k.safetensors"),
        ("timm/resnet18", "resnet18.a1_in1k/model.safetensors"),
        ("timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k/model.safetensors"),
    ],
)
def test_a_file_is_found_under_its_name_or_as_its_repository_lays_it_out(tmp_path: Path, network: str, place: str):
    assert find(tmp_path, network) is None
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    found = find(tmp_path, network)
    assert found is not None and found.path == path and found.name in files_of(network)


def test_a_spec_asks_for_the_weights_of_a_student_and_of_a_teacher_that_is_trained_first():
    teacher = {"network": "timm/resnet18", "initial_weights": "pretrained"}
    assert list(asked(STUDENT)) == [("/student", "torchvision/resnet18")]
    assert list(asked(STUDENT | {"teacher": teacher})) == [
        ("/student", "torchvision/resnet18"),
        ("/teacher", "timm/resnet18"),
    ]
    assert list(asked({"student": {"network": "lenet5", "initial_weights": "teacher"}, "teacher": ["tch_1"]})) == []


def test_an_absent_file_is_named_with_its_place_in_the_spec(tmp_path: Path):
    ((pointer, message),) = absent(STUDENT, tmp_path)
    assert pointer == "/student/initial_weights" and "resnet18-f37072fd.pth" in message
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"weights")
    assert absent(STUDENT, tmp_path) == []


def test_a_network_without_official_weights_is_refused():
    (problem,) = check_pretrained({"student": {"network": "lenet5", "initial_weights": "pretrained"}})
    assert problem.pointer == "/student/initial_weights" and "lenet5" in problem.message
    assert list(check_pretrained(STUDENT)) == []
