"""How a network trains: the `training` part of a job's spec, its optimiser and its learning rate."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Range, parse


@dataclass(frozen=True)
class Training:
    """Defaults are ours. `epochs` or `steps` bounds a stage; if both are given, `steps` does."""

    epochs: Annotated[int | None, Range(ge=1)] = None
    steps: Annotated[int | None, Range(ge=1)] = None
    batch_size: Annotated[int, Range(ge=1)] = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: Annotated[float, Range(gt=0)] = 2e-3
    final_learning_rate_fraction: Annotated[float, Range(ge=0, le=1)] = 0.0
    momentum: Annotated[float, Range(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Range(ge=0)] = 0.01
    nesterov: bool = True
    schedule: Literal["constant", "cosine", "multistep"] = "cosine"
    milestones: tuple[float, ...] = (0.625, 0.75, 0.875)
    warm_up_steps: Annotated[int, Range(ge=0)] = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: Annotated[int, Range(ge=0)] = 0
    time_limit_minutes: Annotated[float | None, Range(gt=0)] = None
    validation_fraction: Annotated[float, Range(ge=0, lt=1)] = 0.0
    selection: Literal["last", "best", "average"] = "last"
    average_weights: Annotated[float | None, Range(gt=0, lt=1)] = None

    @classmethod
    def from_spec(cls, values: Mapping[str, Any]) -> "Training":
        training = parse(cls, values, "/training")
        if training.selection == "average" and training.average_weights is None:
            raise SpecError([Problem("/training/average_weights", "say the decay of the average that is to ship")])
        return training

    def learning_rate_at(self, number: int, total: int) -> float:
        """The learning rate of step `number` of `total`; warm-up is linear, the rest follows the schedule."""
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
        """The optimiser; weight decay is left off for parameters of one dimension (biases and BatchNorm) by AdamW only."""
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
        """Low precision where it was asked for, or by itself on a GPU that does not have to emulate it."""
        automatic = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        low = self.precision == "bf16" or (self.precision == "auto" and automatic)
        return torch.autocast(device.type, torch.bfloat16, enabled=low)
