import copy
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from worker.distillation.programs.packing import program_of

CPU_SECONDS = 30
CONTRACT = {"channels": 3, "height": 8, "width": 8, "mean": [0.5] * 3, "std": [0.25] * 3}


def honest():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 4),
    )  # fmt: skip
    return program_of(network, CONTRACT, (), train=True)


def nodes(*given, output=None, **tensors):
    """A program of these nodes, in the call of the whole network, and these tensors."""

    def change(program, stored):
        graph = {"calls": [[-1, "", ""]], "nodes": [[name, 0, list(args), {}] for name, *args in given]}
        graph["output"] = output or len(given)
        program["graphs"], program["alias"] = {"eval": graph}, {}
        stored.clear()
        stored.update(tensors or {"w": torch.ones(4)})
        program["tensors"] = dict.fromkeys(stored, "buffer")

    return change


V0, W, K = {"v": 0}, {"t": "w"}, {"t": "k"}


def before_logits(*given, **tensors):
    """Nodes, then those that make logits of the image, so that nothing but the nodes is wrong."""
    count = len(given)
    tail = [("aten.mean.dim", V0, [2, 3]), ("aten.linear.default", {"v": count + 1}, {"t": "l"})]
    return nodes(*given, *tail, **({"l": torch.ones(4, 3), "w": torch.ones(4)} | tensors))


def edit(place, value):
    """The honest program with another value at a place."""

    def change(program, stored):
        *path, last = place
        target = program
        for key in path:
            target = target[key]
        target[last] = value

    return change


def without(*place):
    def change(program, stored):
        *path, last = place
        target = program
        for key in path:
            target = target[key]
        del target[last]

    return change


def renamed(name):
    """The first convolution's weight under another name."""

    def change(program, stored):
        text = json.dumps(program).replace('"0.weight"', json.dumps(name))
        program.clear()
        program.update(json.loads(text))
        stored[name] = stored.pop("0.weight")

    return change


def squared(program, stored):
    """An integer that is squared forty times."""
    given = [("aten.sym_size.int", V0, 3)] + [("operator.mul", {"v": n}, {"v": n}) for n in range(1, 41)]
    before_logits(*given)(program, stored)


def deep_calls(program, stored):
    graph = program["graphs"]["eval"]
    graph["calls"] = [[-1, "", ""]]
    path = "a"
    for number in range(200):
        graph["calls"].append([number, path, ""])
        path += ".a"
    graph["nodes"] = [[*node[:1], 200, *node[2:]] for node in graph["nodes"]]


