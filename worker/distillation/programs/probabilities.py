"""Networks that answer with probabilities: the softmax at the end of a program is left out, so that its outputs are logits."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SOFTMAX = "aten.softmax.int"
CLASSES = (1, -1)
"""Dimensions of the classes in outputs (B, K)."""
LEFT_OUT = "the network ends with a softmax, which was left out: its outputs are logits now, as distillation with a temperature needs"
PROBABILITIES = (
    "the outputs are probabilities: they are not negative and their sum is 1. Objectives read outputs as logits, so export the "
    "network without its softmax"
)
ROUNDING = 1e-4


def without_softmax(program: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON of a program whose outputs are what its last softmax over the classes reads, in every mode; None if it does not
    end with one."""
    graphs = {}
    for mode, graph in program["graphs"].items():
        before = _before_softmax(graph)
        if before is None:
            return None
        graphs[mode] = {**graph, "output": before}
    return {**program, "graphs": graphs}


def _before_softmax(graph: Mapping[str, Any]) -> int | None:
    """The number of the value that the softmax reads whose result is the output."""
    if not graph["output"]:
        return None
    operation, _, arguments, keywords = graph["nodes"][graph["output"] - 1]
    named = dict(zip(("self", "dim"), arguments, strict=False)) | dict(keywords)
    if operation != SOFTMAX or named.get("dim") not in CLASSES:
        return None
    number: int = named["self"]["v"]
    return number


def are_probabilities(outputs_BK: Tensor) -> bool:
    """Whether outputs are probabilities of several classes: not negative, with the sum 1."""
    sums = outputs_BK.sum(1)
    return outputs_BK.shape[1] > 1 and bool((outputs_BK >= 0).all() and (sums - 1).abs().max() < ROUNDING)


def warnings_of(outputs_BK: Tensor, left_out: bool) -> list[str]:
    """What the findings say of outputs for random images; `left_out` if a softmax was."""
    found = [LEFT_OUT] if left_out else []
    with torch.no_grad():
        return [*found, PROBABILITIES] if are_probabilities(outputs_BK) else found
