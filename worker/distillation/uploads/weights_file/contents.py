"""What was found in a file of weights."""

from dataclasses import dataclass, field
from typing import Any

SAVE_STATE_DICT = (
    "Save the weights alone with `torch.save(network.state_dict(), path)` or as safetensors, and upload that file."
)


@dataclass(frozen=True)
class Contents:
    """Plain data, notes and tensors as they are nested in the file; `classes` names the code
    that it asks to be called and that has no answer here."""

    container: str
    root: Any
    classes: frozenset[str] = field(default_factory=frozenset)