CASES = {
    # form
    "no_graphs": without("graphs", "eval"),
    "unknown_key": edit(("extra",), 1),
    "unknown_graph_key": edit(("graphs", "eval", "hook"), "x"),
    "version_true": edit(("version",), True),
    "other_format": edit(("format",), "pickle"),
    "classes_as_text": edit(("classes",), "4"),
    "huge_input": edit(("input", "height"), 2**31),
    "nan_std": edit(("input", "std"), [0.25, 0.25, 1e400]),
    "too_many_nodes": edit(("graphs", "eval", "nodes"), [["aten.relu.default", 0, [V0], {}]] * 20_001),
    "no_nodes": edit(("graphs", "eval", "nodes"), []),
    "node_is_text": edit(("graphs", "eval", "nodes", 0), "aten.relu.default"),
    "deep_calls": deep_calls,
    "call_out_of_order": edit(("graphs", "eval", "nodes", 0, 1), 3),
    "caller_after_itself": edit(("graphs", "eval", "calls", 1, 0), 5),
    "call_elsewhere": edit(("graphs", "eval", "calls", 1, 1), "a..b"),
    "class_name_escapes": edit(("class_names",), ["a", "b", "c", "\x1b[31m"]),
    "huge_integer": before_logits(("aten.add.Tensor", W, 10**400)),
    "deep_list": before_logits(("aten.add.Tensor", W, [[[[[[1]]]]]])),
    "long_list": before_logits(("aten.view.default", W, [1] * 5000)),
    # names
    "module_attribute": renamed("0.forward"),
    "dunder": renamed("0.__class__"),
    "keyword": renamed("0.import"),
    "path_escape": renamed("../../etc/passwd"),
    "own_attribute": renamed("0._program_plans"),
    "kinds_of_nothing": edit(("tensors", "nothing"), "param"),
    "alias_of_nothing": edit(("alias", "0.weight2"), "nothing"),
    "unknown_kind": edit(("tensors", "0.weight"), "pickle"),
    # operations
    "from_file": before_logits(("aten.from_file.default", "/tmp/pwned", True, 16)),
    "as_strided": before_logits(("aten.as_strided.default", W, [10**9], [0])),
    "set": before_logits(("aten.set_.source_Tensor", W, W)),
    "resize": before_logits(("aten.resize_.default", W, [10**9])),
    "system": before_logits(("torch.serialization.os.system", "touch /tmp/pwned")),
    "builtin_eval": before_logits(("builtins.eval", "1")),
    "getattr_walk": before_logits(("operator.attrgetter", "__class__")),
    "custom_operation": before_logits(("torchvision.nms.default", W, W, 0.5)),
    "print": before_logits(("aten._print.default", "x")),
    "item": before_logits(("aten.item.default", W)),
    "integer_power": before_logits(("operator.pow", 2, 10**9)),
    "shift": before_logits(("operator.lshift", 1, 10**9)),
    "squared_integer": squared,
    # arguments
    "forward_reference": before_logits(("aten.relu.default", {"v": 2})),
    "negative_reference": before_logits(("aten.relu.default", {"v": -1})),
    "boolean_reference": before_logits(("aten.relu.default", {"v": True})),
    "strange_reference": before_logits(("aten.relu.default", {"v": 0, "t": "w"})),
    "too_many_arguments": before_logits(("aten.relu.default", V0, V0, V0)),
    "named_out": lambda program, stored: (
        before_logits(("aten.relu.default", V0))(program, stored),
        program["graphs"]["eval"]["nodes"][0][3].update(out=W),
    ),
    "text_for_a_number": before_logits(("aten.add.Tensor", V0, "1")),
    "text_not_on_the_list": before_logits(("aten.pad.default", V0, [1, 1], "__import__('os')")),
    "device": before_logits(("aten.to.device", V0, {"device": "cuda:0"}, {"dtype": "float32"})),
    "strange_equation": before_logits(("aten.einsum.default", "__import__", [W])),
    # writing
    "write_into_weight": before_logits(("aten.mul_.Tensor", W, 2)),
    "write_into_view_of_weight": before_logits(("aten.view.default", W, [2, 2]), ("aten.mul_.Tensor", {"v": 1}, 2)),
    "write_into_hidden_alias": before_logits(
        ("aten.dropout.default", W, 0.5, False), ("aten.mul_.Tensor", {"v": 1}, 2)
    ),
    "write_into_image": before_logits(("aten.mul_.Tensor", V0, 2)),
    "statistics_in_eval": before_logits(
        ("aten.batch_norm.default", V0, None, None, {"t": "m"}, {"t": "m"}, True, 0.1, 1e-5, False), m=torch.ones(3)
    ),
    "parameter_in_train": lambda program, stored: program["graphs"]["train"]["nodes"].insert(
        0, ["aten.mul_.Tensor", 0, [{"t": "0.weight"}, 2], {}]
    ),
    # sizes
    "expand_bomb": before_logits(("aten.expand.default", {"t": "one"}, [10**10]), one=torch.ones(1)),
    "factory_bomb": before_logits(("aten.zeros.default", [10**6, 10**6])),
    "many_large": before_logits(*[("aten.zeros.default", [2**15, 2**15])] * 100),
    "split_bomb": before_logits(("aten.zeros.default", [10**8]), ("aten.split.Tensor", {"v": 1}, 1)),
    "unbind_bomb": before_logits(("aten.zeros.default", [10**8]), ("aten.unbind.int", {"v": 1})),
    "chunk_bomb": before_logits(("aten.zeros.default", [10**8]), ("aten.chunk.default", {"v": 1}, 10**8)),
    "product_bomb": before_logits(
        ("aten.zeros.default", [2**15, 2**15]), *[("aten.mm.default", {"v": n}, {"v": n}) for n in range(1, 14)]
    ),
    "pool_bomb": before_logits(
        ("aten.zeros.default", [1, 1, 2**14, 2**14]), ("aten.max_pool2d.default", {"v": 1}, [2**13, 2**13], [1, 1])
    ),
    # zeros, negative and absurd numbers that kernels divide by or count to
    "stride_zero": before_logits(("aten.conv2d.default", V0, K, None, [0, 0]), k=torch.ones(4, 3, 3, 3)),
    "dilation_zero": before_logits(("aten.conv2d.default", V0, K, None, [1, 1], [0, 0], [0, 0]), k=torch.ones(4, 3, 3, 3)),
    "groups_zero": before_logits(
        ("aten.conv2d.default", V0, K, None, [1, 1], [0, 0], [1, 1], 0), k=torch.ones(4, 3, 3, 3)
    ),
    "pool_stride_zero": before_logits(("aten.max_pool2d.default", V0, [2, 2], [0, 0])),
    "pool_of_nothing": before_logits(("aten.avg_pool2d.default", V0, [0, 0])),
    "pool_padded_beyond": before_logits(("aten.avg_pool2d.default", V0, [2, 2], [1, 1], [2**38, 2**38])),
    "shuffle_by_zero": before_logits(("aten.pixel_shuffle.default", V0, 0)),
    "norm_of_no_groups": before_logits(("aten.group_norm.default", V0, 0)),
    "split_of_nothing": before_logits(("aten.split.Tensor", V0, 0)),
    "window_without_step": before_logits(("aten.unfold.default", V0, 2, 2, 0)),
    "resized_to_nothing": before_logits(("aten.upsample_bilinear2d.vec", V0, [0, -1], False, None)),
    "repeated_less_than_never": before_logits(("aten.repeat.default", W, [-1])),
    "padded_far": before_logits(("aten.constant_pad_nd.default", V0, [2**39, 2**39])),
    "divided_by_zero": before_logits(("aten.sym_size.int", V0, 3), ("operator.floordiv", {"v": 1}, 0)),
    "counted_by_zero": before_logits(("aten.arange.start_step", 0, 5, 0)),
    "counted_by_little": before_logits(("aten.arange.start_step", 0, 1, 1e-300)),
    "most_of_few": before_logits(("aten.topk.default", W, 100)),
    "list_times_integer": before_logits(("aten.split.Tensor", V0, 1, 1), ("operator.mul", {"v": 1}, 10**9)),
    "list_of_lists": before_logits(("aten.split.Tensor", V0, 1, 1), ("operator.add", {"v": 1}, {"v": 1})),
    "tensor_as_integer": before_logits(("operator.add", V0, V0)),
    "class_of_too_many": before_logits(
        ("aten.one_hot.default", {"t": "i"}, 3), ("aten.mul.Tensor", {"v": 1}, 1), i=torch.tensor([10**6])
    ),
    "gather_out_of_range": before_logits(("aten.gather.default", W, 0, {"t": "i"}), i=torch.tensor([-(10**9)])),
    "row_out_of_range": before_logits(("aten.embedding.default", {"t": "l"}, {"t": "i"}), i=torch.tensor([10**9])),
    "index_out_of_bounds": before_logits(("aten.index.Tensor", W, [{"t": "i"}]), i=torch.tensor([2**40])),
    "nan_logits": lambda program, stored: stored["5.bias"].fill_(float("nan")),
    # outputs
    "output_is_no_logits": nodes(("aten.relu.default", V0)),
    "output_is_scalar": nodes(("aten.sum.default", V0)),
    "output_is_integer": nodes(("aten.sym_size.int", V0, 0)),
    "batch_folded": nodes(("aten.zeros.default", [2, 4])),
    "batch_one_row": nodes(("aten.sum.dim_IntList", V0, [0, 1, 2]), ("aten.slice.Tensor", {"v": 1}, 0, 0, 4)),
    # the first real run
    "index_out_of_range": before_logits(
        ("aten.index_select.default", W, 0, {"t": "i"}), i=torch.tensor([10**6])
    ),
    "infinite_logits": lambda program, stored: stored["5.bias"].fill_(float("inf")),
}  # fmt: skip


