"""A student with the teacher's classifier."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap


class ReusedClassifier(nn.Module):
    """A student up to one of its taps, a projector, and the teacher's classifier.

    x (B, C, H, W) -> logits (B, K). `tap` is either a feature map of the student (B, C', H', W'), which is average-pooled to
    `size` before the projector and over all positions after it, or a vector (B, C'), with an empty `size`. Keys of the state
    dict begin with `student.` (the student network), `projector.` or `classifier.`.
    """

    def __init__(
        self, student: nn.Module, tap: str, size: tuple[int, ...], projector: nn.Module, classifier: nn.Module
    ):
        super().__init__()
        self.student = student
        self.projector = projector
        self.classifier = classifier
        self.tap = tap
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        if not self.size:
            return self.classifier(self.projector(features))
        height, width = self.size
        return self.classifier(self.projector(F.adaptive_avg_pool2d(features, (height, width))).mean((2, 3)))

    def features(self, x: Tensor) -> Tensor:
        """The value of the student's tap, at the last call of its module."""
        captured: list[Tensor] = []
        module = self.student.get_submodule(self.tap.removesuffix(":in"))
        if self.tap.endswith(":in"):
            hook = module.register_forward_pre_hook(lambda _, args: captured.append(args[0]))
        else:
            hook = module.register_forward_hook(lambda _, args, output: captured.append(output))
        try:
            self.student(x)
        finally:
            hook.remove()
        return captured[-1]


PARTS = frozenset({"student", "projector", "classifier"})


def is_reused(state: Iterable[str]) -> bool:
    """Whether these are the keys of a `ReusedClassifier`'s state dict."""
    return {key.partition(".")[0] for key in state} == PARTS


def projector(channels: int, inner: int, features: int, maps: bool, rectified: bool) -> nn.Sequential:
    """Three layers from the student's `channels` to the teacher's `features`: convolutions for maps, linear for vectors."""
    layers = nn.Sequential()
    for source, target, kernel in ((channels, inner, 1), (inner, inner, 3), (inner, features, 1)):
        if maps:
            layers.append(nn.Conv2d(source, target, kernel, padding=kernel // 2, bias=False))
        else:
            layers.append(nn.Linear(source, target, bias=False))
        layers.append(nn.BatchNorm2d(target) if maps else nn.BatchNorm1d(target))
        layers.append(nn.ReLU())
    return layers if rectified else layers[:-1]


def classifier_of(map_: TapMap, role: str) -> str:
    """The path of the last module that maps a vector to one of another length.

    Raises:
        SpecError: there is none.
    """
    for tap, shape in reversed(list(map_.inputs.items())):
        path = tap.removesuffix(":in")
        if (
            tap.startswith(map_.leading)
            and len(shape) == 1
            and len(map_.shapes.get(path, ())) == 1
            and map_.shapes[path] != shape
        ):
            return path
    raise SpecError([Problem("/name", f"the {role} does not end in a linear classifier")], "Choose another objective.")


def deepest_map(map_: TapMap, channels: int | None = None) -> str | None:
    """The last tap at the smallest resolution above 1x1; None if there is none or it does not have `channels` channels."""
    maps = [tap for tap in map_.stages if map_.shapes[tap][1:] != (1, 1)]
    if not maps or (channels is not None and map_.shapes[maps[-1]][0] != channels):
        return None
    return maps[-1]
