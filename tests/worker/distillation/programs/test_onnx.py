from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.worker.distillation.programs.samples import LIBRARY, Everything, Residual, library_networks, of
from tests.worker.distillation.programs.test_hostile import CPU_SECONDS, run_child
from worker.distillation.errors import UploadError
from worker.distillation.introspection.taps import Tapped
from worker.distillation.limits import UploadLimits
from worker.distillation.programs import load
from worker.distillation.programs.onnx.rules import RULES
from worker.distillation.uploads.program_uploads import teacher

CLASSES = 4
NO_TRANSLATION = ("timm_maxvit",)
"""Networks that torch cannot export."""


def said_of(size, classes):
    contract = {"channels": 3, "height": size, "width": size, "mean": [0.5] * 3, "std": [0.25] * 3}
    return {"network": "program", "classes": classes, "input": contract}


def inspected(path, tmp_path, size=8, classes=CLASSES):
    """What the inspection finds in an ONNX file, and the network."""
    canonical = tmp_path / "canonical.safetensors"
    findings = teacher(said_of(size, classes), path, canonical, UploadLimits())
    return findings, load(canonical).eval()


def exported(network, path, size, dynamo):
    x = torch.randn(2, 3, size, size)
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            network.eval(), (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
        )
    else:
        names = {"input_names": ["image"], "dynamic_axes": {"image": {0: "batch"}}}
        torch.onnx.export(network.eval(), (x,), path, dynamo=False, opset_version=17, **names)
    return path


@pytest.mark.filterwarnings("ignore")  # torch's exporters warn of themselves
@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize(
    "name",
    ["residual", *(pytest.param(each, marks=pytest.mark.slow) for each in LIBRARY if each not in NO_TRANSLATION)],
)
def test_an_exported_network_is_read_back(tmp_path, name, dynamo):
    make, size = (Residual, 16) if name == "residual" else library_networks()[name]
    network = of(make).eval()
    path = exported(network, tmp_path / "net.onnx", size, dynamo)
    findings, again = inspected(path, tmp_path, size, 5)
    x = torch.randn(3, 3, size, size)
    with torch.no_grad():
        expected, given = network(x), again(x)
    assert float((given - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.abs().max()))
    assert findings["differentiable"] and findings["program"]["made_by"].startswith("ONNX")


@pytest.mark.filterwarnings("ignore")
def test_stages_of_a_flat_graph_are_its_cut_points(tmp_path):
    path = exported(of(Residual), tmp_path / "net.onnx", 16, dynamo=False)
    findings, again = inspected(path, tmp_path, 16, 5)
    kinds = [type(again.get_submodule(stage)).__name__ for stage in findings["stages"]]
    assert kinds == ["ReLU", "ReLU", "AdaptiveAvgPool2d"]  # after the shortcuts' sums, and not within a block
    assert Tapped(again, torch.zeros(2, 3, 16, 16)).map.classifier is not None


def model_of(nodes, initializers=(), path=None, shape=("batch", 3, 8, 8), outputs=("y",), opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, ("batch", 4)) for each in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    if path is not None:
        path.write_bytes(model.SerializeToString())
    return model


def head(of_value="h"):
    """From a map to logits: mean over positions and a product."""
    return [
        helper.make_node("GlobalAveragePool", [of_value], ["p2"]),
        helper.make_node("Flatten", ["p2"], ["m"]),
        helper.make_node("Gemm", ["m", "w", "b"], ["y"], transB=1),
    ]