def with_header(text, data=b""):
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


RAW = {
    "header_longer_than_file": lambda: struct.pack("<Q", 2**40) + b"{}",
    "header_twice_the_name": lambda: with_header('{"__metadata__":{"program":"{}"},"__metadata__":{"program":"{}"}}'),
    "program_nested": lambda: with_header(json.dumps({"__metadata__": {"program": "[" * 100_000}})),
    "program_with_nan": lambda: with_header(json.dumps({"__metadata__": {"program": "NaN"}})),
    "program_of_digits": lambda: with_header(json.dumps({"__metadata__": {"program": "9" * 5000}})),
    "lying_shape": lambda: with_header(
        json.dumps(
            {
                "__metadata__": {"program": json.dumps(honest()[0])},
                "w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]},
            }
        ),
        b"\0\0\0\0",
    ),
    "not_a_program": lambda: save({"w": torch.ones(2)}),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """How the inspection of every hostile file ended, by name."""
    folder = tmp_path_factory.mktemp("hostile")
    program, tensors = honest()
    (folder / "honest").write_bytes(save(tensors, {"program": json.dumps(program)}))
    for name, change in CASES.items():
        theirs, stored = copy.deepcopy(program), {key: tensor.clone() for key, tensor in tensors.items()}
        change(theirs, stored)
        text = json.dumps(theirs)
        (folder / name).write_bytes(save({key: each.contiguous() for key, each in stored.items()}, {"program": text}))
    for name, make in RAW.items():
        (folder / name).write_bytes(make())
    return run_child(folder)


def run_child(folder):
    command = [sys.executable, "-m", "tests.worker.distillation.programs.hostile_child", str(folder)]
    root = Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_an_honest_program_is_accepted(outcomes):
    assert outcomes["honest"]["outcome"] == "accepted", outcomes["honest"]


@pytest.mark.parametrize("name", [*CASES, *RAW])
def test_a_hostile_program_is_refused_in_bounded_memory_and_time(outcomes, name):
    found = outcomes[name]
    assert found["outcome"] == "refused", found
    assert found["cpu"] < CPU_SECONDS
    assert len(found["message"]) < 1000
    assert not Path("/tmp/pwned").exists()
