"""Networks described layer by layer: `{"layers": [{"conv": 16}, ...]}` where a network is named."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from models.spec.catalogue import known
from models.spec.problems import Problem, complaint

LAYERS = "layers"
"""The network of the catalogue that is described layer by layer, and its option."""
MOST_PARAMETERS = 16


def check_layer(layer: dict[str, Any]) -> dict[str, Any]:
    """One layer, unchanged, if it is of one known kind and has only parameters of that kind.

    The engine checks the values and whether the layers fit one another.
    """
    kinds = known("layers")
    found = [kind for kind in kinds if kind in layer]
    if len(found) != 1:
        words = f"must have exactly one of the keys {', '.join(kinds)}; GET /v1/catalogue describes them"
        raise complaint(Problem("", words))
    allowed = kinds[found[0]]["parameters"]["properties"]
    unknown = [name for name in layer if name not in allowed]
    if unknown:
        raise complaint(*(Problem(f"/{name}", f"is not a parameter of {found[0]}") for name in unknown))
    return layer


LayerValue = bool | int | float | Annotated[str, Field(max_length=120)] | None
LayerSpec = Annotated[
    dict[Annotated[str, Field(max_length=63)], LayerValue],
    Field(max_length=MOST_PARAMETERS, examples=[{"conv": 16, "kernel": 5}]),
    AfterValidator(check_layer),
]


def written_as_name(values: Any) -> Any:
    """A body in which `network` is `{"layers": [...]}`, rewritten to the network `layers` with that option."""
    if not isinstance(values, Mapping) or not isinstance(values.get("network"), Mapping):
        return values
    given = values["network"]
    if given.keys() != {LAYERS}:
        raise complaint(Problem("/network", "must be a name, or an object with the list `layers`"))
    if values.get("options"):
        raise complaint(Problem("/options", "must be empty for a network that is described layer by layer"))
    return {**values, "network": LAYERS, "options": {LAYERS: given[LAYERS]}}