RANDOM = np.random.default_rng(0)
BASE = [("w", RANDOM.standard_normal((4, 3), np.float32)), ("b", RANDOM.standard_normal(4, np.float32))]
CHANNEL = RANDOM.uniform(0.5, 1.5, 3).astype(np.float32)
ONE_NODE = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "Tanh": {}, "HardSwish": {}, "HardSigmoid": {"alpha": 0.3},
    "Elu": {"alpha": 0.7}, "Selu": {}, "Softplus": {}, "Erf": {}, "Exp": {}, "Neg": {}, "Abs": {}, "Softsign": {}, "Celu": {},
    "Softmax": {"axis": 1}, "LogSoftmax": {"axis": -1}, "Identity": {}, "Dropout": {}, "Floor": {}, "Sin": {}, "Mish": {},
    "GlobalMaxPool": {}, "MaxPool": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, "Atan": {},
    "ReduceL1": {"axes": [2]}, "ReduceSumSquare": {"axes": [2, 3]}, "ReduceLogSumExp": {"axes": [3]},
    "LRN": {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}, "LpNormalization": {"axis": 1, "p": 2},
    "AveragePool": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 0},
    "Transpose": {"perm": [0, 1, 3, 2]},
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_NODE)
def test_operations_of_one_input_are_those_of_onnxruntime(tmp_path, name):
    """The inspection itself compares with onnxruntime; here a translation to something else would be refused."""
    node = helper.make_node(name, ["x"], ["h"], **ONE_NODE[name])
    model_of([node, *head()], BASE, tmp_path / "net.onnx", opset=18 if name == "Mish" else 17)
    inspected(tmp_path / "net.onnx", tmp_path)


