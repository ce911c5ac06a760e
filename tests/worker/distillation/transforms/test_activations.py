"""Activations of few bits: LSQ written slowly, its gradients, first scales, files, and what it cannot be combined with."""

import json
import shutil

import onnx
import pytest
import torch
from torch import nn

from tests.worker.distillation.killed_runs import job_of, run_whole, student_of
from tests.worker.distillation.procedures.trained import report_of, run
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.compression.learned_rounding import (
    LearnedRounding,
    attach_learned,
    learned_roundings,
    limits,
    start_scales,
    waits_for_images,
    with_fixed_rounding,
)
from worker.distillation.contract import read_contract
from worker.distillation.errors import SpecError
from worker.distillation.export import onnx as onnx_file

LOW = {"name": "quantise", "bits": 3, "activations": 3}


@pytest.fixture
def folder(engine_inputs, tmp_path):
    return shutil.copytree(engine_inputs, tmp_path / "job")


def rounding(bits: int, scale: float, signed: bool) -> LearnedRounding:
    made = LearnedRounding(bits)
    with torch.no_grad():
        made.scale.fill_(scale)
    made.signed.fill_(signed)
    made.active.fill_(True)
    return made


@pytest.mark.parametrize(
    ("bits", "signed", "expected"), [(2, False, (0, 3)), (2, True, (-2, 1)), (8, True, (-128, 127))]
)
def test_limits(bits, signed, expected):
    assert limits(bits, signed) == expected


@pytest.mark.parametrize("signed", [False, True])
def test_gradients_are_those_of_the_paper(signed):
    """Esser et al., equations 3 and 5, written for each value."""
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 4) * 2).requires_grad_(True)
    own, scale, upstream = rounding(3, 0.6, signed), 0.6, torch.randn(2, 3, 4)
    given = own(x)
    given.backward(upstream)
    least, largest = (-4, 3) if signed else (0, 7)
    of_scale, of_x, values = 0.0, [], []
    for value, slope in zip(x.detach().flatten().tolist(), upstream.flatten().tolist(), strict=True):
        ratio = value / scale
        inside = least < ratio < largest
        code = round(min(max(ratio, least), largest))
        of_scale += slope * (code - ratio if inside else (least if ratio <= least else largest))
        of_x.append(slope if inside else 0.0)
        values.append(code * scale)
    torch.testing.assert_close(given.detach().flatten(), torch.tensor(values))
    torch.testing.assert_close(x.grad.flatten(), torch.tensor(of_x))
    torch.testing.assert_close(own.scale.grad, torch.tensor([of_scale / (12 * largest) ** 0.5]), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(own(x), given.detach())


def test_first_scales_and_signs_are_measured():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    attach_learned(network, {"1": 4, "3": 2})
    images = torch.randn(300, 12)
    with torch.no_grad():
        inner = network[2](network[1](images)) if waits_for_images(network) else None
        expected = network(images)
    assert inner is not None
    torch.testing.assert_close(expected, network[3](inner))
    start_scales(network, images)
    found = dict(learned_roundings(network))
    first, second = found["1.input_rounding"], found["3.input_rounding"]
    assert bool(first.signed) and not bool(second.signed) and not waits_for_images(network)
    assert float(first.scale.detach()) == pytest.approx(2 * float(images.abs().mean()) / 7**0.5, rel=1e-5)
    assert float(second.scale.detach()) == pytest.approx(2 * float(inner.mean()) / 3**0.5, rel=1e-5)
    with torch.no_grad():
        assert torch.equal(with_fixed_rounding(network)(images), network(images))


def test_the_student_rounds_its_activations(folder):
    done = run(job_of(folder, transforms=[LOW], evaluation=None))
    network = done.lineage.network(done.lineage.student_place()).eval()
    seen = {}
    for name in ("conv2", "fc1"):
        module = network.get_submodule(name).input_rounding
        module.register_forward_hook(lambda _m, _a, output, name=name: seen.__setitem__(name, output))
    with torch.no_grad():
        network(torch.randn(64, 1, 16, 16))
    assert all(len(values.unique()) <= 8 for values in seen.values())
    facts = report_of(folder)["transformed"]["of"][0]
    assert facts["activation_bits"]["conv2"] == 3 and facts["activation_bits"]["conv1"] == 8
    assert facts["bits"]["conv2"] == 3
    state = student_of(folder)
    assert set(state) == set(
        networks.build("lenet5_half", 4, read_contract(done.job.teacher["input"]), {}).state_dict()
    )


def test_scales_train(folder):
    done = run(job_of(folder, transforms=[LOW], training={"steps": 6, "learning_rate": 0.05}))
    again = run(
        job_of(
            shutil.copytree(folder / "inputs", folder / "again" / "inputs").parent,
            transforms=[LOW],
            training={"steps": 1, "learning_rate": 0.05},
        )
    )
    scales = [
        {
            path: float(each.scale.detach())
            for path, each in learned_roundings(one.lineage.network(one.lineage.student_place()))
        }
        for one in (done, again)
    ]
    assert scales[0].keys() == scales[1].keys() and all(scales[0][path] != scales[1][path] for path in scales[0])


@pytest.mark.slow
def test_the_onnx_file_rounds_as_the_student_does(folder):
    learns = {"steps": 80, "optimizer": "adam", "learning_rate": 3e-3}
    job = job_of(folder, transforms=[LOW], training=learns, exports=["safetensors", "onnx", "packed"])
    job.values["evaluation"] = "inputs/dataset.safetensors"
    run_whole(job)
    report = report_of(folder)
    file = next(each for each in report["student"]["files"] if each["name"] == "student.onnx")
    assert file["agreement"] >= 0.99
    own, measured = report["evaluation"]["student"]["accuracy"], report["transformed"]["onnx"]["evaluation"]["accuracy"]
    assert abs(own - measured) <= 0.02 and own > 0.5
    kinds = [node.op_type for node in onnx.load(folder / "output" / "student.onnx").graph.node]
    assert kinds.count("Round") == 5 and "QuantizeLinear" not in kinds
    assert any("rounds weights and activations" in note for note in report["notes"])
    assert not any("integers do not make" in note for note in report["notes"])


def test_it_cannot_be_combined_with_int8(folder):
    with pytest.raises(SpecError) as refused:
        check(job_of(folder, transforms=[LOW, {"name": "int8"}]))
    assert [problem.pointer for problem in refused.value.problems] == ["/transforms/1/name"]
    assert check(job_of(folder, transforms=[LOW]))["student"]["parameters"] > 0


def test_noise_measures_no_activations(folder):
    spec = {"source": {"name": "noise"}, "objectives": [{"name": "kd", "weight": 1.0}], "transforms": [LOW]}
    with pytest.raises(SpecError, match="none that resemble real ones"):
        run_whole(job_of(folder, **spec))


def test_a_graph_is_written_without_its_tables(folder, tmp_path):
    """What `write_graph` gives to the exporter is the student with fixed rounding."""
    done = run(job_of(folder, transforms=[{**LOW, "ends": "float"}]))
    network = done.lineage.network(done.lineage.student_place()).eval()
    paths = {path for path, _ in learned_roundings(network)}
    assert paths == {"conv2.input_rounding", "conv3.input_rounding", "fc1.input_rounding"}
    entries = json.loads(json.dumps(done.lineage.entries_at(done.lineage.student_place())))
    assert set(entries[0]["recipe"]["activations"]) == {"conv2", "conv3", "fc1"}
    assert onnx_file.rounds_activations(network) and not onnx_file.in_integers(network)
