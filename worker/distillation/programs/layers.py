"""Layers: which calls of a program are those of torch's own layers, and the layers.

A call that holds one known operation on the tensors of its own path becomes `nn.Conv2d`, `nn.BatchNorm2d`, `nn.ReLU` and
so on, so that whatever looks for such layers (taps, BatchNorm statistics, transforms) finds them in a program too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from worker.distillation.programs.arguments import bound
from worker.distillation.programs.format import Node, Program, Special, TensorName, Value

CONVOLUTIONS: Mapping[str, type[nn.Module]] = {
    "aten.conv1d.default": nn.Conv1d, "aten.conv2d.default": nn.Conv2d, "aten.conv3d.default": nn.Conv3d,
    "aten.conv1d.padding": nn.Conv1d, "aten.conv2d.padding": nn.Conv2d, "aten.conv3d.padding": nn.Conv3d,
}  # fmt: skip
TRANSPOSED: Mapping[str, type[nn.Module]] = {
    "aten.conv_transpose1d.default": nn.ConvTranspose1d, "aten.conv_transpose2d.input": nn.ConvTranspose2d,
    "aten.conv_transpose3d.input": nn.ConvTranspose3d,
}  # fmt: skip
BATCH_NORMS: Mapping[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
"""By the number of dimensions of the input."""
ACTIVATIONS: Mapping[str, Callable[..., nn.Module]] = {
    "aten.relu.default": nn.ReLU, "aten.relu6.default": nn.ReLU6, "aten.silu.default": nn.SiLU, "aten.mish.default": nn.Mish,
    "aten.hardswish.default": nn.Hardswish, "aten.hardsigmoid.default": nn.Hardsigmoid, "aten.sigmoid.default": nn.Sigmoid,
    "aten.tanh.default": nn.Tanh, "aten.selu.default": nn.SELU,
}  # fmt: skip
"""Activations without parameters."""


@dataclass(frozen=True)
class Layer:
    """A layer that a call is of: what makes it, on the meta device, and its tensors' names in the program.

    Two are equal if they are made alike. `training`: whether the operation said that it trains, None if it has no modes.
    """

    build: Callable[..., nn.Module]
    settings: tuple[tuple[str, Any], ...]
    tensors: tuple[tuple[str, str], ...]
    training: bool | None = field(default=None, compare=False)

    def make(self) -> nn.Module:
        """The layer with tensors on the meta device, to be replaced."""
        given = dict(self.settings)
        return self.build(**given, device="meta") if self.tensors else self.build(**given)


def layer_of(
    program: Program, path: str, nodes: Sequence[Node], shapes: Sequence[tuple[int, ...] | None]
) -> Layer | None:
    """The layer that a call at `path` is of; None if it is not a layer of torch's, or holds other tensors.

    `nodes` are those of the call, `shapes` those of all values of its graph.
    """
    nodes, counted = _without_counter(nodes, path)
    if len(nodes) != 1:
        return None
    node = nodes[0]
    if node.operation.schema is None or not node.arguments or not isinstance(node.arguments[0], Value):
        return None
    given = {each.name: each.default_value for each in node.operation.schema.arguments if each.has_default_value()}
    given |= bound(node.operation, node.arguments, node.keywords)
    given = {name: _own(each, path, program) for name, each in given.items()}
    others = [each for name, each in given.items() if name not in ("input", "self")]
    if any(isinstance(each, (Value, Special)) for each in others) or any(_holds_reference(each) for each in others):
        return None
    make = _MAKERS.get(node.operation.name)
    layer = make(given, node, program, shapes) if make else None
    if layer is None:
        return None
    own = {name for name in program.kinds if name.startswith(f"{path}.")}
    if not all(name.rpartition(".")[0] == path for _, name in layer.tensors):
        return None
    named = {name for _, name in layer.tensors}
    if layer.build in BATCH_NORMS.values():
        named |= {f"{path}.num_batches_tracked"} & own
        if bool(layer.training) != counted and f"{path}.num_batches_tracked" in own:
            return None
    elif counted:
        return None
    return layer if own == named else None


def _own(value: Any, path: str, program: Program) -> Any:
    """A shared tensor under the name that it has within `path`, if it has one there."""
    if not isinstance(value, TensorName):
        return value
    own = f"{path}.{value.name.rpartition('.')[2]}"
    shared = own in program.kinds and program.stored(own) == program.stored(value.name)
    return TensorName(own) if shared else value


def _without_counter(nodes: Sequence[Node], path: str) -> tuple[list[Node], bool]:
    """The nodes without the one that counts BatchNorm's batches, and whether there was one."""
    counter = TensorName(f"{path}.num_batches_tracked")
    rest = [
        node for node in nodes if not (node.operation.name == "aten.add_.Tensor" and node.arguments == (counter, 1))
    ]
    return rest, len(rest) == len(nodes) - 1


def _holds_reference(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, (Value, TensorName, Special, list)) for each in value)


def _tensors(given: Mapping[str, Any], names: Sequence[str]) -> tuple[tuple[str, str], ...] | None:
    """The tensors among the arguments under the layer's names for them; None if one has another name in the program."""
    found = []
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, TensorName) or value.name.rpartition(".")[2] != name:
            return None
        found.append((name, value.name))
    return tuple(found)


def _plain(value: Any) -> Any:
    return tuple(_plain(each) for each in value) if isinstance(value, (list, tuple)) else value


def _layer(build: Any, tensors: Any, training: bool | None = None, **settings: Any) -> Layer:
    return Layer(build, tuple((name, _plain(value)) for name, value in settings.items()), tensors, training)


