"""Which files have the pretrained weights of a network, and where they lie in the folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PRETRAINED = "pretrained"
"""The initial weights in a spec that stand for a library's pretrained ones."""
COMMAND = "distillery-weights"
"""The operator's command that lists and downloads files."""
SUFFIX = ".safetensors"
LISTED_AT_MOST = 3


@dataclass(frozen=True)
class Found:
    """A file in the folder: its official name, and where it is."""

    name: str
    path: Path


@lru_cache(maxsize=1)
def index() -> Mapping[str, Sequence[str]]:
    """The official files of each network, the library's own choice first."""
    return dict(json.loads(Path(__file__).with_name("files.json").read_text(encoding="utf-8")))


def files_of(network: str) -> tuple[str, ...]:
    """The official names of a network's files. A name of timm may say which weights: `timm/resnet18.a1_in1k`."""
    library, _, name = network.partition("/")
    files = index().get(f"{library}/{name.partition('.')[0]}", ())
    return tuple(file for file in files if "." not in name or file == name + SUFFIX)


def places_of(file: str) -> tuple[str, ...]:
    """Where a file may lie in the folder: under its own name, or as a download of timm's repository lays it out."""
    name = file.removesuffix(SUFFIX)
    return (file,) if name == file else (file, f"{name}/model{SUFFIX}", f"timm/{name}/model{SUFFIX}")


def find(folder: Path, network: str) -> Found | None:
    """The file in the folder for a network; None if there is none."""
    found = (Found(file, folder / place) for file in files_of(network) for place in places_of(file))
    return next((each for each in found if each.path.is_file()), None)


def asked(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The networks of a resolved spec that start from pretrained weights, with their places in the spec."""
    for name in ("student", "teacher"):
        part = spec.get(name)
        if isinstance(part, Mapping) and part.get("initial_weights") == PRETRAINED:
            yield f"/{name}", str(part["network"])


def absent(spec: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """JSON pointers and messages for the pretrained weights that a spec asks for and the folder lacks."""
    return [
        (f"{pointer}/initial_weights", _absent(network))
        for pointer, network in asked(spec)
        if find(folder, network) is None
    ]


def _absent(network: str) -> str:
    files = files_of(network)
    listed = ", ".join(files[:LISTED_AT_MOST]) + (", …" if len(files) > LISTED_AT_MOST else "")
    words = f"the operator of this service has no pretrained weights of {network} in its folder of weights"
    return f"{words}: ask for {listed} (`{COMMAND} download {network}`), or use other initial weights"
