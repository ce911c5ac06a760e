"""The content of a file of weights."""

from dataclasses import dataclass, field
from typing import Any

SAVE_STATE_DICT = (
    "Save only the weights with `torch.save(network.state_dict(), path)` or as safetensors, and upload that file."
)


@dataclass(frozen=True)
class Contents:
    """Plain data, inert objects and tensors, nested as in the file; `classes` are the names of code that the file calls
    and this reader does not know."""

    container: str
    root: Any
    classes: frozenset[str] = field(default_factory=frozenset)
