"""What a user says of a teacher, and what is found: the network that a file's weights are loaded into."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.key_matching import Matched
from worker.distillation.uploads.network_search import Proposal, unseen_options

FIND = "auto"
"""The name of a network that is to be found."""
LISTED_AT_MOST = 8
BYTES_A_PARAMETER = 4


@dataclass(frozen=True)
class Said:
    """What a user says of a teacher. `network` is `auto` and `classes` None where that is to be found."""

    network: str
    options: dict[str, Any]
    classes: int | None
    class_names: list[str]
    contract: InputContract
    weights: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Said":
        """Read it from a job file.

        Raises:
            SpecError: it cannot be.
        """
        names = list(said.get("class_names") or [])
        classes = int(said.get("classes") or 0) or len(names) or None
        if names and len(names) != classes:
            raise SpecError([Problem("/class_names", f"must name each of {classes} classes, not {len(names)}")])
        network, options = said.get("network") or FIND, dict(said.get("options") or {})
        contract = read_contract(said["input"])
        return cls(network, options, classes, names, contract, str(said.get("weights") or "auto"))


@dataclass(frozen=True)
class Found:
    """The network that a file's weights are loaded into."""

    name: str
    options: dict[str, Any]
    classes: int
    contract: InputContract
    network: nn.Module
    matched: Matched
    proposals: tuple[Proposal, ...] = ()
    warnings: tuple[str, ...] = ()


def assumed(name: str, options: Mapping[str, Any]) -> list[str]:
    """A warning that names the options which the weights do not show, if there are such."""
    unseen = unseen_options(name, options)
    if not unseen:
        return []
    listed = " and ".join(f"`{option}` = `{value}`" for option, value in unseen.items())
    return [f"the weights do not show {listed} of `{name}`, which were assumed; name the network if they differ"]


def check_size(
    name: str, options: Mapping[str, Any], classes: int, contract: InputContract, limits: UploadLimits
) -> None:
    """Check that a network has no more parameters than are allowed, without making their numbers.

    Raises:
        SpecError: it has, or it cannot be built.
        UploadError: an upload of this size cannot hold them.
    """
    with torch.device("meta"):
        parameters = parameters_of(networks.build(name, classes, contract, dict(options)))
    if parameters > limits.parameters:
        raise SpecError(
            [Problem("/network", f"{name} has {parameters} parameters; the maximum is {limits.parameters}")]
        )
    limits.check_canonical(BYTES_A_PARAMETER * parameters)  # a small file cannot hold the weights of a large network


def parameters_of(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
