"""Networks as data: hostile ONNX files and programs."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.torch import save

from tests.attack.corpus.case import Canary, Case
from tests.worker.distillation.programs import test_hostile

INPUT = {"channels": 3, "height": 8, "width": 8, "mean": [0.5] * 3, "std": [0.25] * 3}
PROGRAM = {"kind": "program"}


def programs(canary: Canary) -> Iterator[Case]:
    """Programs with wrong forms, names, operations, arguments and sizes, as teachers and as files."""
    makers = {name: lambda change=change: changed(change) for name, change in test_hostile.CASES.items()}
    for name, make in (makers | test_hostile.RAW).items():
        yield Case("programs", name, make, "files", PROGRAM, "rejected")
        yield Case("programs", f"{name}-teacher", make, "teachers", {"network": "program", "input": INPUT})


@lru_cache(maxsize=1)
def honest() -> Any:
    """A good program. It is made once, before the senders' threads start, since torch.export allows one thread at a time."""
    return test_hostile.honest()


def changed(change: Any) -> bytes:
    program, tensors = copy.deepcopy(honest())
    change(program, tensors)
    return save({name: each.contiguous() for name, each in tensors.items()}, {"program": json.dumps(program)})


def onnx(canary: Canary) -> Iterator[Case]:
    """ONNX graphs that read files, loop, grow or contradict themselves."""
    record = {"classes": 4, "input": INPUT}
    for name, hostile in {**_growing(), **_leading_out(canary), **_contradicting()}.items():
        yield Case("onnx", name, lambda hostile=hostile: hostile.SerializeToString(), record=record)
    good = model([]).SerializeToString()
    raw = {
        "cut": good[: len(good) // 2],
        "empty_message": b"\x08\x07",
        "nested": _nested(2000),
        "long_field": b"\x3a\xff\xff\xff\xff\x7f" + good,
        "groups": b"\x3b" * 10_000,
        "varint": b"\x08" + b"\xff" * 1000,
        "trailing": good + bytes(10**6),
    }
    for name, data in raw.items():
        yield Case("onnx", f"bytes_{name}", lambda data=data: data, record=record)


def model(
    nodes: Sequence[Any], before: str = "image", tensors: Mapping[str, Any] | None = None, **options: Any
) -> ModelProto:
    """Nodes, then those that make logits of the value `before`."""
    weights = {"w": np.ones((4, 3), np.float32)} | dict(tensors or {})
    tail = [helper.make_node("GlobalAveragePool", [before], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    tail.append(helper.make_node("Gemm", ["f", "w"], ["logits"], transB=1))
    stored = [
        each if isinstance(each, TensorProto) else numpy_helper.from_array(each, name) for name, each in weights.items()
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 4])
    graph = helper.make_graph([*nodes, *tail], "g", [image], [logits], stored)
    opsets = options.pop("opsets", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, opset_imports=opsets, **options)


def _growing() -> dict[str, ModelProto]:
    node = helper.make_node
    large = np.array([2**20, 2**20], np.int64)
    chain = [node("Concat", [f"v{n}", f"v{n}"], [f"v{n + 1}"], axis=1) for n in range(60)]
    sums = [node("Add", [f"v{n}", f"v{n}"], [f"v{n + 1}"]) for n in range(30_000)]
    first = [node("Identity", ["image"], ["v0"])]
    return {
        "constant_of_shape": model(
            [
                node("ConstantOfShape", ["s"], ["c"]),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["image", "r"], ["v"]),
            ],
            "v",
            {"s": large},
        ),
        "expand": model(
            [
                node("Expand", ["one", "s"], ["c"]),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["image", "r"], ["v"]),
            ],
            "v",
            {"s": large, "one": np.ones(1, np.float32)},
        ),
        "range": model(
            [
                node("Range", ["a", "z", "o"], ["c"]),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["image", "r"], ["v"]),
            ],
            "v",
            {"a": np.float32(0), "z": np.float32(1e12), "o": np.float32(1)},
        ),
        "range_tiny_step": model(
            [
                node("Range", ["a", "z", "o"], ["c"]),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["image", "r"], ["v"]),
            ],
            "v",
            {"a": np.float32(0), "z": np.float32(1), "o": np.float32(1e-30)},
        ),
        "tile": model([node("Tile", ["image", "t"], ["v"])], "v", {"t": np.array([1, 1, 10**6, 10**6], np.int64)}),
        "pad": model([node("Pad", ["image", "t"], ["v"])], "v", {"t": np.array([0, 0, 10**6, 10**6] * 2, np.int64)}),
        "resize": model(
            [node("Resize", ["image", "", "s"], ["v"])], "v", {"s": np.array([1, 1, 10**5, 10**5], np.float32)}
        ),
        "doubled": model(first + chain, "v60"),
        "long": model(first + sums, "v30000"),
        "onehot": model(
            [node("Cast", ["image"], ["i"], to=TensorProto.INT64), node("OneHot", ["i", "d", "ab"], ["v"])],
            "v",
            {"d": np.array(10**9), "ab": np.array([0, 1], np.float32)},
        ),
        "einsum": model(
            [
                node("Einsum", ["image", "image"], ["e"], equation="bchw,bdij->bchwdij"),
                node("ReduceMean", ["e"], ["v"], axes=[4, 5, 6], keepdims=0),
            ],
            "v",
        ),
        "conv_groups": model(
            [node("Conv", ["image", "k"], ["v"], group=0)], "v", {"k": np.ones((3, 3, 3, 3), np.float32)}
        ),
        "conv_pads": model(
            [node("Conv", ["image", "k"], ["v"], pads=[2**40] * 4)], "v", {"k": np.ones((3, 3, 3, 3), np.float32)}
        ),
        "conv_strides": model(
            [node("Conv", ["image", "k"], ["v"], strides=[0, 0])], "v", {"k": np.ones((3, 3, 3, 3), np.float32)}
        ),
        "pool": model([node("MaxPool", ["image"], ["v"], kernel_shape=[2**31, 2**31])], "v"),
    }


