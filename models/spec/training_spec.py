"""How long and how a student trains: the `training` part of a job's spec."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.spec.body import Body
from models.spec.problems import Problem, complaint

EPOCHS = 30
"""Passes over the source where neither the user nor the source says a length."""

OPTIMIZER_DEFAULTS: dict[str, dict[str, float]] = {
    "sgd": {"learning_rate": 0.05, "weight_decay": 5e-4},
    "adam": {"learning_rate": 2e-3, "weight_decay": 0.0},
    "adamw": {"learning_rate": 2e-3, "weight_decay": 0.01},
}


class TrainingSpec(Body):
    """How long and how the student trains. Where nothing is said, a source may have defaults of its own."""

    epochs: int | None = Field(
        None, ge=1, le=100_000, description=f"Passes over the source; {EPOCHS} if neither is given.", examples=[240]
    )
    steps: int | None = Field(None, ge=1, le=100_000_000, description="Steps, instead of epochs.", examples=[None])
    batch_size: int = Field(128, ge=1, le=65_536, description="Images a step.", examples=[64])
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "adamw", description="The optimiser; most papers use sgd.", examples=["sgd"]
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="At its highest; if null 0.05 for sgd and 0.002 for adam and adamw.",
        examples=[0.05],
    )
    final_learning_rate_fraction: float = Field(
        0.0, ge=0, le=1, description="Where `cosine` ends, as a part of the learning rate.", examples=[0.0]
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd.", examples=[0.9])
    weight_decay: float | None = Field(
        None, ge=0, le=1, description="If null 0.0005 for sgd, 0 for adam and 0.01 for adamw.", examples=[0.0005]
    )
    nesterov: bool = Field(True, description="Nesterov's momentum, for sgd.", examples=[True])
    schedule: Literal["constant", "cosine", "multistep"] = Field(
        "cosine", description="How the learning rate falls.", examples=["cosine"]
    )
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.625, 0.75, 0.875],
        max_length=64,
        description="`multistep` divides by ten after these parts of the training.",
        examples=[[0.625, 0.75, 0.875]],
    )
    warm_up_steps: int = Field(
        0, ge=0, le=10_000_000, description="Steps over which the learning rate rises from zero.", examples=[0]
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the GPU has it.", examples=["auto"]
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Same spec, seed and machine: same student.", examples=[0])
    time_limit_minutes: float | None = Field(
        None,
        gt=0,
        le=60 * 24 * 30,
        description="When its attempts together have run for so long, the training stops where it is, and the student is"
        " evaluated and exported as it is; the job fails only if there is no student yet.",
        examples=[60],
    )
    validation_fraction: float = Field(
        0.0, ge=0, lt=1, description="Part of the dataset that is held back to choose by.", examples=[0.1]
    )
    selection: Literal["last", "best", "average"] = Field(
        "last",
        description="Which weights ship: the last, the best on the held-back part (never on the evaluation), or the running "
        "average.",
        examples=["last"],
    )
    average_weights: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a running average of the weights, min(decay, (1 + n) / (10 + n)) at step n, which is measured "
        "beside those that ship; none if null.",
        examples=[0.999],
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise complaint(Problem("/steps", "give `epochs` or `steps`, not both"))
        if sorted(set(self.milestones)) != self.milestones:
            raise complaint(Problem("/milestones", "must rise"))
        if self.selection == "average" and self.average_weights is None:
            raise complaint(Problem("/average_weights", "say the decay of the average that is to ship"))
        return self
