"""Taps: named activations of any network, captured by hooks that exist for one forward pass only.

PATH        the output of the submodule at this path (at its last call)
PATH:pre    the input of the last activation function that ran in the submodule; the submodule may be that activation
PATH:in     the input of the submodule
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.introspection.tap_map import TapMap
from worker.distillation.introspection.tracing import CheckOutput, Trace, is_activation, one_row, trace
from worker.distillation.parameters import TapPair
from worker.distillation.step import Outputs

ROUNDING_PIXELS = 2
"""Tolerance in pixels, for padding, when the aspect ratio of a feature map is compared with that of the image."""

NO_MAPS = (nn.Dropout, nn.Softmax)


class Tapped(nn.Module):
    """A network whose forward pass returns `Outputs`: its logits and the requested taps.

    In-place activations of the network become out-of-place, so that they overwrite no tap.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Tensor,
        pointer: str = "/network",
        reads: str = "image",
        check_output: CheckOutput = one_row,
    ):
        """Run the network once on `example` (B, C, H, W) in eval mode to find its taps; this changes neither the network
        nor any random generator. B must be at least 2, to tell the batch from other dimensions. `reads` is the batch field
        that the network reads: `image` or `privileged`; `check_output` says what its task's networks return.

        Raises:
            SpecError: the network does not accept images of this shape, or its output is refused; `pointer` is its place in
                the spec.
        """
        super().__init__()
        self.network = network
        self.example = example
        self.reads = reads
        modules: Iterable[Any] = network.modules()
        for module in modules:
            if getattr(module, "inplace", False) is True:
                module.inplace = False
        with undisturbed(network, example.device):
            self._trace: Trace = trace(network, example, pointer, check_output)
        leading = str(getattr(network, "leading", ""))
        own = {tap: shape for tap, shape in self._trace.shapes.items() if tap.startswith(leading)}
        stages = _stages(network, own, self._trace.tensors, example.shape)
        self.map = TapMap(
            shapes={tap: shape for tap, shape in self._trace.shapes.items() if not tap.endswith(":in")},
            stages=stages,
            inputs={tap: shape for tap, shape in self._trace.shapes.items() if tap.endswith(":in")},
            classifier=_classifier(network, own, self._trace.started),
            before_activation=_before_activation(network, self._trace, stages, leading),
            leading=leading,
        )
        self._requested: tuple[str, ...] = ()

    @property
    def requested(self) -> tuple[str, ...]:
        """The taps captured in every forward pass."""
        return self._requested

    def request(self, names: Iterable[str], pointer: str = "/taps") -> None:
        """Capture these taps too in every later forward pass.

        Raises:
            SpecError: the network has no such tap; the message suggests similar ones.
        """
        names = tuple(names)
        problems = [
            Problem(pointer, f"the network has no tap {name!r}; {self.map.nearest(name)}")
            for name in dict.fromkeys(names)
            if self.map.shape(name) is None
        ]
        if problems:
            raise SpecError(problems)
        self._requested = tuple(dict.fromkeys((*self._requested, *names)))

    def forward(self, x: Tensor, *others: Any) -> Outputs:
        """The network's output and the requested taps, all attached to the graph; `others` are passed to the network, which
        returns logits or `Outputs`."""
        captured: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for tap in self._requested:
                hooks.callback(self._hook(tap, captured).remove)
            output = self.network(x, *others)
        missing = [tap for tap in self._requested if tap not in captured]
        if missing:
            raise RuntimeError(f"the forward pass did not reach the taps {', '.join(missing)}")
        given = output if isinstance(output, Outputs) else Outputs(output)
        return replace(given, taps=given.taps | captured)

    def _hook(self, tap: str, captured: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
        path, ordinal = self._trace.places[tap]
        module = self.network.get_submodule(path)
        store = partial(_store, tap, captured, tap in self._trace.overwritten)
        if tap.endswith((":pre", ":in")):
            return module.register_forward_pre_hook(_Counted(ordinal, lambda args, _: store(args[0])))
        return module.register_forward_hook(_Counted(ordinal, lambda _, output: store(output)))


class _Counted:
    """A hook that acts at the `ordinal`-th call of its module in a forward pass only."""

    def __init__(self, ordinal: int, act: Callable[[Any, Any], None]):
        self.left = ordinal
        self.act = act

    def __call__(self, _module: nn.Module, args: Any, output: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            self.act(args, output)


def _store(tap: str, captured: dict[str, Tensor], overwritten: bool, value: Tensor) -> None:
    captured[tap] = value.clone() if overwritten else value


@contextmanager
def undisturbed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """A context in eval mode without gradients; it restores the network's modes and torch's generators at its end."""
    devices = [device] if device.type == "cuda" else []
    with modes_kept(network), torch.random.fork_rng(devices), torch.no_grad():
        yield


def _stages(
    network: nn.Module, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, int], image: torch.Size
) -> tuple[str, ...]:
    """The last feature map at each resolution, of the outermost modules.

    A tap (C, H, W) with another aspect ratio than the image's is not a feature map, nor is the output of a dropout or softmax,
    which attention weights end in. A module that returns the very map of an earlier tap does not replace it.
    """
    height, width = image[-2:]
    among = getattr(network, "stage_candidates", None)  # a program says which of its modules are to be looked at
    best: dict[tuple[int, ...], str] = {}
    for tap, shape in shapes.items():
        is_map = (
            len(shape) == 3
            and ":" not in tap
            and (among is None or tap in among)
            and abs(shape[1] - shape[2] * height / width) <= ROUNDING_PIXELS
        )
        if not is_map or isinstance(network.get_submodule(tap), NO_MAPS):
            continue
        before = best.get(shape[1:])
        deeper = tap.count(".") - before.count(".") if before else -1
        if deeper < 0 or (deeper == 0 and before and tensors[tap] != tensors[before]):
            best[shape[1:]] = tap
    return tuple(best[size] for size in sorted(best, key=lambda size: (-size[0] * size[1], size)))


def _before_activation(network: nn.Module, trace_: Trace, stages: Sequence[str], leading: str) -> dict[str, str]:
    """For each stage the tap of its values before the activation that follows it.

    A stage that ends with an activation has them in `PATH:pre`. If it does not, as the groups of pre-activation networks, they
    are the input of the next activation that reads a map of the same shape, as in Heo et al., arXiv:1904.01866; without one,
    those before the last activation in the stage.
    """
    activations = [path for path in trace_.started if is_activation(network.get_submodule(path))]
    activated = {trace_.tensors[path] for path in activations if path in trace_.tensors}
    found = {}
    for tap in stages:
        within, shape = f"{tap}:pre", trace_.shapes[tap]
        later = [
            path for path in trace_.started[trace_.reached[tap] :] if path in activations and path.startswith(leading)
        ]
        following = next((path for path in later if trace_.shapes.get(f"{path}:pre") == shape), None)
        if trace_.tensors[tap] not in activated and following is not None and activations.count(following) == 1:
            found[tap] = f"{following}:pre"
        elif trace_.shapes.get(within, ())[1:] == shape[1:]:
            found[tap] = within
    return found


def penultimate(tapped: Tapped) -> str:
    """The tap `PATH:in` of the penultimate features.

    Raises:
        SpecError: the network has no linear classifier.
    """
    if tapped.map.classifier is None:
        raise SpecError([Problem("/network", "has no linear classifier, so it has no penultimate features")])
    return tapped.map.classifier


def _classifier(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], started: Sequence[str]) -> str | None:
    """The tap of the input of the last nn.Linear or 1x1 convolution that ran."""
    for path in reversed(started):
        module = network.get_submodule(path)
        head = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1})
        if head and f"{path}:in" in shapes:
            return f"{path}:in"
    return None


