"""Several teachers as one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.parameters import Example, Range, parse
from worker.distillation.precision import single


@dataclass(frozen=True)
class Combination:
    """How the members of an ensemble answer as one."""

    combine: Annotated[
        Literal["probabilities", "logits"],
        "Of what the weighted mean is taken: of softened probabilities, or of logits.",
        Example("probabilities"),
    ] = "probabilities"
    weights: Annotated[
        tuple[Annotated[float, Range(gt=0)], ...] | None,
        "One for each member, in any unit; equal if null.",
        Example([2.0, 1.0]),
    ] = None
    temperature: Annotated[
        float | None,
        Range(gt=0, le=1000),
        "At which probabilities are softened before their mean is taken; if null that of the first of the job's objectives"
        " that has one, else 1.",
        Example(4.0),
    ] = None


class Ensemble(nn.Module):
    """The weighted mean of several networks: images (B, C, H, W), normalised for the first member, to logits (B, K).

    Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, section 1: soft targets are
    the arithmetic or the geometric mean of the members' predictive distributions. With weights w that sum to 1,
    `probabilities` gives `T log(sum_m w_m softmax(z_m / T))`, whose softmax at the temperature T is exactly the arithmetic
    mean of the members' softened probabilities; `logits` gives `sum_m w_m z_m`, whose softmax is their geometric mean at
    every temperature (docs/decisions/ensemble-temperature.md).

    Member m is the submodule `m`, and its taps are named `m.PATH`. Objectives on features require explicit taps;
    synthesisers read the first member's.
    """

    leading = "0."
    """Prefix of the first member's paths, among whose taps the defaults are."""

    weights: Tensor

    def __init__(
        self,
        members: Sequence[nn.Module],
        contracts: Sequence[InputContract],
        combine: str = "probabilities",
        weights: Sequence[float] | None = None,
        temperature: float = 1.0,
    ):
        """Combine members; one with another mean or std than the first's gets renormalised images.

        Raises:
            SpecError: the members read images of different shapes.
        """
        super().__init__()
        first = contracts[0]
        wrong = [
            Problem(
                "/teacher",
                f"member 0 reads images of {_size(first)}, but member {number} reads {_size(contract)};"
                " use teachers that read the same images",
            )
            for number, contract in enumerate(contracts)
            if _size(contract) != _size(first)
        ]
        if wrong:
            raise SpecError(wrong)
        for number, member in enumerate(members):
            self.add_module(str(number), member)
        given = torch.tensor(weights or [1.0] * len(members), dtype=torch.float64)
        self.combine = combine
        self.temperature = temperature
        self.register_buffer("weights", (given / given.sum()).float(), persistent=False)
        for number, contract in enumerate(contracts):
            scale, shift = _renormalisation(first, contract)
            self.register_buffer(f"scale_{number}", scale, persistent=False)
            self.register_buffer(f"shift_{number}", shift, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ensemble (B, K), in float32 or float64."""
        members = enumerate(self.children())
        logits = [single(member(self._renormalised(number, x))) for number, member in members]
        return mean_of(torch.stack(logits), self.weights, self.combine, self.temperature)

    def _renormalised(self, number: int, x: Tensor) -> Tensor:
        scale, shift = self.get_buffer(f"scale_{number}"), self.get_buffer(f"shift_{number}")
        return x if scale.numel() == 0 else x * scale + shift


def mean_of(logits_MBK: Tensor, weights_M: Tensor, combine: str, temperature: float) -> Tensor:
    """The logits (B, K) of the weighted mean of several networks; `weights_M` sum to 1 (see `Ensemble`)."""
    weights = weights_M.to(logits_MBK.dtype)[:, None, None]
    if combine == "logits":
        return (weights * logits_MBK).sum(0)
    softened = torch.log_softmax(logits_MBK / temperature, dim=2)
    return temperature * torch.logsumexp(softened + weights.log(), dim=0)


def _renormalisation(first: InputContract, own: InputContract) -> tuple[Tensor, Tensor]:
    """`scale` and `shift` (C, 1, 1) from the first contract's normalisation to `own`; empty if they are equal."""
    if (first.mean, first.std) == (own.mean, own.std):
        return torch.empty(0), torch.empty(0)
    of_first, of_own = (torch.tensor([each.mean, each.std], dtype=torch.float64) for each in (first, own))
    scale = of_first[1] / of_own[1]
    shift = (of_first[0] - of_own[0]) / of_own[1]
    return scale.float()[:, None, None], shift.float()[:, None, None]


def _size(contract: InputContract) -> str:
    return f"{contract.channels} x {contract.height} x {contract.width}"


def how_combined(teacher: Any) -> dict[str, Any]:
    """An ensemble's parameters from the `teacher` of a spec; those that are absent keep their defaults.

    Raises:
        SpecError: a value is of the wrong type or out of range.
    """
    given = teacher if isinstance(teacher, Mapping) else {}
    said = {each.name: given[each.name] for each in fields(Combination) if given.get(each.name) is not None}
    parse(Combination, said, "/teacher")
    return said
