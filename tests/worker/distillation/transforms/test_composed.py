"""Transforms with other parts of a job: files and report, checks of specs, procedures, sources without data, teachers, two ranks."""

import json
import runpy
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import INPUT, job_of, run_whole, same_bits, student_of, with_residual_teacher
from tests.worker.distillation.procedures.trained import CE, HALF, KD, LENET, report_of, run, taught, weights_of
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.compression.plain import plain
from worker.distillation.compression.unpacking import unpacked
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.export.huffman_reading import to_safetensors
from worker.distillation.export.safetensors import metadata_of, read
from worker.distillation.job import Job
from worker.distillation.trainer.checkpoint import Checkpoints
from worker.distillation.trainer.lineage import Lineage

LSQ = {"name": "quantise", "bits": 4}
INT8 = {"name": "int8", "images": 32}
SMALLEST = [{"name": "prune", "begin": 0.0, "end": 0.5}, {"name": "share"}]
FACTORS = {"name": "factorise", "keep": 0.6}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def evaluated(job: Job) -> Job:
    return Job({**job.values, "evaluation": "inputs/dataset.safetensors"}, job.folder)


def run_with(folder, transforms, **spec):
    run_whole(evaluated(job_of(folder, transforms=transforms, **spec)))
    return report_of(folder)


def test_every_file_holds_the_students_weights(folder):
    report = run_with(folder, SMALLEST, exports=["safetensors", "packed", "huffman"])
    output, plain = folder / "output", student_of(folder)
    packed = output / "student.packed.safetensors"
    (output / "again.safetensors").write_bytes(to_safetensors((output / "student.huffman").read_bytes()))
    assert same_bits(unpacked(read(packed), metadata_of(packed)["packed"]), plain)
    assert same_bits(load_file(output / "again.safetensors"), plain)
    network = networks.build("lenet5_half", 4, read_contract(INPUT), {})
    network.load_state_dict(plain)
    own = runpy.run_path(str(output / "student.py"))
    image = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8)
    for name in ("student.safetensors", "student.packed.safetensors"):
        given = own["load"](output / name)(own["preprocess"](image))
        assert torch.equal(given, network.eval()((image.float() / 255 - 0.5) / 0.25))
    facts = {each["name"]: each for each in report["transformed"]["of"]}
    assert facts["prune"]["sparsity"] == pytest.approx(0.9, abs=0.001)
    assert facts["share"]["bits"]["conv1"] == 8 and facts["share"]["bits"]["fc1"] == 5
    sizes = {file["name"]: file["bytes"] for file in report["student"]["files"]}
    assert sizes["student.huffman"] == (output / "student.huffman").stat().st_size < sizes["student.packed.safetensors"]
    whole = report["transformed"]["float32_student_bytes"]
    assert whole == sum(tensor.nbytes for tensor in plain.values())
    assert report["transformed"]["times_smaller"]["student.huffman"] == whole / sizes["student.huffman"]
    teacher = report["teacher"]["file_bytes"]
    assert report["transformed"]["times_smaller_than_teacher"]["student.huffman"] == teacher / sizes["student.huffman"]
    card = (output / "README.md").read_text()
    assert "## Transforms" in card and "sparsity 0.9" in card
    described = json.loads((output / "student.json").read_text())["transforms"]
    assert [each["spec"]["name"] for each in described] == ["prune", "share"]


@pytest.mark.slow
def test_the_report_of_an_int8_student_measures_its_file(folder):
    report = run_with(folder, [INT8], exports=["safetensors", "onnx", "packed"])
    measured = report["transformed"]["onnx"]
    assert measured["milliseconds"] > 0 and measured["float32_milliseconds"] > 0
    assert abs(measured["evaluation"]["accuracy"] - report["evaluation"]["student"]["accuracy"]) <= 0.05
    sizes = {file["name"]: file for file in report["student"]["files"]}
    assert sizes["student.onnx"]["agreement"] >= 0.99 and sizes["student.onnx"]["images"] == 64
    assert measured["float32_bytes"] > sizes["student.onnx"]["bytes"]
    assert any(
        "student.safetensors` and `student.py` compute with activations in float32" in note for note in report["notes"]
    )
    assert report["transformed"]["of"][0]["activation_bits"] == 8


@pytest.mark.parametrize("transforms", [[FACTORS], [LSQ], [FACTORS, *SMALLEST, INT8], [{"name": "learned_points"}]])
def test_a_network_built_again_from_its_recipe_computes_the_same(folder, transforms):
    """The checkpoint's parts build the network again, as another process does; its outputs differ by 0.0."""
    done = run(job_of(folder, transforms=transforms))
    place = done.lineage.student_place()
    again = Lineage(done.job, Checkpoints(folder / "checkpoints"), torch.device("cpu"), done.state.history)
    again.checkpoints._frozen = json.loads(json.dumps(done.checkpoints._frozen))
    image = torch.randn(16, 1, 16, 16)
    with torch.no_grad():
        given, expected = (each.network(place).eval()(image) for each in (again, done.lineage))
    assert float((given - expected).abs().max()) == 0.0
    assert same_bits(student_of(folder), plain(again.network(place)).state_dict())


