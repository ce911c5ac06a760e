"""Exports in half precision: they are smaller, close to the student, and the difference that is reported is the real one."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import EngineError
from worker.distillation.export import export
from worker.distillation.export.card import Card
from worker.distillation.export.half import COMPARED_IMAGES, compare
from worker.distillation.export.portable import portable, random_images

CONTRACT = InputContract(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
CARD = Card("x", {}, ("a", "b"), CONTRACT, "classification", "logits")
META = {"network": "resnet8_cifar", "options": {}, "task": "classification", "output": "logits"}
FORMATS = ("safetensors", "onnx", "safetensors_fp16", "onnx_fp16")


def exported(network: nn.Module, folder: Path, formats=FORMATS) -> dict[str, dict]:
    files = export(network, contract=CONTRACT, class_names=list("abcd"), formats=formats, folder=folder, meta=META)
    return {file["name"]: file for file in files}


@pytest.fixture(scope="module")
def student() -> nn.Module:
    torch.manual_seed(0)
    return networks.build("resnet8_cifar", 4, CONTRACT).eval()


@pytest.fixture(scope="module")
def files(student: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return exported(student, tmp_path_factory.mktemp("half"))


def relative(given: Tensor, student: nn.Module) -> float:
    with torch.no_grad():
        expected = portable(student)(random_images(CONTRACT, COMPARED_IMAGES))
    return float((given - expected).abs().max() / expected.abs().max())


def test_weights_in_half_precision_are_the_rounded_weights(student: nn.Module, files: dict[str, dict]):
    path = files["student.fp16.safetensors"]["path"]
    weights = load_file(path)
    for name, tensor in student.state_dict().items():
        rounded = tensor.half() if tensor.is_floating_point() else tensor
        assert weights[name].dtype == rounded.dtype and torch.equal(weights[name], rounded)
    with safe_open(path, "pt") as file:
        assert file.metadata()["precision"] == "float16"
    assert path.stat().st_size < 0.6 * files["student.safetensors"]["path"].stat().st_size
    restored = networks.build("resnet8_cifar", 4, CONTRACT).eval()
    restored.load_state_dict(weights)
    measured = files["student.fp16.safetensors"]["measured"]
    with torch.no_grad():
        given = restored(random_images(CONTRACT, COMPARED_IMAGES))
    assert measured["max_relative_difference"] == pytest.approx(relative(given, student), rel=1e-3)
    assert 0 < measured["max_relative_difference"] < 0.01 and measured["agreement"] >= 0.95


def test_graph_in_half_precision_reads_and_gives_float32_for_any_batch(student: nn.Module, files: dict[str, dict]):
    file = files["student.fp16.onnx"]
    graph = onnx.load(file["path"])
    weights = [each for each in graph.graph.initializer if len(each.dims) > 1]
    assert weights and all(each.data_type == onnx.TensorProto.FLOAT16 for each in weights)
    assert file["measured"]["opset"] == graph.opset_import[0].version == files["student.onnx"]["measured"]["opset"]
    session = onnxruntime.InferenceSession(file["path"], providers=["CPUExecutionProvider"])
    image = random_images(CONTRACT, COMPARED_IMAGES)
    (logits,) = session.run(["logits"], {"image": image.numpy()})
    difference = file["measured"]["max_relative_difference"]
    assert difference == pytest.approx(relative(torch.from_numpy(logits), student), rel=1e-3)
    assert 0 < difference < 0.02
    (one,) = session.run(["logits"], {"image": image[:1].numpy()})
    torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(logits[:1]), rtol=1e-2, atol=1e-2)


def test_difference_and_agreement_are_those_counted_by_hand():
    expected = torch.tensor([[4.0, 1.0], [1.0, 2.0]])
    given = torch.tensor([[4.0, 1.0], [1.6, 1.6 - 1e-3]])
    with pytest.raises(EngineError, match="differ by"):
        compare(given, expected, CARD, "onnx_fp16")
    given = torch.tensor([[3.8, 1.0], [1.0, 2.0]])
    assert compare(given, expected, CARD, "onnx_fp16") == {
        "images": 2, "max_relative_difference": pytest.approx(0.2 / 4), "agreement": 1.0,
    }  # fmt: skip
    with pytest.raises(EngineError, match="differ by"):
        compare(given * torch.nan, expected, CARD, "onnx_fp16")


@pytest.mark.parametrize("name", ["safetensors_fp16", "onnx_fp16"])
def test_weights_above_the_range_of_float16_are_refused(name: str, tmp_path: Path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    network[1].bias.data[2] = 1e5
    with pytest.raises(EngineError, match=r"`1.bias` has values above 65504"):
        exported(network, tmp_path, [name])
    assert list(tmp_path.iterdir()) == []
