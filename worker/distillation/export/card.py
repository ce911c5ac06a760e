"""Card: the metadata of an exported file that are needed to use it without the service."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from worker.distillation.contract import InputContract


@dataclass(frozen=True)
class Card:
    """The network's name and options, the class names, the input contract, the objectives that added modules to it, its
    task, the name of its output, if known a description of its initial weights, and the weights' precision."""

    network: str
    options: dict[str, Any]
    class_names: tuple[str, ...]
    contract: InputContract
    task: str
    output: str
    added_by: tuple[str, ...] = ()
    initial_weights: str = ""
    precision: str = "float32"
    sample: Tensor | None = field(default=None, compare=False)
    """Images (N, C, H, W), normalised, on which a file in integers or of a detector is compared with the student; noise if None."""

    def texts(self) -> dict[str, str]:
        """All metadata as strings by name, for formats with string metadata: JSON, except for plain text such as `network`."""
        added = {"added_by": json.dumps(self.added_by)} if self.added_by else {}
        added |= {"initial_weights": self.initial_weights} if self.initial_weights else {}
        added |= {"precision": self.precision} if self.precision != "float32" else {}
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