def parameters_through(tapped: Tapped, tap: str, pointer: str = "/tap") -> list[str]:
    """Names of the network's parameters in layers that run up to and including a tap.

    Raises:
        SpecError: the network has no such tap; `pointer` is its place in the spec.
    """
    if tapped.map.shape(tap) is None:
        raise SpecError([Problem(pointer, f"the network has no tap {tap!r}; {tapped.map.nearest(tap)}")])
    everything = set(tapped._trace.started)
    executed = set(tapped._trace.started[: tapped._trace.reached[tap]])

    def reader(path: str) -> str:
        """The module that uses the parameters at `path`: itself, or the nearest parent that is called."""
        return path if path in everything else reader(path.rpartition(".")[0])

    return [name for name, _ in tapped.network.named_parameters() if reader(name.rpartition(".")[0]) in executed]


def pair_stages(student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
    """Default pairs: the last tap at each resolution, aligned from the deepest; maps of a single pixel are excluded.

    Raises:
        SpecError: a network has no feature maps.
    """
    stages = [[tap for tap in map_.stages if map_.shapes[tap][1:] != (1, 1)] for map_ in (student, teacher)]
    count = min(map(len, stages))
    if count == 0:
        role = "student" if not stages[0] else "teacher"
        raise SpecError([Problem("/taps", f"the {role} has no feature maps to compare; choose another objective")])
    return tuple(zip(stages[0][-count:], stages[1][-count:], strict=True))


def resolve_pairs(pairs: tuple[TapPair, ...] | None, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
    """The pairs that a job names, checked, or the default pairs.

    Raises:
        SpecError: a network has no such tap; pointers are `/taps/INDEX/0` for students and `/taps/INDEX/1` for teachers.
    """
    if pairs is None:
        return pair_stages(student, teacher)
    problems = [
        Problem(f"/taps/{index}/{side}", f"the {role} has no tap {pair[side]!r}; {map_.nearest(pair[side])}")
        for index, pair in enumerate(pairs)
        for side, (role, map_) in enumerate((("student", student), ("teacher", teacher)))
        if map_.shape(pair[side]) is None
    ]
    twice = [index for index, pair in enumerate(pairs) if pair in pairs[:index]]
    problems += [Problem(f"/taps/{index}", "repeats an earlier pair; remove it") for index in twice]
    if problems:
        raise SpecError(problems)
    return pairs