def _leading_out(canary: Canary) -> dict[str, ModelProto]:
    found = {}
    for name, path in {
        "up": "../../../../etc/passwd",
        "absolute": "/etc/passwd",
        "proc": "/proc/self/environ",
        "own": "upload",
        "url": f"http://127.0.0.1:{canary.port}/",
    }.items():
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=path)
        tensor.external_data.add(key="length", value=str(2**40))
        found[f"external_{name}"] = model([], tensors={"w": tensor})
    path = canary.mark("onnx")
    shell = helper.make_node(
        "PythonOp", ["image"], ["v"], domain="com.microsoft", code=f"import os; os.mkdir({path!r})"
    )
    found["python"] = model([shell], "v", opsets=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
    found["library"] = model(
        [helper.make_node("Evil", ["image"], ["v"], domain="/tmp/evil.so")],
        "v",
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("/tmp/evil.so", 1)],
    )
    return found


def _contradicting() -> dict[str, ModelProto]:
    node = helper.make_node
    inner = helper.make_graph(
        [node("Identity", ["c"], ["o"])], "i", [], [helper.make_tensor_value_info("o", TensorProto.BOOL, [])]
    )
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40, 2**40], raw_data=bytes(16))
    negative = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4, 3], raw_data=bytes(48))
    untyped = TensorProto(name="w", data_type=99, dims=[4, 3], raw_data=bytes(48))
    function = helper.make_function(
        "f", "F", ["x"], ["y"], [node("F", ["x"], ["y"], domain="f")], [helper.make_opsetid("f", 1)]
    )
    names = {"dots": "../../x", "nul": "a\0b", "long": "n" * 100_000, "dunder": "__class__", "empty": ""}
    found = {
        "circle": model([node("Add", ["b", "image"], ["a"]), node("Add", ["a", "image"], ["b"])], "a"),
        "itself": model([node("Add", ["a", "image"], ["a"])], "a"),
        "missing": model([node("Add", ["nothing", "image"], ["a"])], "a"),
        "loop": model([node("Loop", ["n", "", "image"], ["v"], body=inner)], "v", {"n": np.array(2**62)}),
        "if": model([node("If", ["c"], ["v"], then_branch=inner, else_branch=inner)], "v", {"c": np.array(True)}),
        "huge": model([], tensors={"w": huge}),
        "negative": model([], tensors={"w": negative}),
        "untyped": model([], tensors={"w": untyped}),
        "function": model(
            [node("F", ["image"], ["v"], domain="f")],
            "v",
            functions=[function],
            opsets=[helper.make_opsetid("", 17), helper.make_opsetid("f", 1)],
        ),
        "opset": model([], opsets=[helper.make_opsetid("", 10**6)]),
        "no_opset": model([], opsets=[]),
        "unknown": model([node("Evil", ["image"], ["v"])], "v"),
        "nan": model([], tensors={"w": np.full((4, 3), np.nan, np.float32)}),
        "texts": model([], tensors={"w": np.array([b"x"] * 12, object).reshape(4, 3)}),
    }
    for name, word in names.items():
        found[f"name_{name}"] = model([node("Relu", ["image"], [word or "v"], name=word)], word or "v")
    return found


def _nested(depth: int) -> bytes:
    """A message within a message: `graph` of `model`, `node` of it, `attribute`, `graph`, and so on."""
    data = b""
    for _ in range(depth):
        for field in (0x32, 0x2A, 0x0A):
            data = bytes([field]) + _varint(len(data)) + data
    return b"\x3a" + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])
