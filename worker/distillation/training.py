"""The `training` part of a job's spec: length, optimiser and learning rate."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Example, Items, Range, parse
from worker.distillation.precision import Precision

DEFAULT_EPOCHS = 30
"""Number of epochs if neither epochs nor steps are set."""
MOST_MINUTES = 60 * 24 * 30


@dataclass(frozen=True)
class Training:
    """Length, optimiser and learning rate of a training. The defaults are ours, not a paper's. If both `epochs` and
    `steps` are set, `steps` counts."""

    epochs: Annotated[
        int | None,
        Range(ge=1, le=100_000),
        f"Number of passes over the source. If `steps` is null too: {DEFAULT_EPOCHS}.",
        Example(240),
    ] = None
    steps: Annotated[
        int | None, Range(ge=1, le=100_000_000), "Number of steps. Set instead of `epochs`.", Example(None)
    ] = None
    batch_size: Annotated[int, Range(ge=1, le=65_536), "Number of images per step.", Example(64)] = 128
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], "Optimiser. Most papers use sgd.", Example("sgd")] = "adamw"
    learning_rate: Annotated[float, Range(gt=0, le=1000), "Peak learning rate.", Example(0.05)] = 2e-3
    final_learning_rate_fraction: Annotated[
        float,
        Range(ge=0, le=1),
        "Final learning rate of `cosine`, as a fraction of the peak learning rate.",
        Example(0.0),
    ] = 0.0
    momentum: Annotated[float, Range(ge=0, lt=1), "Momentum of sgd.", Example(0.9)] = 0.9
    weight_decay: Annotated[
        float,
        Range(ge=0, le=1),
        "Weight decay. adamw does not apply it to parameters of one dimension (biases and BatchNorm).",
        Example(0.0005),
    ] = 0.01
    nesterov: Annotated[bool, "Whether sgd uses Nesterov momentum.", Example(True)] = True
    schedule: Annotated[
        Literal["constant", "cosine", "multistep"],
        "Schedule of the learning rate after the warm-up.",
        Example("cosine"),
    ] = "cosine"
    milestones: Annotated[
        tuple[Annotated[float, Range(gt=0, lt=1)], ...],
        Items(most=64),
        "Fractions of the training at which `multistep` reduces the learning rate, in increasing order.",
        Example([0.625, 0.75, 0.875]),
    ] = (0.625, 0.75, 0.875)
    milestone_factor: Annotated[
        float, Range(gt=0, lt=1), "Factor of the learning rate at each of the milestones.", Example(0.1)
    ] = 0.1
    warm_up_steps: Annotated[
        int,
        Range(ge=0, le=10_000_000),
        "Number of steps over which the learning rate rises linearly from zero. 0: no warm-up.",
        Example(0),
    ] = 0
    gradient_clip: Annotated[
        float | None,
        Range(gt=0),
        "Maximum norm of the gradient of all trained parameters of a network together; a longer gradient is scaled down to it."
        " If null: gradients are not clipped.",
        Example(5.0),
    ] = None
    relative_rates: Annotated[
        Literal["off", "on", "auto"],
        "Whether a layer's learning rate is multiplied by the scale of its initial weights relative to torch's default initial"
        " weights, from 1 to 10. For students that start with the large weights of a teacher. `auto`: on if half of the layers"
        " have a scale of 3 or more.",
        Example("off"),
    ] = "off"
    precision: Annotated[
        Precision, "Precision of the forward pass. auto: bf16 on GPUs with native support, else fp32.", Example("auto")
    ] = "auto"
    teacher_precision: Annotated[
        Literal["training", "fp32", "bf16"],
        "Precision of the teacher's forward pass: that of `precision` (`training`), or another. Ignored where objectives read"
        " the teacher's activations or gradients.",
        Example("training"),
    ] = "training"
    fold_teacher: Annotated[
        bool,
        "Whether the teacher's BatchNorm layers are folded into the convolutions before them, where that gives the same outputs"
        " up to rounding. Ignored where objectives read the teacher's activations or gradients.",
        Example(False),
    ] = False
    teacher_answers: Annotated[
        Literal["live", "cached"],
        "`cached`: the teacher's outputs are computed once for every view of every training image before the first step. The source"
        " must be `dataset` without augmentation, or with `views`. Ignored where objectives read the teacher's activations or"
        " gradients. `live`: they are computed at every step.",
        Example("live"),
    ] = "live"
    seed: Annotated[
        int,
        Range(ge=0, lt=2**63),
        "Random seed. The same spec and seed give the same student on the same machine.",
        Example(0),
    ] = 0
    time_limit_minutes: Annotated[
        float | None,
        Range(gt=0, le=MOST_MINUTES),
        "Maximum running time in minutes, over all attempts. At the limit the training stops, and the student is evaluated"
        " and exported as it is; the job fails only if there is no student yet. If null: no limit of the job's own.",
        Example(60),
    ] = None
    validation_fraction: Annotated[
        float,
        Range(ge=0, lt=1),
        "Fraction of the training images to hold out as validation images, for the choice of weights.",
        Example(0.1),
    ] = 0.0
    selection: Annotated[
        Literal["last", "best", "average"],
        "Which weights to export: the last, those with the best result on the validation images (never on the evaluation"
        " dataset), or the running average.",
        Example("last"),
    ] = "last"
    average_weights: Annotated[
        float | None,
        Range(gt=0, lt=1),
        "Decay of a running average of the weights; at step n it is min(decay, (1 + n) / (10 + n)). The average is evaluated"
        " in addition to the exported weights. If null: no average.",
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
            passed = sum(number >= milestone * total for milestone in self.milestones)
            return self.learning_rate * self.milestone_factor**passed
        return self.learning_rate

    def make_optimizer(
        self, parameters: Iterable[nn.Parameter], factor_of: Mapping[nn.Parameter, float] | None = None
    ) -> Optimizer:
        """The optimiser; each of its groups has a `factor` of the learning rate, which is 1 where `factor_of` has none.

        Only AdamW exempts one-dimensional parameters (biases and BatchNorm) from weight decay.
        """
        parameters = list(parameters)
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        others = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": parameters}]
        if self.optimizer == "adamw":
            groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        groups = _divided(groups, factor_of or {})
        fused = can_be_fused(parameters)
        if self.optimizer == "sgd":
            nesterov = self.nesterov and self.momentum > 0
            sgd = SGD(
                groups,
                self.learning_rate,
                self.momentum,
                weight_decay=self.weight_decay,
                nesterov=nesterov,
                fused=fused,
            )
            if fused and self.momentum:
                _begin_momentum(sgd)
            return sgd
        kind = Adam if self.optimizer == "adam" else AdamW
        return kind(groups, self.learning_rate, weight_decay=self.weight_decay, fused=fused)

    def autocast(self, device: torch.device) -> torch.autocast:
        """An autocast context: bf16 if requested, or if the precision is `auto` on a GPU with native bf16."""
        return self._autocast(self.precision, device)

    def teacher_autocast(self, device: torch.device) -> torch.autocast:
        """The same for a teacher whose outputs alone are read."""
        return self._autocast(
            self.precision if self.teacher_precision == "training" else self.teacher_precision, device
        )

    @staticmethod
    def _autocast(precision: Precision, device: torch.device) -> torch.autocast:
        automatic = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        low = precision == "bf16" or (precision == "auto" and automatic)
        return torch.autocast(device.type, torch.bfloat16, enabled=low)


def can_be_fused(parameters: Iterable[Tensor]) -> bool:
    """Whether torch has one kernel for an optimiser's step on all these parameters.

    The kernels on a CPU walk through memory, so that parameters, gradients and buffers must be laid out alike: contiguous.
    """
    return all(
        each.device.type in ("cpu", "cuda") and each.is_floating_point() and each.is_contiguous() for each in parameters
    )


def _begin_momentum(optimizer: SGD) -> None:
    """Give every parameter a momentum of zero, which is what torch starts with.

    torch's fused kernel takes no parameter whose momentum begins later than that of others, such as one of a connector whose
    objective has a weight of zero at first.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _divided(groups: list[dict[str, Any]], factor_of: Mapping[nn.Parameter, float]) -> list[dict[str, Any]]:
    """An optimiser's groups of parameters, divided so that each has one `factor` of the learning rate."""
    result: list[dict[str, Any]] = []
    for group in groups:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_factor.setdefault(factor_of.get(parameter, 1.0), []).append(parameter)
        result += [group | {"params": params, "factor": factor} for factor, params in by_factor.items()]
    return result
