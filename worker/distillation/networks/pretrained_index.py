"""The official names of files of pretrained weights of torchvision and timm.

`python -m worker.distillation.networks.pretrained_index` writes `models/pretrained/files.json` for the installed versions.
"""

import json
from pathlib import Path

INDEX = Path(__file__).parents[3] / "models" / "pretrained" / "files.json"
TIMM = "timm/"
"""Owner of timm's repositories of weights; those of others are left out."""


def torchvision_files() -> dict[str, list[str]]:
    """The files of each classification network, the library's own choice first."""
    from torchvision import models
    from torchvision.models import get_model_weights, list_models

    found: dict[str, list[str]] = {}
    for name in sorted(list_models(module=models)):
        weights = get_model_weights(name)
        default = getattr(weights, "DEFAULT", None)
        urls = [each.url for each in sorted(weights, key=lambda each: each is not default)]
        if urls:
            found[f"torchvision/{name}"] = list(dict.fromkeys(url.rpartition("/")[2] for url in urls))
    return found


def timm_files() -> dict[str, list[str]]:
    """The same; each file is named as its repository, which has one file of weights."""
    import timm

    found: dict[str, list[str]] = {}
    for full in sorted(timm.list_pretrained()):
        config = timm.get_pretrained_cfg(full)
        if config is not None and config.hf_hub_id == f"{TIMM}{full}":
            found.setdefault(f"timm/{config.architecture}", []).append(f"{full}.safetensors")
    for name, files in found.items():
        own = timm.get_pretrained_cfg(name.removeprefix("timm/"))
        first = f"{own.architecture}.{own.tag}.safetensors" if own is not None else ""
        files.sort(key=lambda file: file != first)
    return found


def write() -> None:
    """Write the index."""
    lines = [f"{json.dumps(name)}: {json.dumps(files)}" for name, files in (torchvision_files() | timm_files()).items()]
    INDEX.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
