"""int8: folding, ranges, the ONNX file in integers against onnxruntime, and against its own quantiser."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.compression.activations import Rounding, attach, measure_ranges, roundings
from worker.distillation.compression.folded import folded, norms_after, rounded_outputs
from worker.distillation.compression.integer_form import in_integers
from worker.distillation.compression.member_transforms import MemberTransforms, TransformContext
from worker.distillation.compression.plain import plain
from worker.distillation.contract import InputContract
from worker.distillation.export import export
from worker.distillation.export.onnx import ExportFailed
from worker.distillation.transformed_network import rebuild
from worker.distillation.transforms.int8 import Integer

CONTRACT = InputContract(3, 16, 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
META = {"network": "resnet8_cifar", "options": {}, "task": "classification", "output": "logits"}


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth images, which activations differ on."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=draw)
    return nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear") * 2


def trained(network: nn.Module, transforms: MemberTransforms | None = None, steps: int = 30) -> nn.Module:
    """Learns the brightest channel."""
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr=3e-3)
    network.train()
    for step in range(steps):
        x = images(32, seed=step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), x.mean((2, 3)).argmax(1)).backward()
        optimizer.step()
        if transforms is not None:
            transforms.after_step(network, (step + 1) / steps)
    return network.eval()


def context() -> TransformContext:
    return TransformContext(example=torch.zeros(2, 3, 16, 16), contract=CONTRACT, classes=4, images=images)


def made(**settings) -> tuple[nn.Module, MemberTransforms]:
    torch.manual_seed(0)
    network = networks.build("resnet8_cifar", 4, CONTRACT)
    transforms = MemberTransforms([{"name": "int8", "images": 64, **settings}], network, context())
    return trained(network, transforms), transforms


@pytest.fixture(scope="module", params=[True, False], ids=["aware", "at the end"])
def finished(request) -> tuple[nn.Module, list, torch.Tensor]:
    """The student, its entries, and logits of the network before it was finalised."""
    network, transforms = made(aware=request.param, begin=0.6)
    with torch.no_grad():
        before = network(images(200, seed=99))
    entries = transforms.finalize(network)
    return network, entries, before


def test_a_folded_layer_computes_the_layer_and_its_norm() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, -0.1, 3.0]))  # two negative factors
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    codes = torch.randint(-127, 128, (5, 3, 3, 3), dtype=torch.int8)
    scale = torch.rand(5) / 100 + 0.001
    conv.weight.data = codes * scale[:, None, None, None]
    own = folded(codes, scale, conv.bias, norm)
    x = torch.randn(2, 3, 8, 8)
    given = nn.functional.conv2d(x, own.codes * own.scale[:, None, None, None], own.bias)
    torch.testing.assert_close(given, norm.eval()(conv(x)), atol=1e-4, rtol=1e-4)
    assert bool((own.scale > 0).all())


def test_every_batch_norm_of_a_resnet_follows_its_convolution() -> None:
    network = networks.build("resnet8_cifar", 4, CONTRACT)
    pairs = norms_after(network, torch.zeros(2, 3, 16, 16))
    norms = [path for path, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(pairs) == sorted(norms) and len(set(pairs.values())) == len(norms)
    with torch.device("meta"):
        assert norms_after(networks.build("resnet8_cifar", 4, CONTRACT), torch.zeros(2, 3, 16, 16)) == pairs


def test_what_a_relu_reads_is_rounded_after_it() -> None:
    network = networks.build("resnet8_cifar", 4, CONTRACT)
    pairs = norms_after(network, torch.zeros(2, 3, 16, 16))
    places = rounded_outputs(network, pairs, torch.zeros(2, 3, 16, 16))
    kinds = [type(network.get_submodule(path)) for path in places]
    assert kinds.count(nn.ReLU) == 4 and kinds.count(nn.BatchNorm2d) == 5  # the others are added to a shortcut
    relu = nn.ReLU()
    shared = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), relu, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), relu)
    assert rounded_outputs(shared, ["1", "4"], torch.zeros(2, 3, 4, 4)) == ["1", "4"]


def test_rounding_is_that_of_quantize_linear() -> None:
    rounding = Rounding()
    rounding.set_range(torch.tensor(-1.3), torch.tensor(4.2))
    x = torch.cat([torch.linspace(-3, 6, 1001), (torch.arange(256) - 60.5) * float(rounding.scale)])  # ties too
    node = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        node, "g", [onnx.helper.make_tensor_value_info("x", 1, [None])], [onnx.helper.make_tensor_value_info("y", 1, [None])],
        [onnx.numpy_helper.from_array(np.float32(rounding.scale.item()), "s"), onnx.numpy_helper.from_array(np.uint8(rounding.zero.item()), "z")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})
    with torch.no_grad():
        assert torch.equal(rounding(x), torch.from_numpy(expected))


def test_the_gradient_of_rounding_is_one_inside_the_range() -> None:
    rounding = Rounding()
    rounding.set_range(torch.tensor(-1.0), torch.tensor(1.0))
    x = torch.tensor([-2.0, -0.5, 0.2, 0.9, 3.0], requires_grad=True)
    rounding(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_ranges_have_the_least_squared_error() -> None:
    """With an outlier the range is cut; no other part of the range has a smaller error."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    attach(network, ["1"], [])
    data = torch.randn(300, 12)  # more than one batch
    data[7, 3] = 60.0
    measure_ranges(network, data)
    ((_, rounding),) = roundings(network)
    errors = {}
    for part in (1.0, 0.9, 0.75, 0.5, 0.25, 0.1):
        other = Rounding()
        other.set_range(data.min() * part, data.max() * part)
        with torch.no_grad():
            errors[part] = float((other(data) - data).square().sum())
    with torch.no_grad():
        own = float((rounding(data) - data).square().sum())
    assert own <= 1.02 * min(errors.values())
    even = torch.rand(300, 12) * 2 - 1
    measure_ranges(network, even)
    assert float(rounding.scale) == pytest.approx(2 / 255, rel=0.06)  # nothing to cut