INTS = {"shape": [0, 3, -1, 1], "axes": [2], "lead": [1], "two": [2], "nine": [9, 10], "starts": [1], "ends": [100]}
SEVERAL = {
    "clip": [helper.make_node("Clip", ["x", "least", "most"], ["h"])],
    "prelu": [helper.make_node("PRelu", ["x", "slope"], ["h"])],
    "batch_norm": [helper.make_node("BatchNormalization", ["x", "c", "c", "c", "c"], ["h"], epsilon=1e-3)],
    "instance_norm": [helper.make_node("InstanceNormalization", ["x", "c", "c"], ["h"])],
    "conv_uneven": [helper.make_node("Conv", ["x", "k"], ["h"], pads=[0, 1, 2, 0], strides=[2, 1], group=3)],
    "conv_same": [helper.make_node("Conv", ["x", "k"], ["h"], auto_pad="SAME_LOWER", strides=[2, 2], group=3)],
    "conv_transpose": [
        helper.make_node("ConvTranspose", ["x", "k"], ["h"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], group=3)
    ],
    "reshape": [helper.make_node("Reshape", ["x", "shape"], ["h"])],
    "shape_arithmetic": [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero1", "two"], ["front"]),
        helper.make_node("Concat", ["front", "minus", "lead"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["h"]),
    ],
    "squeeze": [helper.make_node("Unsqueeze", ["x", "axes"], ["u"]), helper.make_node("Squeeze", ["u", "axes"], ["h"])],
    "split": [
        helper.make_node("Split", ["x"], ["p", "q"], axis=2),
        helper.make_node("Concat", ["q", "p"], ["h"], axis=3),
    ],
    "slice": [helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["h"])],
    "pad": [helper.make_node("Pad", ["x", "pads"], ["h"], mode="reflect")],
    "resize": [helper.make_node("Resize", ["x", "", "scales"], ["h"], mode="linear")],
    "resize_to_computed_size": [
        helper.make_node("Shape", ["x"], ["whole"]), helper.make_node("Slice", ["whole", "zero1", "two"], ["front"]),
        helper.make_node("Concat", ["front", "nine"], ["wanted"], axis=0),
        helper.make_node("Resize", ["x", "", "", "wanted"], ["h"], mode="linear"),
    ],
    "resize_nearest": [
        helper.make_node("Resize", ["x", "", "scales"], ["h"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric")
    ],
    "where": [
        helper.make_node("Greater", ["x", "least"], ["mask"]), helper.make_node("Where", ["mask", "x", "least"], ["h"]),
    ],
    "arithmetic": [
        helper.make_node("Mul", ["x", "x"], ["a"]), helper.make_node("Add", ["a", "most"], ["s"]),
        helper.make_node("Sqrt", ["s"], ["r"]), helper.make_node("Div", ["x", "r"], ["d"]),
        helper.make_node("Pow", ["d", "most"], ["p"]), helper.make_node("Max", ["p", "least", "d"], ["h"]),
    ],
    "expand": [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        helper.make_node("Shape", ["x"], ["whole"]), helper.make_node("Expand", ["s", "whole"], ["h"]),
    ],
    "max_pool_uneven": [helper.make_node("MaxPool", ["x"], ["h"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0])],
    "max_pool_same": [helper.make_node("MaxPool", ["x"], ["h"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
    "average_pool_uneven": [
        helper.make_node("AveragePool", ["x"], ["h"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    ],
    "average_pool_same_counting": [
        helper.make_node("AveragePool", ["x"], ["h"], kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2],
                         count_include_pad=1)
    ],
    "backwards": [helper.make_node("Slice", ["x", "minus", "least_integer", "axes", "minus"], ["h"])],
    "gather_matrix": [
        helper.make_node("Gather", ["x", "square"], ["g"], axis=3), helper.make_node("ReduceMax", ["g"], ["h"], axes=[-1],
                         keepdims=0),
    ],
    "gather_elements": [
        helper.make_node("Slice", ["x", "zero1", "lead", "zero1"], ["front"]),
        helper.make_node("GatherElements", ["front", "elements"], ["g"], axis=3), helper.make_node("Mul", ["x", "g"], ["h"]),
    ],
    "scattered_mask": [
        helper.make_node("ScatterND", ["blank", "places", "written"], ["filled"]), helper.make_node("Mul", ["x", "filled"], ["h"]),
    ],
    "triangle": [helper.make_node("Trilu", ["x", "lead0"], ["h"], upper=0)],
    "remainder": [helper.make_node("Mod", ["picked", "nine0"], ["r"]), helper.make_node("Gather", ["x", "r"], ["h"], axis=2)],
    "cumulative": [helper.make_node("CumSum", ["x", "two"], ["h"])],
    "space_and_depth": [
        helper.make_node("SpaceToDepth", ["x"], ["s"], blocksize=4), helper.make_node("DepthToSpace", ["s"], ["d"], blocksize=2),
        helper.make_node("SpaceToDepth", ["d"], ["e"], blocksize=2),
        helper.make_node("DepthToSpace", ["e"], ["h"], blocksize=4, mode="CRD"),
    ],
    "gather": [helper.make_node("Gather", ["x", "picked"], ["h"], axis=3)],
    "cast": [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64), helper.make_node("Cast", ["i"], ["h"], to=1)],
}  # fmt: skip
MORE = [
    ("least", np.float32(-0.5)), ("most", np.float32(2.0)), ("slope", CHANNEL.reshape(3, 1, 1)), ("c", CHANNEL),
    ("k", RANDOM.standard_normal((3, 1, 3, 3), np.float32)), ("pads", np.array([0, 0, 1, 2, 0, 0, 2, 1])),
    ("scales", np.array([1, 1, 2, 2], np.float32)), ("zero1", np.array([0])), ("minus", np.array([-1])),
    ("picked", np.array([7, 0, -2])), ("least_integer", np.array([-(2**63)])), ("square", np.array([[7, 0], [-2, 3]])),
    ("elements", np.arange(192).reshape(1, 3, 8, 8) % 8), ("blank", np.ones((3, 8, 8), np.float32)), ("lead0", np.int64(1)),
    ("places", np.array([[[0, 1], [2, 7]]])), ("written", np.full((1, 2, 8), 0.5, np.float32)), ("nine0", np.int64(5)), *((name, np.array(values)) for name, values in INTS.items()),
]  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_operations_of_several_inputs_are_those_of_onnxruntime(tmp_path, name):
    read = {each for node in SEVERAL[name] for each in node.input}
    model_of([*SEVERAL[name], *head()], BASE + [each for each in MORE if each[0] in read], tmp_path / "net.onnx")
    inspected(tmp_path / "net.onnx", tmp_path)


def test_layer_normalization_and_products_of_vectors(tmp_path):
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["p"]),
        helper.make_node("LayerNormalization", ["p", "scale", "scale"], ["n"], axis=-1),
        helper.make_node("Gemm", ["n", "square"], ["y"], alpha=0.5),
    ]
    ones = RANDOM.uniform(0.5, 1.5, 4).astype(np.float32)
    stored = [("m", RANDOM.standard_normal((192, 4), np.float32)), ("scale", ones), ("square", np.outer(ones, ones))]
    model_of(nodes, stored, tmp_path / "net.onnx")
    inspected(tmp_path / "net.onnx", tmp_path)


def test_images_with_channels_last_are_turned(tmp_path):
    """As tf2onnx writes Keras's networks: the input is (B, H, W, C), and a transposition follows."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "k"], ["c"], auto_pad="SAME_UPPER", group=3),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["u"], perm=[0, 2, 3, 1]),
        helper.make_node("ReduceMean", ["u"], ["m"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["m", "turned"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"]),
    ]  # fmt: skip
    kernel = next(each for each in MORE if each[0] == "k")
    stored = [kernel, BASE[1], ("turned", np.ascontiguousarray(BASE[0][1].T))]
    model_of(nodes, stored, tmp_path / "net.onnx", shape=("batch", 8, 8, 3))
    findings, network = inspected(tmp_path / "net.onnx", tmp_path)
    assert findings["stages"] == ["relu_0"]
    assert sum(node.operation.name == "aten.permute.default" for node in network.program.graphs["eval"].nodes) == 2


def test_a_translation_that_differs_is_refused(tmp_path, monkeypatch):
    from worker.distillation.programs.onnx import rules

    monkeypatch.setitem(rules.RULES, "Relu", rules.RULES["Tanh"])
    model_of([helper.make_node("Relu", ["x"], ["h"]), *head()], BASE, tmp_path / "net.onnx")
    with pytest.raises(UploadError, match="logits differ"):
        inspected(tmp_path / "net.onnx", tmp_path)


def test_the_documentation_lists_all_that_are_translated():
    text = (Path(__file__).parents[4] / "docs" / "programs.md").read_text()
    listed = text.partition("Translated: ")[2].partition(";")[0].replace("\n", " ")
    assert set(listed.split(", ")) == set(RULES)


def test_operations_without_a_translation_are_all_named(tmp_path):
    nodes = [helper.make_node("Hardmax", ["x"], ["a"]), helper.make_node("Shrink", ["a"], ["h"]), *head()]
    model_of(nodes, BASE, tmp_path / "net.onnx")
    with pytest.raises(UploadError, match="Hardmax, Shrink"):
        inspected(tmp_path / "net.onnx", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_what_no_gradient_passes_is_a_teacher_of_outputs_only(tmp_path):
    nodes = [helper.make_node("Sign", ["x"], ["a"]), helper.make_node("Cast", ["a"], ["i"], to=TensorProto.INT64),
             helper.make_node("Cast", ["i"], ["h"], to=1), *head()]  # fmt: skip
    model_of(nodes, BASE, tmp_path / "net.onnx")
    findings, _ = inspected(tmp_path / "net.onnx", tmp_path)
    assert findings["differentiable"] is False


def changed(change, nodes=None, initializers=BASE, **options):
    model = model_of(nodes or [helper.make_node("Relu", ["x"], ["h"]), *head()], initializers, **options)
    change(model)
    return model.SerializeToString()


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def huge_dims(model):
    model.graph.initializer[0].dims[:] = [2**40, 2**20]


def lying_shape(model):
    model.graph.initializer[0].dims[:] = [400, 3]


def function(model):
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))


def loop(model):
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "inner", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["n", "c"], ["z"], body=inner))


def branch(model):
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["d"])], "inner", [], [])
    model.graph.node.insert(0, helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


def custom(model):
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def shape_constant(*lengths):
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    return [
        helper.make_node("ConstantOfShape", ["lengths"], ["big"], value=value),
        helper.make_node("Add", ["x", "big"], ["h"]), *head(),
    ], [*BASE, ("lengths", np.array(lengths))]  # fmt: skip


def expand_bomb(*lengths):
    return [helper.make_node("Expand", ["c", "lengths"], ["big"]), helper.make_node("Mul", ["x", "big"], ["h"]), *head()], [
        *BASE, ("c", np.ones(1, np.float32)), ("lengths", np.array(lengths)),
    ]  # fmt: skip


def again_and_again(node, count=20_000, **initializers):
    """A node whose result is as large as its input, many times."""
    nodes = []
    for number in range(count - 4):
        repeated = helper.make_node(
            node[0], [f"n{number}", *node[1:]], [f"n{number + 1}"], **({"to": 11} if node[0] == "Cast" else {})
        )
        nodes.append(repeated)
    stored = [*BASE, ("n0", np.ones((2**20,), np.float32)), *initializers.items()]
    return [*nodes, helper.make_node("Relu", ["x"], ["h"]), *head()], stored


def nothing(_model):
    pass


def million_nodes(model):
    del model.graph.node[:]
    text = helper.make_node("Relu", ["x"], ["x2"]).SerializeToString()
    model.graph.MergeFromString((b"\x0a" + bytes([len(text)]) + text) * 10**6)


CYCLE = [helper.make_node("Add", ["x", "p"], ["h"]), helper.make_node("Relu", ["h"], ["p"]), *head()]
HOSTILE = {
    "external": lambda: changed(external), "huge_dims": lambda: changed(huge_dims), "lying_shape": lambda: changed(lying_shape),
    "function": lambda: changed(function), "loop": lambda: changed(loop), "if": lambda: changed(branch),
    "custom": lambda: changed(custom), "million_nodes": lambda: changed(million_nodes),
    "cycle": lambda: changed(nothing, CYCLE),
    "constant_bomb": lambda: changed(nothing, *shape_constant(10**6, 10**6)),
    "constant_of_negative": lambda: changed(nothing, *shape_constant(-5)),
    "expand_bomb": lambda: changed(nothing, *expand_bomb(10**6, 10**6)),
    "range_bomb": lambda: changed(nothing, [helper.make_node("Range", ["a", "z", "s"], ["r"]), *head("x")],
                                  [*BASE, ("a", np.int64(0)), ("z", np.int64(2**62)), ("s", np.int64(1))]),
    "tile_bomb": lambda: changed(nothing, [helper.make_node("Tile", ["x", "n"], ["h"]), *head()],
                                 [*BASE, ("n", np.array([1, 1, 10**6, 10**6]))]),
    "pad_bomb": lambda: changed(nothing, [helper.make_node("Pad", ["x", "n"], ["h"]), *head()],
                                [*BASE, ("n", np.array([0, 0, 10**9, 10**9] * 2))]),
    "resize_bomb": lambda: changed(nothing, [helper.make_node("Resize", ["x", "", "n"], ["h"], mode="linear"), *head()],
                                   [*BASE, ("n", np.array([1, 1, 1e9, 1e9], np.float32))]),
    "cast_bomb": lambda: changed(nothing, *again_and_again(["Cast"])),
    "scatter_bomb": lambda: changed(nothing, *again_and_again(
        ["ScatterND", "i", "u"], i=np.array([[0]]), u=np.ones(1, np.float32))),
    "scatter_out_of_range": lambda: changed(nothing, *again_and_again(
        ["ScatterND", "i", "u"], 5, i=np.array([[2**40]]), u=np.ones(1, np.float32))),
    "remainder_by_zero": lambda: changed(nothing, [helper.make_node("Mod", ["n", "n"], ["r"]), *head("x")],
                                         [*BASE, ("n", np.array([0]))]),
    "gather_out_of_range": lambda: changed(nothing, [helper.make_node("Gather", ["x", "n"], ["h"], axis=3), *head()],
                                           [*BASE, ("n", np.array([99]))]),
    "two_outputs": lambda: changed(nothing, outputs=("y", "h")),
    "other_input": lambda: changed(nothing, shape=("batch", 7)),
    "cut_short": lambda: changed(nothing)[:-20],
    "garbage": lambda: b"\x08\x07" + bytes(range(200)),
    "deep_protobuf": lambda: b"\x08\x07" + b"\x3a\x80\x80\x80\x01" * 5000,
    "old_opset": lambda: changed(nothing, opset=5),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in HOSTILE.items():
        (folder / name).write_bytes(make())
    (folder / "honest").write_bytes(changed(nothing))
    return run_child(folder)


def test_an_honest_file_is_accepted(outcomes):
    assert outcomes["honest"]["outcome"] == "accepted", outcomes["honest"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_bounded_memory_and_time(outcomes, name):
    found = outcomes[name]
    assert found["outcome"] == "refused", found
    assert found["cpu"] < CPU_SECONDS and len(found["message"]) < 1000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_network_of_many_operations_is_read_back(tmp_path):
    path = exported(of(Everything), tmp_path / "net.onnx", 16, dynamo=True)
    inspected(path, tmp_path, 16, 5)
    assert onnx.load(path).graph.node
