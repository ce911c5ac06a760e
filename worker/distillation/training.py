"""How a network trains: the `training` part of a job's spec, its optimiser and its learning rate."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Example, Items, Range, parse
from worker.distillation.precision import Precision

DEFAULT_EPOCHS = 30
"""Passes over the source where neither epochs nor steps are given."""
MOST_MINUTES = 60 * 24 * 30


@dataclass(frozen=True)
class Training:
    """How long and how a network trains. Defaults are ours; if both `epochs` and `steps` are given, `steps` counts."""

    epochs: Annotated[
        int | None,
        Range(ge=1, le=100_000),
        f"Passes over the source; {DEFAULT_EPOCHS} if neither is given.",
        Example(240),
    ] = None
    steps: Annotated[int | None, Range(ge=1, le=100_000_000), "Steps, instead of epochs.", Example(None)] = None
    batch_size: Annotated[int, Range(ge=1, le=65_536), "Images a step.", Example(64)] = 128
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], "The optimiser; most papers use sgd.", Example("sgd")] = (
        "adamw"
    )
    learning_rate: Annotated[float, Range(gt=0, le=1000), "At its highest.", Example(0.05)] = 2e-3
    final_learning_rate_fraction: Annotated[
        float, Range(ge=0, le=1), "Where `cosine` ends, as a part of the learning rate.", Example(0.0)
    ] = 0.0
    momentum: Annotated[float, Range(ge=0, lt=1), "Of sgd.", Example(0.9)] = 0.9
    weight_decay: Annotated[
        float, Range(ge=0, le=1), "Decay of the weights; adamw spares biases and BatchNorm.", Example(0.0005)
    ] = 0.01
    nesterov: Annotated[bool, "Nesterov's momentum, for sgd.", Example(True)] = True
    schedule: Annotated[
        Literal["constant", "cosine", "multistep"], "How the learning rate falls.", Example("cosine")
    ] = "cosine"
    milestones: Annotated[
        tuple[Annotated[float, Range(gt=0, lt=1)], ...],
        Items(most=64),
        "`multistep` divides by ten after these parts of the training.",
        Example([0.625, 0.75, 0.875]),
    ] = (0.625, 0.75, 0.875)
    warm_up_steps: Annotated[
        int, Range(ge=0, le=10_000_000), "Steps over which the learning rate rises from zero.", Example(0)
    ] = 0
    precision: Annotated[Precision, "auto: bf16 where the GPU has it.", Example("auto")] = "auto"
    seed: Annotated[int, Range(ge=0, lt=2**63), "Same spec, seed and machine: same student.", Example(0)] = 0
    time_limit_minutes: Annotated[
        float | None,
        Range(gt=0, le=MOST_MINUTES),
        "When its attempts together have run for so long, the training stops where it is, and the student is evaluated"
        " and exported as it is; the job fails only if there is no student yet.",
        Example(60),
    ] = None
    validation_fraction: Annotated[
        float, Range(ge=0, lt=1), "Part of the dataset that is held back to choose by.", Example(0.1)
    ] = 0.0
    selection: Annotated[
        Literal["last", "best", "average"],
        "Which weights ship: the last, the best on the held-back part (never on the evaluation), or the running average.",
        Example("last"),
    ] = "last"
    average_weights: Annotated[
        float | None,
        Range(gt=0, lt=1),
        "Decay of a running average of the weights, min(decay, (1 + n) / (10 + n)) at step n, which is measured beside"
        " those that ship; none if null.",
        Example(0.999),
    ] = None

    @classmethod
    def from_spec(cls, values: Mapping[str, Any]) -> "Training":
        training = parse(cls, values, "/training")
        if training.selection == "average" and training.average_weights is None:
            raise SpecError([Problem("/training/average_weights", "is required if `selection` is `average`")])
        return training

    def learning_rate_at(self, number: int, total: int) -> float:
        """The learning rate of step `number` of `total`: linear during warm-up, then by the schedule."""
        if number < self.warm_up_steps:
            return self.learning_rate * (number + 1) / self.warm_up_steps
        done = (number - self.warm_up_steps) / max(1, total - self.warm_up_steps)
        if self.schedule == "cosine":
            floor = self.final_learning_rate_fraction
            return self.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
        if self.schedule == "multistep":
            return self.learning_rate * 0.1 ** sum(number >= milestone * total for milestone in self.milestones)
        return self.learning_rate

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser. Only AdamW exempts one-dimensional parameters (biases and BatchNorm) from weight decay."""
        parameters = list(parameters)
        if self.optimizer == "sgd":
            nesterov = self.nesterov and self.momentum > 0
            return SGD(parameters, self.learning_rate, self.momentum, weight_decay=self.weight_decay, nesterov=nesterov)
        if self.optimizer == "adam":
            return Adam(parameters, self.learning_rate, weight_decay=self.weight_decay)
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        return AdamW([group for group in groups if group["params"]], self.learning_rate, weight_decay=self.weight_decay)

    def autocast(self, device: torch.device) -> torch.autocast:
        """An autocast context: bf16 if requested, or if the precision is `auto` on a GPU with native bf16."""
        automatic = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        low = self.precision == "bf16" or (self.precision == "auto" and automatic)
        return torch.autocast(device.type, torch.bfloat16, enabled=low)
