"""Logit standardisation is an option of every objective that compares predictions of classes, and makes it invariant
to scale and shift of the student's logits."""

from dataclasses import replace

import pytest
import torch

from tests.worker.distillation.trial import Trial, objective_of
from worker.distillation import registry
from worker.distillation.catalogue.schema import schema
from worker.distillation.step import Outputs

OF_FEATURES = ("similarity_head",)
"""Needs the teacher's classes for its classifier, and compares features."""


def offers(name):
    return "standardise" in schema(registry.find("objectives", name).Parameters)["properties"]


def compares_classes(name):
    needs = registry.find("objectives", name).needs
    return (needs.logits or needs.peers) and "classification" in needs.tasks and name not in OF_FEATURES


def test_whoever_compares_predictions_offers_it():
    names = registry.names("objectives")
    assert {name for name in names if compares_classes(name)} <= {name for name in names if offers(name)}


@pytest.mark.parametrize("name", [name for name in registry.names("objectives") if offers(name)])
def test_size_and_shift_of_each_row_are_no_matter(name):
    trial = Trial.of("plain", objective_of(name, standardise=True))
    trial.objective.eval()
    step = trial.step()
    scale, shift = torch.rand(4, 1) + 0.5, torch.randn(4, 1)

    def moved(outputs):
        return outputs and Outputs(scale * outputs.logits + shift, outputs.taps)

    other = replace(step, student=moved(step.student), second=moved(step.second))
    plain = objective_of(name)
    values = [sum(trial.objective(each).values()) for each in (step, other)]
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-5)
    assert plain.active_needs.minimum_classes <= trial.objective.active_needs.minimum_classes == 3
