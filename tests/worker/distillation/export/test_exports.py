"""Exports: files compute the same as the student, or are refused."""

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import EngineError, SpecError
from worker.distillation.export import export
from worker.distillation.export.onnx import ExportFailed, verify
from worker.distillation.export.portable import portable
from worker.distillation.export.safetensors import serialise

CONTRACT = InputContract(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
NAMES = ("a", "b", "ü", "d")
META = {"network": "resnet8_cifar", "options": {}, "task": "classification", "output": "logits"}


@pytest.fixture(scope="module")
def student() -> nn.Module:
    torch.manual_seed(0)
    network = networks.build("resnet8_cifar", 4, CONTRACT).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(torch.randn(8, 3, 16, 16))  # changes the initial statistics of BatchNorm
    return network.train()


@pytest.fixture(scope="module")
def exported(student: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    files = export(
        student, contract=CONTRACT, class_names=NAMES, formats=["safetensors", "onnx"], folder=folder, meta=META
    )
    assert [(file["name"], file["path"]) for file in files] == [
        (name, folder / name) for name in ("student.safetensors", "student.onnx")
    ]
    assert {path.name for path in folder.iterdir()} == {"student.safetensors", "student.onnx"}
    return folder


def test_safetensors_is_enough_to_build_the_student(student: nn.Module, exported: Path):
    path = exported / "student.safetensors"
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    contract = InputContract(**json.loads(said["input"]))
    built = networks.build(said["network"], json.loads(said["classes"]), contract, json.loads(said["options"]))
    built.load_state_dict(load_file(path), strict=True)
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(built.eval()(image), portable(student)(image))
    assert tuple(json.loads(said["class_names"])) == NAMES and (contract.channels, list(contract.mean)) == (
        3,
        list(CONTRACT.mean),
    )


def test_bytes_of_safetensors_depend_on_the_content_only():
    state = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    metadata = {f"key{number}": "ü" * number for number in range(12)}
    first = serialise(state, metadata)
    assert all(serialise(state, dict(reversed(metadata.items()))) == first for _ in range(5))
    assert int.from_bytes(first[:8], "little") % 8 == 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_computes_the_students_logits_for_any_batch(student: nn.Module, exported: Path, count: int):
    session = onnxruntime.InferenceSession(exported / "student.onnx", providers=["CPUExecutionProvider"])
    image = torch.randn(count, 3, 16, 16)
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    np.testing.assert_allclose(logits, portable(student)(image).numpy(), atol=1e-4)


def test_onnx_has_metadata_without_paths_of_the_machine(exported: Path):
    path = exported / "student.onnx"
    graph = onnx.load(path)
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(said["input"])["std"] == list(CONTRACT.std) and tuple(json.loads(said["class_names"])) == NAMES
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"site-packages" not in path.read_bytes() and str(Path.cwd()).encode() not in path.read_bytes()


def test_student_is_not_changed(student: nn.Module, tmp_path: Path):
    before = copy.deepcopy(student.state_dict())
    generator = torch.get_rng_state()
    export(student, contract=CONTRACT, class_names=NAMES, formats=["safetensors", "onnx"], folder=tmp_path, meta=META)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert student.training and all(parameter.requires_grad for parameter in student.parameters())
    assert student.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(generator, torch.get_rng_state())


def test_nothing_is_printed_to_standard_output(student: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    export(student, contract=CONTRACT, class_names=NAMES, formats=["onnx"], folder=tmp_path, meta=META)
    assert capfd.readouterr().out == ""


def tamper(path: Path, change) -> None:
    graph = onnx.load(path)
    change(graph.graph)
    onnx.save(graph, path)


def nudge(graph: onnx.GraphProto) -> None:
    """Add 0.01 to the last floating-point weight or bias."""
    weight = next(each for each in reversed(graph.initializer) if each.data_type == onnx.TensorProto.FLOAT)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.01), weight.name))


def rename(graph: onnx.GraphProto) -> None:
    graph.input[0].name = "picture"


def fix_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


@pytest.mark.parametrize("change", [nudge, rename, fix_batch])
def test_tampered_onnx_is_detected(student: nn.Module, exported: Path, tmp_path: Path, change):
    path = tmp_path / "student.onnx"
    path.write_bytes((exported / "student.onnx").read_bytes())
    verify(path, portable(student), CONTRACT)
    tamper(path, change)
    with pytest.raises(ExportFailed):
        verify(path, portable(student), CONTRACT)


def test_truncated_onnx_is_detected(student: nn.Module, exported: Path, tmp_path: Path):
    path = tmp_path / "student.onnx"
    path.write_bytes((exported / "student.onnx").read_bytes()[:-1000])
    with pytest.raises(ExportFailed):
        verify(path, portable(student), CONTRACT)


class Wavering(nn.Module):
    """A network that a graph cannot represent: its output depends on the number of calls."""

    def __init__(self):
        super().__init__()
        self.inner, self.asked = nn.Linear(3 * 16 * 16, 4), 0

    def forward(self, image):
        self.asked += 1
        return self.inner(image.flatten(1)) * self.asked


def test_graph_that_differs_from_the_student_is_not_published(tmp_path: Path):
    with pytest.raises(ExportFailed) as caught:
        export(Wavering(), contract=CONTRACT, class_names=NAMES, formats=["onnx"], folder=tmp_path, meta=META)
    assert "differ" in caught.value.message and list(tmp_path.iterdir()) == []


class Data(nn.Module):
    """A network with data-dependent control flow, which a graph cannot represent."""

    def forward(self, image):
        return image.flatten(1)[:, :4] if float(image.sum()) > 0 else image.flatten(1)[:, 4:8]


def test_network_that_cannot_be_converted_is_an_engine_error(tmp_path: Path):
    with pytest.raises(ExportFailed, match="cannot be converted"):
        export(Data(), contract=CONTRACT, class_names=NAMES, formats=["onnx"], folder=tmp_path, meta=META)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_broken_weights_are_refused(tmp_path: Path):
    network = nn.Linear(2, 2)
    with pytest.raises(SpecError) as caught:
        export(
            network, contract=CONTRACT, class_names=NAMES, formats=["safetensors", "gguf"], folder=tmp_path, meta=META
        )
    assert caught.value.problems[0].pointer == "/exports/1"
    network.bias.data[0] = float("nan")
    with pytest.raises(EngineError, match="`bias` contains NaN"):
        export(network, contract=CONTRACT, class_names=NAMES, formats=["safetensors"], folder=tmp_path, meta=META)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("task", "output", "outputs"), [("regression", "values", 1), ("embedding", "embedding", 6)])
def test_files_of_other_tasks_name_their_output(task: str, output: str, outputs: int, tmp_path: Path):
    torch.manual_seed(0)
    network = networks.build("mlp", outputs, CONTRACT, {"hidden": [4]})
    meta = {"network": "mlp", "options": {"hidden": [4]}, "task": task, "output": output}
    export(
        network, contract=CONTRACT, class_names=tuple("abcdef"[:outputs]), formats=["onnx"], folder=tmp_path, meta=meta
    )
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == [output]
    assert session.get_modelmeta().custom_metadata_map["task"] == task
