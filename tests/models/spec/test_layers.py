"""Networks described layer by layer in a request."""

import pytest
from pydantic import ValidationError

from models.spec.network_spec import NetworkSpec
from models.spec.problems import problems_of

LAYERS = [{"conv": 4, "kernel": 5}, {"pool": "global"}, {"flatten": True}, {"linear": None}]


def test_an_object_is_the_network_layers_with_the_option():
    spec = NetworkSpec.model_validate({"network": {"layers": LAYERS}})
    assert (spec.network, spec.options) == ("layers", {"layers": LAYERS})
    assert NetworkSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"network": {"layer": LAYERS}}, "/network"),
        ({"network": {"layers": LAYERS}, "options": {"width": 3}}, "/options"),
        ({"network": {"layers": [{"conv": 4}, {"linear": 3, "conv": 3}]}}, "/options/layers/1"),
        ({"network": {"layers": [{"conv": 4, "pool": "max"}]}}, "/options/layers/0"),
        ({"network": {"layers": [{"conv": 4, "speed": 1}]}}, "/options/layers/0/speed"),
        ({"network": {"layers": []}}, "/options/layers"),
        ({"network": {"layers": [{"flatten": True}] * 501}}, "/options/layers"),
    ],
)
def test_refuses_what_is_no_list_of_layers(body, pointer):
    with pytest.raises(ValidationError) as refused:
        NetworkSpec.model_validate(body)
    assert [problem.pointer for problem in problems_of(refused.value)] == [pointer]
