"""Transform: how a student's weights are stored, in training and in its files: quantised, pruned, factorised.

A transform has two parts. `plan` decides, once, on rank 0; its recipe is JSON and goes to the checkpoints, the model card and the
report. `apply` carries a recipe out on a network, without data and without weights, whenever the network is built again: at a
resume, in the next process, or for a file. All else that a transform knows is in parameters and buffers of the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.method import Method

Recipe = dict[str, Any]
"""What a transform does to a network, as JSON."""
ORDER = ("factorise", "prune_channels", "prune", "share", "quantise", "learned_points", "int8")
"""The order in which a job's transforms have to be listed."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a transform may read of a job. `images(n)` gives n calibration images (n, C, H, W), normalised: training images without
    augmentation, or synthesised ones in a job without data. `layers` are the paths of the convolutions and linear layers in order
    of execution. `before` is the network before `apply`, for `start`."""

    example: Tensor
    contract: InputContract
    classes: int
    seed: int
    layers: tuple[str, ...]
    images: Callable[[int], Tensor]
    before: nn.Module | None = None
    ranks: Ranks = ALONE


class Transform(Method):
    """Changes how a network's weights are stored. Any objective, procedure and source can be combined with it."""

    structural: ClassVar[bool] = False
    """Changes the modules, so that a network which starts from a finished one keeps what was done to that."""
    encodes: ClassVar[bool] = False
    """Stores weights as codes, so that the export `packed` is smaller."""
    calibration_images: ClassVar[int] = 0
    """Number of images that it reads; 0 if it needs none."""
    averages: ClassVar[bool] = True
    """Whether a running average of the network's weights is meaningful."""

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        """Decide what to do with a network that has its initial weights, or is on the meta device for the check of a spec.

        Raises:
            SpecError: the network has nothing that can be transformed as the parameters say; pointers are relative to the
                transform's place in the spec.
        """
        raise NotImplementedError

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        """Carry out a recipe of `plan` or `finalize` in place; the weights come afterwards, from `start` or from a file."""
        raise NotImplementedError

    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        """Set initial values after `apply`, before the first step; not called at a resume."""

    def after_step(self, network: nn.Module, progress: float, setting: Setting) -> None:
        """Called after every optimiser step; `progress` of the stage is 1 after the last."""

    def settled(self, progress: float) -> bool:
        """Whether a network at this progress is stored as it will be at the end."""
        return True

    def finalize(self, network: nn.Module, setting: Setting, recipe: Recipe) -> Recipe:
        """Replace all that only training needs by plain weights, in place; gives the recipe to apply before loading them.

        It can be called at any progress, since a training may be stopped early: what is not settled is done at once.
        """
        return recipe

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """Facts about a finalised network for the report, as JSON."""
        return {}


def on_meta(network: nn.Module) -> bool:
    """Whether a network has no weights, because a spec is being checked."""
    return any(tensor.device.type == "meta" for tensor in network.parameters())


def no_images(count: int) -> Tensor:
    """The calibration images where there are none yet.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(f"a transform asked for {count} calibration images before the training")
