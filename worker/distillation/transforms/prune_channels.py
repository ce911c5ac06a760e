"""Fewer channels in every layer."""

import copy
from dataclasses import dataclass
from typing import Annotated, Any

from torch import nn

from worker.distillation.compression.channels import CannotNarrow, kept_values, narrow, narrower_shapes
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.taps import undisturbed
from worker.distillation.parameters import Range
from worker.distillation.transform import Recipe, Setting, Transform


class PruneChannels(Transform):
    """Removes channels of all layers, those of the smallest weights, and trains what remains.

    Li et al., "Pruning filters for efficient convnets", arXiv:1608.08710, with the L2 norm. Channels that are added to each other are
    kept or removed together. It happens before the first step, so it is of use for a student with initial weights, or after a stage in
    full size; one from random weights becomes a narrower network. Channels that a function reads whose result cannot be followed
    (attention, channel shuffle) stay.
    """

    paper = "arXiv:1608.08710"
    structural = True

    @dataclass(frozen=True)
    class Parameters:
        keep: Annotated[
            float, Range(gt=0, lt=1), "Share of the channels of each layer that remains, rounded, at least one."
        ] = 0.5

    def plan(self, network: nn.Module, setting: Setting) -> Recipe:
        shapes = narrower_shapes(network, setting.example, self.settings.keep)
        if not shapes:
            words = "removes nothing: no layer has channels that could be removed"
            raise SpecError([Problem("/keep", words)], "Lower it, or choose another student.")
        try:
            again = copy.deepcopy(network)
            narrow(again, shapes)
            with undisturbed(again, setting.example.device):
                again(setting.example)
        except (CannotNarrow, RuntimeError, ValueError) as error:
            words = f"cannot be used for this network: {error}"
            raise SpecError([Problem("/name", words)], "Use a narrower network, or `factorise`.") from error
        return {"shapes": shapes}

    def apply(self, network: nn.Module, recipe: Recipe) -> None:
        narrow(network, recipe["shapes"])

    def start(self, network: nn.Module, setting: Setting, recipe: Recipe) -> None:
        assert setting.before is not None
        if setting.example.device.type != "meta":
            network.load_state_dict(kept_values(setting.before, setting.example, self.settings.keep))

    def report(self, network: nn.Module, recipe: Recipe) -> dict[str, Any]:
        """The output channels of each layer that has fewer."""
        weights = {
            name: shape for name, shape in recipe["shapes"].items() if name.endswith(".weight") and len(shape) > 1
        }
        return {"channels": {name.removesuffix(".weight"): shape[0] for name, shape in weights.items()}}