def test_the_student_rounds_and_stays_close(finished) -> None:
    student, _, expected = finished
    x = images(200, seed=99)
    with torch.no_grad():
        given, untouched = student(x), plain(student)(x)
    assert in_integers(student) and not in_integers(plain(student))
    assert float((given.argmax(1) == expected.argmax(1)).float().mean()) > 0.97
    assert not torch.equal(given, untouched)
    assert set(plain(student).state_dict()) == set(networks.build("resnet8_cifar", 4, CONTRACT).state_dict())


def test_rebuilt_from_the_recipe_with_no_difference(finished) -> None:
    student, entries, _ = finished
    again = networks.build("resnet8_cifar", 4, CONTRACT)
    rebuild(again, entries)
    again.load_state_dict(student.state_dict())
    x = images(20, seed=5)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), student(x))


def test_the_onnx_file_computes_in_integers(finished, tmp_path: Path) -> None:
    student, *_ = finished
    meta = META | {"sample": images(256, seed=7)}
    (file,) = export(student, contract=CONTRACT, class_names="abcd", formats=["onnx"], folder=tmp_path, meta=meta)
    assert file["measured"]["agreement"] >= 0.99 and file["measured"]["relative_difference"] <= 0.02
    graph = onnx.load(file["path"]).graph
    kinds = [node.op_type for node in graph.node]
    assert "BatchNormalization" not in kinds and kinds.count("Conv") == 9
    large = [each for each in graph.initializer if np.prod(each.dims) > 64]
    assert large and all(each.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT32) for each in large)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(file["path"], options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert run.count("QLinearConv") == 8 and run.count("Conv") == 1  # the image is not rounded
    (plain_file,) = export(
        plain(student),
        contract=CONTRACT,
        class_names="abcd",
        formats=["onnx"],
        folder=tmp_path / ".",
        meta=META,
        stem="plain",
    )
    assert file["path"].stat().st_size < plain_file["path"].stat().st_size / 2.5


def test_the_image_may_be_rounded_too() -> None:
    network, transforms = made(aware=False, image="8")
    transforms.finalize(network)
    other, transforms = made(aware=False)
    transforms.finalize(other)
    paths, others = (dict(roundings(each)).keys() for each in (network, other))
    assert paths - others == {"conv1.input_rounding"} and others <= paths
    linear = networks.build("mlp", 4, CONTRACT)
    MemberTransforms([{"name": "int8"}], linear, context())
    assert len(dict(roundings(linear))) == sum(isinstance(each, nn.Linear) for each in linear.modules())


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_refused(finished, tmp_path: Path, monkeypatch) -> None:
    student, *_ = finished
    broken = copy.deepcopy(student)
    rounding = dict(roundings(broken)).popitem()
    monkeypatch.setattr(
        "worker.distillation.compression.integer_form.folded",
        lambda codes, scale, bias, norm: folded(codes, scale, bias, None),
    )
    with pytest.raises(ExportFailed, match="computes something else"):
        export(broken, contract=CONTRACT, class_names="abcd", formats=["onnx"], folder=tmp_path, meta=META)
    assert rounding is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_is_as_close_as_onnxruntimes_own_quantiser(tmp_path: Path) -> None:
    """The oracle: static quantisation of the float32 file by onnxruntime, with ranges of the same images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    network, transforms = made(aware=False)
    before = copy.deepcopy(network)
    transforms.finalize(network)
    export(before, contract=CONTRACT, class_names="abcd", formats=["onnx"], folder=tmp_path, meta=META, stem="float")
    export(
        network,
        contract=CONTRACT,
        class_names="abcd",
        formats=["onnx"],
        folder=tmp_path,
        meta=META | {"sample": images(64)},
        stem="own",
    )

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter([{"image": images(64).numpy()}])

        def get_next(self):
            return next(self.rows, None)

    quantize_static(
        str(tmp_path / "float.onnx"), str(tmp_path / "oracle.onnx"), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    x = images(300, seed=50)
    with torch.no_grad():
        expected = before(x)
    errors = {}
    for name in ("own", "oracle"):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"])
        given = torch.from_numpy(session.run(None, {"image": x.numpy()})[0])
        errors[name] = float((given - expected).norm() / expected.norm())
    assert errors["own"] <= 1.5 * errors["oracle"] + 0.005


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(5, 6, 3), nn.Conv2d(4, 8, (1, 3), groups=2), nn.Linear(7, 6), nn.Conv2d(1, 3, 5)]
)
def test_two_products_fit_into_16_bits_with_a_sign(layer: nn.Module) -> None:
    """As processors without VNNI add them: of inputs that are next to each other in memory, channels last."""
    quantiser = Integer(layer)
    with torch.no_grad():
        layer.weight.uniform_(-1, 1).mul_(torch.rand(len(layer.weight), *[1] * (layer.weight.ndim - 1)))
        scale = quantiser.tables(layer.weight)["scale"]
        codes = (quantiser.quantised(layer.weight) / scale.reshape(-1, *[1] * (layer.weight.ndim - 1))).round()
    rows = codes.movedim(1, -1).flatten(1)
    sums = [
        row[first : first + 2].clamp(min=0).sum() if positive else -row[first : first + 2].clamp(max=0).sum()
        for row in rows for first in range(0, rows.shape[1], 2) for positive in (True, False)
    ]  # fmt: skip
    assert 120 <= max(sums) <= 128 and 255 * max(sums) <= 2**15 - 1


def test_a_layer_of_single_channels_uses_all_codes() -> None:
    layer = nn.Conv2d(6, 6, 3, groups=6)
    codes = Integer(layer).quantised(layer.weight) / Integer(layer).tables(layer.weight)["scale"].reshape(6, 1, 1, 1)
    assert torch.allclose(codes.abs().flatten(1).amax(1), torch.tensor(127.0), atol=1e-3)
