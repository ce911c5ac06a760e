"""The jobs of a campaign: small, with several methods, some longer than a lease; each has one correct student."""

import random
from collections.abc import Sequence
from typing import Any

STUDENT = {"network": "lenet5_half"}
KD: list[dict[str, Any]] = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}]
FITNETS = {"name": "two_stage", "preset": "fitnets", "guided": "relu2", "hint": "relu2"}
DAFL = {"name": "dafl", "generator_width": 8, "latent": 16, "generator_batch": 32, "pool_images": 256}


def _with_data(steps: int, seed: int, augmentation: str = "none", **more: Any) -> dict[str, Any]:
    training = {"steps": steps, "batch_size": 32, "optimizer": "adam", "learning_rate": 3e-3, "seed": seed}
    source = {"name": "dataset", "augmentation": augmentation}
    return {
        "student": STUDENT,
        "source": source,
        "objectives": KD,
        "training": training,
        "exports": ["safetensors"],
    } | more


def _without_data(steps: int, seed: int) -> dict[str, Any]:
    training = {"steps": steps, "batch_size": 32, "seed": seed}
    return {"student": STUDENT, "source": DAFL, "training": training, "exports": ["safetensors"]}


VARIANTS: dict[str, dict[str, Any]] = {
    "kd": _with_data(60, 1),
    "kd, another seed": _with_data(60, 2, "shift"),
    "kd and nst": _with_data(120, 3, "shift", objectives=[*KD, {"name": "nst"}]),
    "kd and attention": _with_data(120, 4, objectives=[*KD, {"name": "attention_transfer"}]),
    "fitnets": _with_data(150, 5, "shift", procedure=FITNETS),
    "nst in two stages": _with_data(
        150, 6, procedure={"name": "two_stage", "first": [{"name": "nst"}], "second": KD, "fraction": 0.5}
    ),
    "dafl": _without_data(30, 7),
    "dafl, another seed": _without_data(20, 8),
    "longer than a lease": _with_data(900, 9, "shift"),
    "two long stages": _with_data(800, 10, "shift", procedure=FITNETS),
}
"""Ten jobs by name; every job of a campaign is one of them, so that every student can be compared with that of an undisturbed run."""
LONG = ("longer than a lease", "two long stages")
LONG_SHARE = 0.12


def draw(dice: random.Random, variants: Sequence[str]) -> str:
    """The name of a random variant, usually a short one."""
    wants_long = dice.random() < LONG_SHARE
    names = [name for name in variants if (name in LONG) == wants_long] or list(variants)
    return dice.choice(names)


def needs_data(variant: str) -> bool:
    """Whether a job of this variant has a dataset."""
    return VARIANTS[variant]["source"]["name"] == "dataset"
