"""Transform: how weights are stored during training and in the artifact: quantised, pruned, factorised."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from worker.distillation.method import Method


class Transform(Method):
    """Changes how a network's weights are stored. Can be combined with any objective."""

    def prepare(self, network: nn.Module) -> None:
        """Parametrise, mask or factorise the network in place, before its optimiser is created."""

    def after_step(self, network: nn.Module) -> None:
        """Called after every optimiser step."""

    def finalize(self, network: nn.Module) -> None:
        """Convert the transform to plain weights, in place, at the end of the stage."""

    def state_dict(self) -> dict[str, Any]:
        """State that is not in the network's own `state_dict`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