def test_a_spec_is_checked_without_weights(folder):
    facts = check(job_of(folder, transforms=[FACTORS, *SMALLEST, INT8]))
    assert facts["student"]["parameters"] > 0
    with pytest.raises(SpecError) as refused:
        check(job_of(folder, transforms=[LSQ, FACTORS]))
    assert [problem.pointer for problem in refused.value.problems] == ["/transforms/1"]
    with pytest.raises(SpecError) as refused:
        check(job_of(folder, transforms=[{"name": "factorise", "parameters": 3}]))
    assert [problem.pointer for problem in refused.value.problems] == ["/transforms/0/parameters"]


def test_noise_does_not_calibrate(folder):
    spec = {"source": {"name": "noise"}, "objectives": [KD], "transforms": [INT8]}
    with pytest.raises(SpecError, match="none that resemble real ones"):
        run_whole(job_of(folder, **spec))


def test_noise_trains_a_student_of_few_bits(folder):
    run_whole(job_of(folder, source={"name": "noise"}, objectives=[{"name": "kd"}], transforms=[LSQ]))
    assert len(student_of(folder)["conv2.weight"][0].unique()) <= 16


@pytest.mark.slow
def test_int8_without_data_calibrates_on_synthesised_images(engine_inputs, tmp_path):
    folder = with_residual_teacher(engine_inputs, tmp_path / "job")
    source = {
        "name": "dafl",
        "generator_batch": 16,
        "generator_width": 8,
        "initial_generator_steps": 2,
        "pool_images": 64,
    }
    job = job_of(
        folder, source=source, objectives=[KD], transforms=[INT8], student={"network": "resnet8_cifar", "options": {}}
    )
    job.values["teacher"]["network"] = "resnet8_cifar"
    run_whole(job)
    report = report_of(folder)
    assert (
        report["transformed"]["of"][0]["rounded_activations"] == 18
    )  # 9 of 10 layers, all but the first, and 9 of BatchNorm, some after their ReLU
    assert report["without_data"]["agreement_with_teacher"] >= 0


def test_every_generation_is_transformed_anew(folder):
    run_whole(
        taught(
            folder, {"name": "born_again", "generations": 2}, transforms=[FACTORS, {"name": "quantise", "ends": "same"}]
        )
    )
    for name in ("student", "generation_1"):
        weights = weights_of(folder, name)
        assert {"fc1.0.weight", "fc1.1.weight"} <= weights.keys()
        assert all(len(row.unique()) <= 16 for row in weights["fc1.0.weight"])


def test_a_network_that_is_trained_on_keeps_its_factors(folder):
    procedure = {"name": "route", "teacher": LENET, "teacher_epochs": 2, "anchors": 2}
    run_whole(taught(folder, procedure, teacher=False, transforms=[FACTORS, LSQ], training={"steps": 4}))
    assert "fc1.0.weight" in weights_of(folder) and "fc1.0.0.weight" not in weights_of(folder)


def test_a_factorised_student_teaches_another_job(folder, engine_inputs, tmp_path):
    learns = {"steps": 60, "optimizer": "adam", "learning_rate": 0.01}
    run_whole(job_of(folder, transforms=[FACTORS], training=learns))
    card = json.loads((folder / "output" / "student.json").read_text())
    other = shutil.copytree(engine_inputs, tmp_path / "other")
    shutil.copy(folder / "output" / "student.safetensors", other / "inputs" / "teacher.safetensors")
    job = job_of(other, objectives=[CE, KD], contract="trust")
    job.values["teacher"].update(network="lenet5_half", options=card["options"], transforms=card["transforms"])
    run_whole(job)
    assert report_of(other)["teacher"]["parameters"] == report_of(folder)["student"]["parameters"]


@pytest.mark.parametrize(("scheme", "spec", "kept"), [
    ("a", {"teacher": False, "objectives": [CE, {"name": "mutual"}]}, "teacher"),
    ("b", {"objectives": [CE, KD]}, None),
    ("c", {"objectives": [CE, KD]}, "full_precision"),
])  # fmt: skip
def test_apprentices(folder, scheme, spec, kept):
    ternary = {"name": "quantise", "scheme": "ttq", "ends": "float"}
    spec = {"student": dict(HALF), "training": {"steps": 4}} | spec
    run_whole(taught(folder, {"name": "apprentice", "scheme": scheme}, transforms=[ternary], **spec))
    weights = weights_of(folder)
    assert len(weights["conv2.weight"].unique()) == 3 and len(weights["fc1.weight"].unique()) == 3
    assert len(weights["conv1.weight"].unique()) > 3
    if kept is not None:
        assert len(weights_of(folder, kept)["conv2.weight"].unique()) > 3
