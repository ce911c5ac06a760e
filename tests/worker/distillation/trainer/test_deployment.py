"""If objectives add modules to the student, the extended network is measured, exported, counted and teaches later stages."""

import json
import shutil

import onnxruntime
import pytest
import torch
from safetensors import safe_open

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.trial import Trial, contract_of, objective_of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.export import export
from worker.distillation.introspection.taps import Tapped
from worker.distillation.job import Job
from worker.distillation.networks.reused_classifier import ReusedClassifier, projector
from worker.distillation.tasks import classification
from worker.distillation.trainer import lineage
from worker.distillation.trainer.checkpoint import state_of
from worker.distillation.trainer.lineage import Lineage
from worker.distillation.uploads.inspect_upload import inspect

REUSE = {"objectives": [{"name": "similarity_head"}]}
EPOCHS = {"steps": None, "epochs": 2}
STEPS = 6  # two epochs of three steps


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def evaluated(job: Job) -> Job:
    return Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, job.folder)


def report_of(folder):
    return json.loads((folder / "output" / "report.json").read_text())


def rebuilt(folder, job) -> ReusedClassifier:
    """The network that shipped, built from its parts."""
    student = networks.build("lenet5_half", 4, job.contract)
    student.fc2 = torch.nn.Identity()
    network = ReusedClassifier(student, "fc2:in", (), projector(42, 42, 84, False, True), torch.nn.Linear(84, 4))
    network.load_state_dict(student_of(folder), strict=True)
    return network.eval()


@pytest.mark.parametrize("selection", ["last", "best"])
def test_the_network_that_ships_is_measured_exported_and_counted(folder, selection):
    training = EPOCHS | {"selection": selection, "validation_fraction": 0.25}
    job = evaluated(job_of(folder, **REUSE, exports=["safetensors", "onnx"], training=training))
    run_whole(job)
    report, network = report_of(folder), rebuilt(folder, job)

    images, _ = job.load_evaluation(torch.device("cpu"))
    metrics = classification.evaluate(network, images, 16)
    assert report["evaluation"]["student"]["accuracy"] == pytest.approx(metrics["accuracy"])

    image = torch.randn(3, 1, 16, 16)
    session = onnxruntime.InferenceSession(folder / "output" / "student.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), network(image).detach(), rtol=1e-4, atol=1e-4)

    alone = sum(p.numel() for p in networks.build("lenet5_half", 4, job.contract).parameters())
    parameters = sum(p.numel() for p in network.parameters())
    assert report["student"]["parameters"] == report["summary"]["parameters"] == parameters
    assert report["student"]["parameters_alone"] == alone != parameters
    assert report["student"]["added_by"] == ["similarity_head"]
    assert any("similarity_head" in note and f"{parameters:,}" in note for note in report["summary"]["notes"])
    with safe_open(folder / "output" / "student.safetensors", "pt") as file:
        assert json.loads(file.metadata()["added_by"]) == ["similarity_head"]


def test_the_network_with_the_best_metric_ships(folder, monkeypatch):
    measured = []

    def worse_every_time(network, *_):
        measured.append(state_of(network))
        return {"accuracy": 1 / len(measured)}

    monkeypatch.setattr(classification, "evaluate", worse_every_time)
    monkeypatch.setattr("worker.distillation.run.check_teacher", lambda *given: None)
    run_whole(job_of(folder, **REUSE, training=EPOCHS | {"selection": "best", "validation_fraction": 0.25}))
    assert len(measured) == 2
    assert same_bits(student_of(folder), measured[0])
    assert not torch.equal(measured[0]["projector.0.weight"], measured[1]["projector.0.weight"])


def test_the_teachers_classifier_ships_unchanged(folder):
    run_whole(job_of(folder, **REUSE))
    teacher = Job(job_of(folder).values, folder).build_teacher(torch.device("cpu"))
    assert torch.equal(student_of(folder)["classifier.weight"], teacher.fc2.weight)


def test_other_students_ship_without_additions(folder):
    run_whole(job_of(folder, objectives=[{"name": "kd"}]))
    report = report_of(folder)
    assert not {"added_by", "parameters_alone"} & report["student"].keys()
    assert (
        student_of(folder).keys()
        == networks.build("lenet5_half", 4, read_contract(job_of(folder).values["teacher"]["input"]))
        .state_dict()
        .keys()
    )


@pytest.mark.parametrize("at", range(1, STEPS + 1))
@pytest.mark.parametrize("selection", ["last", "best"])
def test_killed_anywhere_and_restored_bit_equal(engine_inputs, tmp_path, at, selection):
    spec = REUSE | {"training": EPOCHS | {"selection": selection, "validation_fraction": 0.25}}
    shutil.copytree(engine_inputs, tmp_path / "whole")
    run_whole(job_of(tmp_path / "whole", **spec))
    shutil.copytree(engine_inputs, tmp_path / "killed")
    run_killed(job_of(tmp_path / "killed", **spec), at, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))


def test_later_stages_are_taught_by_the_extended_network(folder, monkeypatch):
    """The student of the first generation teaches the second with its projector and its reused classifier."""
    taught = []
    teacher_of = Lineage.teacher_of

    def watched(self, stage):
        found = teacher_of(self, stage)
        taught.append((stage.name, type(found.network).__name__))
        return found

    monkeypatch.setattr(lineage.Lineage, "teacher_of", watched)
    procedure = {"name": "assistant", "assistants": [{"network": "lenet5_half", "options": {}}]}
    job = job_of(folder, **REUSE, procedure=procedure)
    check(job)
    run_whole(job)
    assert "ReusedClassifier" in {kind for _, kind in taught}
    assert {key.split(".")[0] for key in student_of(folder)} == {"student", "projector", "classifier"}


@pytest.mark.parametrize("action", [check, run_whole])
def test_only_one_objective_may_add_modules(folder, action):
    objectives = [{"name": "kd"}, {"name": "similarity_head"}, {"name": "similarity_head", "reduction": 4}]
    with pytest.raises(SpecError) as caught:
        action(job_of(folder, objectives=objectives))
    assert [problem.pointer for problem in caught.value.problems] == ["/objectives/2/name"]


def test_a_projector_of_maps_exports_and_teaches(tmp_path):
    trial = Trial.of("residual", objective_of("similarity_head"))
    deployed = trial.objective.deploy(trial.student.network, trial.teacher.network)
    meta = {"network": "resnet8_cifar", "options": {}, "task": "classification", "output": "logits"}
    meta |= {"added_by": ("similarity_head",)}
    names = [str(number) for number in range(5)]
    files = export(
        deployed, contract=contract_of(3, 8), class_names=names, formats=["onnx"], folder=tmp_path, meta=meta
    )  # `export` compares logits
    assert [file["name"] for file in files] == ["student.onnx"]
    assert "projector" in Tapped(deployed, trial.batch.image).map.stages


def test_a_student_with_its_teachers_classifier_is_refused_as_a_teacher(folder):
    run_whole(job_of(folder, **REUSE))
    shutil.copy(folder / "output" / "student.safetensors", folder / "sent")
    said = {"network": "lenet5_half", "classes": 4, "input": job_of(folder).values["teacher"]["input"]}
    with pytest.raises(UploadError, match="a projector and its teacher's classifier, as `similarity_head` ships"):
        inspect({"kind": "teacher", "upload": "sent", "teacher": said}, folder)
