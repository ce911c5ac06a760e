"""Which networks of torchvision and timm have the names of a state dict, from an index made by building each of them once.

`python -m worker.distillation.networks.library_index` writes `library_index.json` for the installed versions.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import torch

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError

INDEX = Path(__file__).with_name("library_index.json")
COUNTER = "num_batches_tracked"
SIZES = (224, 256, 384, 32)
"""Image sizes that are tried in turn, since some networks read only one."""


def key_of(names: Iterable[str]) -> str:
    """Equal for state dicts with the same names, whatever their order; counters of batches do not count."""
    listed = sorted(name for name in names if not name.endswith(COUNTER))
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def with_names(names: Iterable[str]) -> tuple[str, ...]:
    """The networks with exactly these names in their state dicts; shapes may differ."""
    return _index().get(key_of(names), ())


@cache
def _index() -> Mapping[str, tuple[str, ...]]:
    return {key: tuple(found) for key, found in json.loads(INDEX.read_text(encoding="utf-8")).items()}


def names_of(name: str) -> list[str] | None:
    """The names of a network's state dict; None if it cannot be built."""
    for size in SIZES:
        contract = InputContract(3, size, size, (0.0,) * 3, (1.0,) * 3)
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return list(networks.build(name, 1000, contract).state_dict())
        except SpecError:
            continue
    return None


def write() -> None:
    """Build every network of both libraries without numbers, and write the index."""
    import timm
    from torchvision import models
    from torchvision.models import list_models

    listed = [f"torchvision/{name}" for name in sorted(list_models(module=models))]
    listed += [f"timm/{name}" for name in sorted(timm.list_models())]
    index: dict[str, list[str]] = {}
    start = time.monotonic()
    for number, name in enumerate(listed, start=1):
        names = names_of(name)
        if names is not None:
            index.setdefault(key_of(names), []).append(name)
        print(f"{number}/{len(listed)} {name}: {time.monotonic() - start:.0f} s", flush=True)
    INDEX.write_text(json.dumps(index, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
