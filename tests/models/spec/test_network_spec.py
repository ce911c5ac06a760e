"""Families of networks, as in the parameters of a search."""

import pytest
from pydantic import ValidationError

from models.spec.method_spec import REFERENCES
from models.spec.network_spec import NetworkSpaceSpec
from models.spec.problems import problems_of
from models.spec.schema_types import annotation


def test_a_family_has_lists_of_values():
    given = {"network": "mlp", "options": {"hidden": [[8], [16, 16], []]}}
    assert NetworkSpaceSpec.model_validate(given).model_dump() == given
    assert annotation({"$ref": "#/network_space"}, REFERENCES) is NetworkSpaceSpec


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"network": "lenet6"}, "/network"),
        ({"network": "mlp", "options": {"hidden": [[8], [8, 0]]}}, "/options/hidden/1/1"),
        ({"network": "mlp", "options": {"hidden": []}}, "/options/hidden"),
        ({"network": "mlp", "options": {"hidden": 8}}, "/options/hidden"),
        ({"network": "mlp", "options": {"hiden": [[8]]}}, "/options/hiden/0"),
    ],
)
def test_an_invalid_family_is_refused_with_a_pointer(given, pointer):
    with pytest.raises(ValidationError) as caught:
        NetworkSpaceSpec.model_validate(given)
    assert [problem.pointer for problem in problems_of(caught.value)] == [pointer]
