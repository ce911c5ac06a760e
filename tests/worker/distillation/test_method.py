"""Behaviour that all methods have in common."""

import inspect
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import nn

from worker.distillation import registry
from worker.distillation.method import Method
from worker.distillation.objective import Objective, ObjectiveNeeds


class Walk(Method):
    """A method whose attributes depend on two parameters."""

    speed = 5
    legs = 2
    when = {
        ("gait", "run"): {"speed": 12},
        ("uphill", True): {"speed": 3, "legs": 4},
    }

    @dataclass(frozen=True)
    class Parameters:
        gait: Literal["walk", "run"] = "walk"
        uphill: bool = False


@pytest.mark.parametrize(
    ("settings", "speed", "legs"),
    [
        ({}, (5, None), (2, None)),
        ({"gait": "run"}, (12, "gait"), (2, None)),
        ({"uphill": True}, (3, "uphill"), (4, "uphill")),
        ({"gait": "run", "uphill": True}, (12, "gait"), (4, "uphill")),
    ],
)
def test_the_first_case_that_sets_an_attribute_counts(settings, speed, legs):
    walk = Walk(Walk.Parameters(**settings))
    assert (walk.effective("speed"), walk.decided_by("speed")) == speed
    assert (walk.effective("legs"), walk.decided_by("legs")) == legs


def test_settings_are_parameters_of_the_methods_own_class():
    assert not hasattr(Method, "settings")
    assert Walk().settings == Walk.Parameters()
    given = Walk.Parameters("run")
    assert Walk(given).settings is given
    assert Walk().name == "test_method"


def test_an_objective_is_a_module_with_settings():
    class Scaled(Objective):
        when = {("gait", "run"): {"needs": ObjectiveNeeds(logits=True)}}
        Parameters = Walk.Parameters

        def __init__(self, settings=None):
            super().__init__(settings)
            self.scale = nn.Parameter(torch.ones(2))

    scaled = Scaled(Walk.Parameters("run"))
    assert [id(each) for each in scaled.parameters()] == [id(scaled.scale)]
    assert scaled.settings.gait == "run"
    assert scaled.active_needs.logits and not Scaled().active_needs.logits


@pytest.mark.parametrize("kind", registry.BASES)
def test_cases_name_existing_parameters_and_attributes(kind):
    for name in registry.names(kind):
        method = registry.find(kind, name)
        for (parameter, _), then in method.when.items():
            assert parameter in inspect.signature(method.Parameters).parameters, name
            assert then and all(type(value) is type(getattr(method, key)) for key, value in then.items()), name
