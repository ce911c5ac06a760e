"""Tracing: one forward pass with hooks on every module, to find the taps of a network."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError

ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
"""Prefixes of the Python modules whose classes are activation functions."""
CheckOutput = Callable[[Any, int], str | None]
"""What is wrong with a network's output for this number of samples, in words that follow "the network"; None if it is right."""
NO_ACTIVATIONS = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax)


@dataclass
class Trace:
    """The record of one forward pass.

    `shapes` of all taps, without the batch, in order of execution; `started`: module paths in the order in which their
    calls began; `reached`: number of calls that had begun when a tap's value was available; `places`: the module and the
    number of its call at which a tap is captured; `overwritten`: taps that later layers change in place; `tensors`: a number
    for the very tensor that each tap is, since modules such as `nn.Identity` return what they read.
    """

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    overwritten: frozenset[str] = frozenset()
    tensors: dict[str, int] = field(default_factory=dict)


def one_row(output: Any, examples: int) -> str | None:
    """Check that an output is one row of logits for each sample (B, K)."""
    right = isinstance(output, Tensor) and output.ndim == 2 and len(output) == examples
    return None if right else "does not return one row of logits per sample"


def one_map(output: Any, examples: int) -> str | None:
    """Check that an output is one map of logits for each sample (B, K, H, W)."""
    right = isinstance(output, Tensor) and output.ndim == 4 and len(output) == examples
    return None if right else "does not return one map of outputs (B, K, H, W) per sample"


def detections(output: Any, examples: int) -> str | None:
    """Check that an output is a padded list of detections for each sample (B, D, 6)."""
    shape = tuple(getattr(output, "shape", ()))
    right = isinstance(output, Tensor) and len(shape) == 3 and (shape[0], shape[2]) == (examples, 6)
    return None if right else "does not return detections; use a detector, such as tiny_faster_rcnn"


def any_output(output: Any, examples: int) -> str | None:
    """Check that an output is one row, one map, or one list of detections for each sample."""
    known = (one_map, detections)
    return None if any(check(output, examples) is None for check in known) else one_row(output, examples)


def trace(network: nn.Module, example: Tensor, pointer: str = "/network", check_output: CheckOutput = one_row) -> Trace:
    """Run the network on `example` in its current mode, and record the calls.

    Raises:
        SpecError: the network does not accept images of this shape, or `check_output` refuses its output.
    """
    watch = _Watch(len(example))
    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if ".parametrizations." in f".{path}." or getattr(module, "of_a_transform", False):
                continue  # what computes weights or rounds activations is no layer
            hooks.callback(module.register_forward_pre_hook(watch.before(path)).remove)
            hooks.callback(module.register_forward_hook(watch.after(path)).remove)
        try:
            output = network(example)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            shape = "x".join(map(str, example.shape[1:]))
            raise SpecError([Problem(pointer, f"does not accept images of {shape}: {error}")]) from error
    if wrong := check_output(output, len(example)):
        raise SpecError([Problem(pointer, wrong)])
    return watch.result()


class _Watch:
    def __init__(self, batch: int):
        self.batch = batch
        self.trace = Trace()
        self.calls: dict[str, int] = {}
        self.open: list[tuple[str, dict[str, Any]]] = []
        self.seen: dict[str, tuple[Tensor, int]] = {}

    def before(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            given = args[0] if args and self._is_tap(args[0]) else None
            self.calls[path] = self.calls.get(path, 0) + 1
            place = (path, self.calls[path])
            self.open.append((path, {}))
            if given is not None and path:
                self._note(f"{path}:in", given, place)
                if is_activation(module):
                    self._activation(given, place)
            self.trace.started.append(path)

        return hook

    def after(self, path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            _, inner = self.open.pop()
            if not path:
                return
            if inner:
                self._note(f"{path}:pre", **inner)
            if self._is_tap(output):
                self._note(path, output, (path, self.calls[path]))

        return hook

    def result(self) -> Trace:
        changed = (tap for tap, (tensor, version) in self.seen.items() if tensor._version != version)
        self.trace.overwritten = frozenset(changed)
        self.trace.tensors = {tap: id(tensor) for tap, (tensor, _) in self.seen.items()}
        return self.trace

    def _activation(self, given: Tensor, place: tuple[str, int]) -> None:
        for _, inner in self.open:
            inner.update(given=given, place=place, version=given._version, reached=len(self.trace.started))

    def _is_tap(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.ndim >= 2 and len(value) == self.batch

    def _note(
        self, tap: str, given: Tensor, place: tuple[str, int], version: int | None = None, reached: int | None = None
    ) -> None:
        self.trace.shapes.pop(tap, None)
        self.trace.shapes[tap] = tuple(given.shape[1:])
        self.trace.places[tap] = place
        self.trace.reached[tap] = len(self.trace.started) if reached is None else reached
        self.seen[tap] = (given, given._version if version is None else version)


def is_activation(module: nn.Module) -> bool:
    """Whether a module is a pointwise activation function, such as ReLU."""
    return type(module).__module__.startswith(ACTIVATIONS) and not isinstance(module, NO_ACTIVATIONS)
