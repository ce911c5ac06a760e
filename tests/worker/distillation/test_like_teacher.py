"""Students that are like their teacher, in the engine: named networks, layers, programs, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.worker.distillation.killed_runs import INPUT, job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.programs.samples import Residual, learnt, of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.job import Job
from worker.distillation.like_teacher import completed
from worker.distillation.programs import load
from worker.distillation.programs.packing import pack
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.lineage import Lineage

LIKE = {"like": "teacher", "width": 0.5, "initial_weights": "teacher"}
OBJECTIVES = [{"name": "kd", "weight": 1.0, "temperature": 4}, {"name": "attention_transfer", "weight": 1.0}]
LAYERS = [
    {"conv": 8, "name": "stem", "padding": 1}, {"norm": "batch"}, {"activation": "relu"},
    {"conv": 8, "groups": 8, "padding": 1}, {"activation": "relu"}, {"conv": 8, "kernel": 1}, {"add": "stem"},
    {"pool": "max"}, {"conv": 12, "padding": 1}, {"activation": "relu"}, {"concat": "conv3", "input": "pool1"},
    {"pool": "adaptive", "size": 4}, {"flatten": True}, {"linear": 20}, {"activation": "relu"}, {"linear": None},
]  # fmt: skip


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def like(folder, teacher=None, **spec):
    """A job whose student is like its teacher, read from its file."""
    job = job_of(folder, **{"student": LIKE, "objectives": OBJECTIVES} | spec)
    values = {**job.values, "teacher": teacher or job.values["teacher"]}
    (folder / "job.json").write_text(json.dumps(values))
    return Job.read(folder / "job.json")


def named(folder, network, options=None, contract=INPUT):
    """A teacher of the catalogue."""
    torch.manual_seed(1)
    teacher = networks.build(network, 4, read_contract(contract), options or {})
    if contract == INPUT:
        learnt(teacher, folder / "inputs" / "dataset.safetensors")
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return {
        "network": network, "options": options or {}, "classes": 4, "class_names": [], "input": contract,
        "weights": "inputs/teacher.safetensors",
    }  # fmt: skip


def program(folder, network, **about):
    """A teacher as a program."""
    pack(network, folder / "inputs" / "net.safetensors", **INPUT, **about)
    return {"network": "program", "program": "inputs/net.safetensors"}


def test_a_named_teachers_student_is_of_its_family(folder):
    job = like(folder)
    assert (job.spec["student"]["network"], job.spec["student"]["options"]["first"]) == ("lenet", 3)
    run_whole(job)
    assert json.loads((folder / "output" / "report.json").read_text())["student"]["network"] == "lenet"
    assert student_of(folder)["conv3.weight"].shape[:2] == (60, 8)


@pytest.mark.parametrize("initial", ["teacher", "random"])
def test_layers_stay_layers(folder, initial):
    job = like(folder, named(folder, "layers", {"layers": LAYERS}), student=LIKE | {"initial_weights": initial},
               objectives=OBJECTIVES[:1])  # fmt: skip
    counts = [layer.get("conv") for layer in job.spec["student"]["options"]["layers"] if "conv" in layer]
    assert counts == [4, 4, 4, 6]
    check(job)
    run_whole(job)
    student, teacher = student_of(folder), load_file(folder / "inputs" / "teacher.safetensors")
    assert {name: tuple(each.shape)[1:] for name, each in student.items()}.keys() == teacher.keys()


@pytest.mark.parametrize("initial", ["teacher", "random"])
def test_a_program_becomes_a_narrower_program_and_a_kill_changes_nothing(folder, tmp_path, initial):
    network = learnt(of(Residual, 1, channels=1, width=16, classes=4), folder / "inputs" / "dataset.safetensors")
    teacher = program(folder, network, train=True)
    shutil.copytree(folder, tmp_path / "killed")
    spec = {"student": LIKE | {"initial_weights": initial}}
    run_whole(like(folder, teacher, **spec))
    run_killed(like(tmp_path / "killed", teacher, **spec), 3, tmp_path / "elsewhere")
    assert same_bits(student_of(folder), student_of(tmp_path / "elsewhere"))
    own = of(Residual, channels=1, width=8, classes=4)
    assert {name: each.shape for name, each in student_of(folder).items()} == {
        name: each.shape for name, each in own.state_dict().items()
    }
    shipped = load(folder / "output" / "student.safetensors").eval()
    own.load_state_dict(student_of(folder))
    image = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(shipped(image), own.eval()(image))


def test_any_other_network_becomes_a_program(folder):
    contract = INPUT | {"height": 32, "width": 32, "channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}
    job = like(folder, named(folder, "mobilenet_cifar", contract=contract), objectives=OBJECTIVES[:1])
    assert job.spec["student"]["network"] == "program"
    facts = check(job)
    assert 0.2 < facts["student"]["parameters"] / facts["teacher"]["parameters"] < 0.3
    lineage = Lineage(job, Checkpoints(folder / "checkpoints"), torch.device("cpu"))
    student = lineage.initial(lineage.next(), "student").state_dict()
    assert student.keys() == lineage.teacher.state_dict().keys()
    assert student["layers.3.conv1.weight"].shape == (64, 1, 3, 3)  # depthwise: one group for each channel


@pytest.mark.parametrize(
    ("network", "task"),
    [("fpn_timm", "segmentation"), ("torchvision_detection/ssd300_vgg16", "detection"), ("fpn", "segmentation")],
)
def test_maps_and_boxes_of_other_networks_are_refused(network, task):
    teacher = {"network": network, "options": {"width": 1} if network == "fpn" else {}, "classes": 3, "input": INPUT}
    with pytest.raises(SpecError, match=f"has no narrower `{network}` with 0.5 times the channels") as caught:
        completed({"teacher": teacher, "spec": {"task": task, "student": LIKE}})
    assert caught.value.problems[0].pointer == "/student/like" and "Name the student's `network`" in caught.value.hint


class Shuffling(nn.Module):
    """A network whose channels cannot be followed."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.conv(x).permute(0, 2, 3, 1).mean((1, 2)))


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"student": LIKE | {"classes": 7}}, "/student/like", "gives 4 outputs, and the job has 7 classes"),
        ({"student": LIKE | {"width": 0.0}}, "/student/width", "must be greater than 0"),
        ({"student": LIKE | {"network": "lenet5"}}, "/student/like", "cannot be set if `network` is"),
        ({"train": False}, "/student/like", "which the teacher's program lacks: pack it with `--student`"),
        ({"network": Shuffling()}, "/student/like", "cannot be followed through `permute`"),
        ({"teachers": 2}, "/student/like", "needs one teacher, and the job has several"),
        ({"teachers": 0}, "/student/like", "needs one teacher, and the job has none"),
    ],
)
def test_refusals_say_why(folder, change, pointer, words):
    network = change.get("network") or of(Residual, 1, channels=1, width=16, classes=4)
    teacher = program(folder, network, train=change.get("train", True))
    values = dict(like(folder, teacher).values) | {"spec": dict(job_of(folder, student=LIKE).spec)}
    values["spec"] |= {"student": change.get("student", LIKE)}
    if "teachers" in change:
        values |= {"teacher": None, "teachers": [teacher] * change["teachers"]}
    (folder / "job.json").write_text(json.dumps(values))
    with pytest.raises(SpecError) as caught:
        check(Job.read(folder / "job.json"))
    assert [(each.pointer, words in each.message) for each in caught.value.problems] == [(pointer, True)]


def test_a_teacher_that_is_trained_first_can_be_followed(folder):
    spec = {"teacher": {"network": "lenet5", "options": {}, "training": {"steps": 2}}}
    student = {"like": "teacher", "width": 0.5, "classes": 4, "input": INPUT}
    job = job_of(folder, **spec, student=student, objectives=OBJECTIVES[:1])
    (folder / "job.json").write_text(json.dumps({**job.values, "teacher": None}))
    run_whole(Job.read(folder / "job.json"))
    assert student_of(folder)["conv3.weight"].shape[:2] == (60, 8)