def _convolution(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors = _tensors(given, ("weight", "bias"))
    if tensors is None or given["weight"] is None:
        return None
    weight = program.shapes[program.stored(given["weight"].name)]
    common = {name: given[name] for name in ("stride", "padding", "dilation", "groups")}
    common |= {"kernel_size": weight[2:], "bias": given["bias"] is not None}
    name, groups = node.operation.name, given["groups"]
    if name in CONVOLUTIONS:
        return _layer(CONVOLUTIONS[name], tensors, in_channels=weight[1] * groups, out_channels=weight[0], **common)
    common["output_padding"] = given["output_padding"]
    return _layer(TRANSPOSED[name], tensors, in_channels=weight[0], out_channels=weight[1] * groups, **common)


def _linear(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors = _tensors(given, ("weight", "bias"))
    if tensors is None:
        return None
    rows, columns = program.shapes[program.stored(given["weight"].name)]
    return _layer(nn.Linear, tensors, in_features=columns, out_features=rows, bias=given["bias"] is not None)


def _batch_norm(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors = _tensors(given, ("weight", "bias", "running_mean", "running_var"))
    shape = shapes[node.arguments[0].number]
    tracked, affine = given["running_mean"] is not None, given["weight"] is not None
    halves = affine != (given["bias"] is not None) or tracked != (given["running_var"] is not None)
    if (
        tensors is None
        or halves
        or shape is None
        or len(shape) not in BATCH_NORMS
        or not (tracked or given["training"])
    ):
        return None
    settings = {"num_features": shape[1], "eps": given["eps"], "momentum": given["momentum"], "affine": affine}
    training = given["training"] and tracked
    return _layer(BATCH_NORMS[len(shape)], tensors, training, track_running_stats=tracked, **settings)


def _layer_norm(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors = _tensors(given, ("weight", "bias"))
    affine = given["weight"] is not None
    bias = given["bias"] is not None
    if tensors is None or (bias and not affine):
        return None
    settings = {"normalized_shape": given["normalized_shape"], "eps": given["eps"], "elementwise_affine": affine}
    return _layer(nn.LayerNorm, tensors, bias=bias, **settings)


def _group_norm(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors, shape = _tensors(given, ("weight", "bias")), shapes[node.arguments[0].number]
    affine = given["weight"] is not None
    if tensors is None or shape is None or affine != (given["bias"] is not None):
        return None
    settings = {"num_groups": given["num_groups"], "num_channels": shape[1], "eps": given["eps"], "affine": affine}
    return _layer(nn.GroupNorm, tensors, **settings)


def _prelu(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    tensors = _tensors(given, ("weight",))
    if tensors is None:
        return None
    return _layer(nn.PReLU, tensors, num_parameters=program.shapes[program.stored(given["weight"].name)][0])


def _dropout(build: type[nn.Module]) -> Any:
    def make(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer:
        return _layer(build, (), given["train"], p=given["p"])

    return make


def _simple(build: Callable[..., nn.Module], **names: str) -> Any:
    """A maker of layers whose settings are arguments of the operation; `names`: the setting by the argument's name."""

    def make(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer:
        return _layer(build, (), **{setting: given[argument] for argument, setting in names.items()})

    return make


def _pool(build: Callable[..., nn.Module], *names: str) -> Any:
    def make(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer:
        stride = given["stride"] or given["kernel_size"]
        return _layer(
            build, (), kernel_size=given["kernel_size"], stride=stride, **{name: given[name] for name in names}
        )

    return make


def _softmax(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    return None if given["dtype"] is not None else _layer(nn.Softmax, (), dim=given["dim"])


def _elu(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer | None:
    return _layer(nn.ELU, (), alpha=given["alpha"]) if (given["scale"], given["input_scale"]) == (1, 1) else None


def _hardtanh(given: Mapping[str, Any], node: Node, program: Program, shapes: Any) -> Layer:
    least, most = given["min_val"], given["max_val"]
    return _layer(nn.ReLU6, ()) if (least, most) == (0, 6) else _layer(nn.Hardtanh, (), min_val=least, max_val=most)


_MAKERS: Mapping[str, Any] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED), _convolution),
    **{name: _simple(build) for name, build in ACTIVATIONS.items()},
    "aten.linear.default": _linear,
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.prelu.default": _prelu,
    "aten.elu.default": _elu,
    "aten.hardtanh.default": _hardtanh,
    "aten.softmax.int": _softmax,
    "aten.celu.default": _simple(nn.CELU, alpha="alpha"),
    "aten.leaky_relu.default": _simple(nn.LeakyReLU, negative_slope="negative_slope"),
    "aten.gelu.default": _simple(nn.GELU, approximate="approximate"),
    "aten.softplus.default": _simple(nn.Softplus, beta="beta", threshold="threshold"),
    "aten.dropout.default": _dropout(nn.Dropout),
    "aten.feature_dropout.default": _dropout(nn.Dropout2d),
    "aten.max_pool2d.default": _pool(nn.MaxPool2d, "padding", "dilation", "ceil_mode"),
    "aten.avg_pool2d.default": _pool(nn.AvgPool2d, "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "aten.adaptive_avg_pool2d.default": _simple(nn.AdaptiveAvgPool2d, output_size="output_size"),
    "aten.flatten.using_ints": _simple(nn.Flatten, start_dim="start_dim", end_dim="end_dim"),
}
"""What makes the layer of an operation."""
ACTIVATION_OPERATIONS = frozenset(ACTIVATIONS) | {
    "aten.elu.default", "aten.hardtanh.default", "aten.celu.default", "aten.leaky_relu.default", "aten.gelu.default",
    "aten.softplus.default",
}  # fmt: skip
"""Pointwise activations without tensors of their own."""
