"""The transforms of one network in training: planned once, applied whenever the network is built again."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.layers import weighted_layers
from worker.distillation.contract import InputContract
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.errors import Problem, SpecError
from worker.distillation.transform import Recipe, Setting, Transform, no_images, on_meta
from worker.distillation.transformed_network import POINTER, Entry, make_transforms


@dataclass(frozen=True, kw_only=True)
class TransformContext:
    """What the transforms of a member need. `entries` are those of the network that the member starts from; `recipes` those of a
    checkpoint, or None if the transforms have not been planned."""

    example: Tensor
    contract: InputContract
    classes: int
    seed: int = 0
    images: Callable[[int], Tensor] = no_images
    ranks: Ranks = ALONE
    entries: Sequence[Entry] = ()
    recipes: Sequence[Recipe] | None = None

    def setting(self, network: nn.Module) -> Setting:
        """The setting of a transform for this network as it is now."""
        return Setting(
            example=self.example,
            contract=self.contract,
            classes=self.classes,
            seed=self.seed,
            layers=weighted_layers(network, self.example),
            images=self.images,
            ranks=self.ranks,
        )


class MemberTransforms:
    """The transforms of a member. A structural one that the network it starts from already has is not carried out again."""

    def __init__(self, specs: Sequence[Mapping[str, Any]], network: nn.Module, context: TransformContext):
        """Plan the transforms, or take the recipes of a checkpoint, and change the network.

        Raises:
            SpecError: a transform does not fit the network.
        """
        self.context = context
        done = {entry["spec"]["name"] for entry in context.entries}
        made = make_transforms(specs)
        self.used = [
            (dict(spec), each)
            for spec, each in zip(specs, made, strict=True)
            if not (each.structural and each.name in done)
        ]
        self.places = [index for index, each in enumerate(made) if not (each.structural and each.name in done)]
        self._before = _on_cpu(network) if self.used else None
        self.recipes: list[Recipe] = []
        with _own_random_numbers(context):
            for index, (_, transform) in enumerate(self.used):
                self._carry_out(index, transform, network)
        self._settings: tuple[Setting, ...] | None = None

    def _carry_out(self, index: int, transform: Transform, network: nn.Module) -> None:
        known = self.context.recipes
        if known is not None:
            transform.apply(network, known[index])
            self.recipes.append(known[index])
            return
        setting = self.context.setting(network)
        place = f"{POINTER}/{self.places[index]}"
        recipe = self.context.ranks.broadcast(_planned(transform, network, setting, place))
        if transform.structural:
            setting = replace(setting, before=copy.deepcopy(network))
        transform.apply(network, recipe)
        transform.start(network, setting, recipe)
        self.recipes.append(recipe)

    def after_step(self, network: nn.Module, progress: float) -> None:
        """Let all transforms follow an optimiser step."""
        for _, transform in self.used:
            transform.after_step(network, progress, self._setting(network))

    def settled(self, progress: float) -> bool:
        """Whether weights at this progress are stored as they will be at the end."""
        return all(transform.settled(progress) for _, transform in self.used)

    def finalize(self, network: nn.Module) -> list[Entry]:
        """Leave plain weights in the network; gives what to apply to a new one before they are loaded."""
        own = []
        for (spec, transform), recipe in zip(self.used, self.recipes, strict=True):
            setting = self.context.setting(network)
            own.append({"spec": spec, "recipe": transform.finalize(network, setting, recipe)})
        return [*self.context.entries, *own]

    def finalized(self, weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Entry]]:
        """Weights of the network in training as if the stage ended now, on the CPU, and what to apply before they are loaded.

        The network in training stays as it is: another one is built as a resume does it.
        """
        if self._before is None:
            plain = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
            return plain, list(self.context.entries)
        with _own_random_numbers(self.context):
            network = copy.deepcopy(self._before)
            for (_, transform), recipe in zip(self.used, self.recipes, strict=True):
                transform.apply(network, recipe)
        network.load_state_dict(weights)
        network.to(self.context.example.device).eval()
        entries = self.finalize(network)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}, entries

    def _setting(self, network: nn.Module) -> Setting:
        """The setting during the training, in which the layers do not change."""
        if self._settings is None:
            self._settings = (self.context.setting(network),)
        return self._settings[0]


def _on_cpu(network: nn.Module) -> nn.Module:
    """A copy on the CPU, or on the meta device for the check of a spec."""
    copied = copy.deepcopy(network)
    return copied if on_meta(network) else copied.to("cpu")


def _planned(transform: Transform, network: nn.Module, setting: Setting, place: str) -> Recipe:
    """The transform's plan; `place` is its pointer in the spec."""
    try:
        return transform.plan(network, setting)
    except SpecError as error:
        moved = [Problem(f"{place}{problem.pointer}", problem.message) for problem in error.problems]
        raise SpecError(moved, error.hint) from error


@contextmanager
def _own_random_numbers(context: TransformContext) -> Iterator[None]:
    """A context in which new layers draw their weights from the transforms' own seed; it restores the generators at its end."""
    device = context.example.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(context.seed)
        yield
