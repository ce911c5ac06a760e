"""Card: what a file of weights must say of itself so that it can be used years later."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from worker.distillation.contract import InputContract


@dataclass(frozen=True)
class Card:
    """The network's name and options, the names of its outputs, the images that it reads, its task, what its answer is
    called, the objectives that added to it, and what its training began with, in words, where that is known."""

    network: str
    options: dict[str, Any]
    class_names: tuple[str, ...]
    contract: InputContract
    task: str
    output: str
    added_by: tuple[str, ...] = ()
    initial_weights: str = ""

    def texts(self) -> dict[str, str]:
        """Everything as JSON texts by name, for formats whose metadata are texts; `network` is plain."""
        added = {"added_by": json.dumps(self.added_by)} if self.added_by else {}
        added |= {"initial_weights": self.initial_weights} if self.initial_weights else {}
        return added | {
            "network": self.network,
            "options": json.dumps(self.options),
            "task": self.task,
            "output": self.output,
            "classes": json.dumps(len(self.class_names)),
            "class_names": json.dumps(self.class_names),
            "input": json.dumps(asdict(self.contract)),
            "preprocessing": "(pixel / 255 - mean) / std for each channel; image (batch, channels, height, width)",
        }
