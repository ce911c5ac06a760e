"""Finding groups of channels by following channels through one forward pass.

The trace follows functions, not modules, so that it works for networks of any library. The channels of an output of an
unknown function (attention, channel shuffle) are unknown, and layers that read such an output cannot change their width.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from worker.distillation.introspection.channel_groups import Axis, Group, kept_together
from worker.distillation.introspection.taps import undisturbed

CHANNELWISE = frozenset([
    "relu", "relu6", "leaky_relu", "rrelu", "hardtanh", "silu", "gelu", "elu", "celu", "selu", "mish", "sigmoid", "tanh",
    "hardswish", "hardsigmoid", "softplus", "logsigmoid", "softsign", "tanhshrink", "clamp", "abs", "neg", "exp", "sqrt", "square",
    "pow", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout",
    "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "lp_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "interpolate", "pad", "contiguous", "clone", "detach", "to", "float", "half",
    "bfloat16", "local_response_norm", "normalize",
])  # fmt: skip
"""Functions of one tensor that keep the position of every channel."""
ELEMENTWISE = frozenset([
    "add", "sub", "mul", "div", "truediv", "iadd", "isub", "imul", "itruediv", "radd", "rmul", "rsub", "maximum", "minimum",
    "where",
])  # fmt: skip
SHAPING = frozenset(["flatten", "reshape", "view", "squeeze", "unsqueeze", "view_as", "reshape_as"])
REDUCING = frozenset(["mean", "sum", "amax", "amin", "var", "std"])


class Followed(TorchFunctionMode):
    """Records, while a network runs, the channel groups along the dimensions of its parameters and buffers.

    `why`: for each parameter that reads unknown channels, which function they come from.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        """`tensors`: parameters and buffers by name."""
        super().__init__()
        self.names = {id(tensor): name for name, tensor in tensors.items()}
        self.axes: dict[str, tuple[Axis | None, ...]] = {}
        self.why: dict[str, str] = {}
        self._along: dict[int, Axis] = {}
        self._makers: dict[int, str] = {}
        self._alive: list[Any] = []

    def axes_of(self, name: str, tensor: Tensor) -> tuple[Axis | None, ...]:
        """The channel groups along each dimension of a parameter; None if unknown."""
        return self.axes.get(name, (None,) * tensor.ndim)

    def along(self, tensor: Tensor) -> Axis | None:
        """The channel groups along dimension 1 of an activation; None if unknown."""
        return self._along.get(id(tensor))

    def begin(self, image: Tensor) -> None:
        """Mark the channels of the input: none can be removed."""
        self._set(image, ((Group(image.shape[1], whole=True), 1),))

    def end(self, logits: Tensor) -> None:
        """Mark the channels of the output: none can be removed."""
        for group, _ in self._along.get(id(logits), ()):
            group.root.whole = True

    def hold_unread(self) -> None:
        """Mark the channels that no layer reads, for networks whose output does not show them: none can be removed."""
        read = {group.root for axes in self.axes.values() if len(axes) > 1 for group, _ in axes[1] or ()}
        for axes in self.axes.values():
            for group, _ in axes[0] or ():
                group.root.whole = group.root.whole or group.root not in read

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        result = function(*args, **given)
        self._alive.append((args, given, result))  # else a later tensor could get the id of a freed one
        name = getattr(function, "__name__", "").partition(".")[0].strip("_")  # `add.Tensor` is an `add`
        if not isinstance(result, Tensor):
            made = result if isinstance(result, (tuple, list)) else ()
            self._makers |= {id(each): name for each in made if isinstance(each, Tensor)}
            return result
        rule = getattr(self, f"_{name}", None) if name in RULES else None
        if rule is not None:
            rule(result, *args, **given)
        elif name in CHANNELWISE:
            self._keep(result, args[0])
        elif name in ELEMENTWISE:
            self._join(result, [each for each in (*args, *given.values()) if isinstance(each, Tensor)])
        elif name in SHAPING:
            self._reshape(result, args[0])
        elif name in REDUCING:
            self._reduce(result, *args, **given)
        if id(result) not in self._along:
            self._makers[id(result)] = name
        return result

    def _set(self, tensor: Tensor, axis: Axis | None) -> None:
        if axis is not None and sum(group.root.size * repeats for group, repeats in axis) == tensor.shape[1]:
            self._alive.append(tensor)
            self._along[id(tensor)] = axis

    def _note(self, tensor: Tensor | None, axes: Iterable[Axis | None], read: Tensor | None = None) -> None:
        if tensor is None or id(tensor) not in self.names:
            return
        name, before = self.names[id(tensor)], self.axes.get(self.names[id(tensor)])
        self.axes[name] = tuple(axes) if before is None else tuple(map(kept_together, before, axes))
        maker = self._makers.get(id(read), "") if read is not None else ""
        if maker:
            self.why[name] = f", and its input comes from `{maker}`, whose channels cannot be followed"

    def _conv2d(
        self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **given: Any
    ) -> None:
        groups = given.get("groups", rest[3] if len(rest) > 3 else 1)
        along, spatial = self._along.get(id(input)), (None,) * (weight.ndim - 2)
        if groups == 1:
            made: Axis = ((Group(len(weight)), 1),)
            self._note(weight, (made, along, *spatial), input)
        elif groups == input.shape[1] == len(weight) and along is not None:
            made = along
            self._note(weight, (made, None, *spatial), input)
        else:
            made = ((Group(len(weight), whole=True), 1),)
            for group, _ in along or ():
                group.root.whole = True
            self._note(weight, (made, None, *spatial), input)
        self._note(bias, (made,))
        self._set(result, made)

    _conv1d = _conv3d = _conv2d

    def _linear(self, result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        if input.ndim != 2:
            self._makers.setdefault(id(input), "a linear layer on more than two dimensions")
            self._note(weight, (None, None), input)
            return
        made: Axis = ((Group(len(weight)), 1),)
        self._note(weight, (made, self._along.get(id(input))), input)
        self._note(bias, (made,))
        self._set(result, made)

    def _batch_norm(self, result: Tensor, input: Tensor, *rest: Any, **given: Any) -> None:
        self._keep(result, input)
        for tensor in (*rest, *given.values()):
            if isinstance(tensor, Tensor):
                self._note(tensor, (self._along.get(id(input)),), input)

    _group_norm = _instance_norm = _batch_norm

    def _prelu(self, result: Tensor, input: Tensor, weight: Tensor) -> None:
        self._keep(result, input)
        self._note(weight, (self._along.get(id(input)) if len(weight) > 1 else None,), input)

    def _layer_norm(self, result: Tensor, input: Tensor, *rest: Any, **given: Any) -> None:
        if input.ndim == 2:
            self._batch_norm(result, input, *rest, **given)

    def _cat(self, result: Tensor, tensors: Iterable[Tensor], dim: int = 0) -> None:
        along = [self._along.get(id(tensor)) for tensor in tensors]
        if dim in (1, 1 - result.ndim) and all(along):
            self._set(result, tuple(part for axis in along for part in axis or ()))
        elif dim == 0 and along and all(axis is along[0] for axis in along):
            self._set(result, along[0])

    _concat = _cat

    def _keep(self, result: Tensor, input: Tensor) -> None:
        if result.ndim > 1 and result.shape[:2] == input.shape[:2]:
            self._set(result, self._along.get(id(input)))

    def _join(self, result: Tensor, tensors: list[Tensor]) -> None:
        features = [tensor for tensor in tensors if id(tensor) not in self.names and tensor.ndim > 1]
        axes = [self._along.get(id(tensor)) for tensor in features]
        if not axes or any(axis is None for axis in axes) or len({tensor.ndim for tensor in features}) > 1:
            return
        first = axes[0] or ()
        for axis in axes[1:]:
            if [(group.root.size, repeats) for group, repeats in axis or ()] != [
                (group.root.size, repeats) for group, repeats in first
            ]:
                return
            for (one, _), (other, _) in zip(first, axis or (), strict=True):
                if one.root is not other.root:
                    one.join(other)
        self._set(result, first)
        for tensor in tensors:
            if id(tensor) in self.names:
                offset = result.ndim - tensor.ndim
                self._note(
                    tensor, (first if at + offset == 1 and size > 1 else None for at, size in enumerate(tensor.shape))
                )

    def _reshape(self, result: Tensor, input: Tensor) -> None:
        """Flattening a feature map, or reshaping dimensions after the channels."""
        along = self._along.get(id(input))
        if along is None or result.ndim < 2 or len(result) != len(input):
            return
        repeats = result.shape[1] // input.shape[1]
        if result.shape[1] == input.shape[1]:
            self._set(result, along)
        elif result.ndim == 2 and repeats == input[0, 0].numel():
            self._set(result, tuple((group, each * repeats) for group, each in along))

    def _reduce(self, result: Tensor, input: Tensor, *rest: Any, **given: Any) -> None:
        dim = given.get("dim", given.get("axis", rest[0] if rest else None))
        dims = [dim] if isinstance(dim, int) else dim
        if dims and all(each % input.ndim > 1 for each in dims):
            self._keep(result, input)


RULES = frozenset([
    "conv1d", "conv2d", "conv3d", "linear", "batch_norm", "group_norm", "instance_norm", "layer_norm", "prelu", "cat", "concat",
])  # fmt: skip


Watch = TypeVar("Watch", bound=Followed)


def follow(network: nn.Module, example: Tensor, watching: type[Watch] = Followed) -> Watch:  # type: ignore[assignment]
    """Run the network once on `example` (B, C, H, W) and record its channels; the network is not changed.

    Of a network whose results depend on values, such as boxes that are suppressed, a copy without values is run.
    """
    valueless = getattr(network, "followed_without_values", False)
    if valueless:
        network, example = copy.deepcopy(network).to("meta"), example.to("meta")
    watch = watching({**dict(network.named_parameters()), **dict(network.named_buffers())})
    with undisturbed(network, example.device):
        watch.begin(example)
        with watch:
            logits = network(example)
        watch.end(logits)
    if valueless:
        watch.hold_unread()
    return watch
