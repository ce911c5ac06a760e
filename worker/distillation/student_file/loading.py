"""The functions of every `student.py`: reading weights and images. They use nothing of this project."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Module(nn.Module):
    """A module made of named parts: submodules, tensors that are not in the file of weights, and plain values."""

    def __init__(self, **parts: Any):
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part, persistent=False)
            elif part is None or isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                setattr(self, name, part)


def replaced(network: nn.Module, **parts: nn.Module) -> nn.Module:
    """The network with other modules at some paths."""
    for path, part in parts.items():
        network.set_submodule(path, part)
    return network


def resized(network: nn.Module, shapes: dict[str, dict[str, tuple[int, ...]]]) -> nn.Module:
    """The network with parameters and buffers of other shapes in the modules at some paths."""
    for path, own in shapes.items():
        module = network.get_submodule(path)
        for name, shape in own.items():
            old = getattr(module, name)
            new = torch.ones(shape, dtype=old.dtype)
            if isinstance(old, nn.Parameter):
                module.register_parameter(name, nn.Parameter(new))
            else:
                module.register_buffer(name, new)
    return network


def with_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """The network with the weights of a safetensors file, for inference."""
    try:
        from safetensors.torch import load_file
    except ImportError:
        state = read_safetensors(path)
    else:
        state = load_file(path)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file by name.

    Raises:
        ValueError: the file is truncated, or has a type of numbers that is unknown here.
    """
    types = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
        "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    content = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < max(start, 8):
        raise ValueError(f"{path} is not a complete safetensors file; copy it again")
    state = {}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in types:
            raise ValueError(f"{path}: tensor {name!r} has the unknown type {entry['dtype']}; install safetensors")
        first, last = entry["data_offsets"]
        if start + last > len(content):
            raise ValueError(f"{path} ends within the tensor {name!r}; copy it again")
        raw = content[start + first : start + last]
        values = (
            torch.frombuffer(raw, dtype=types[entry["dtype"]]) if raw else torch.empty(0, dtype=types[entry["dtype"]])
        )
        state[name] = values.reshape(entry["shape"])
    return state


def pixels(image: Any, channels: int, height: int, width: int) -> Tensor:
    """A Pillow image as uint8 (1, channels, height, width): shorter side scaled, centre cropped."""
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise ValueError(f"an image file has 1 or 3 channels, not {channels}; give preprocess a tensor instead")
    converted = image.convert("L" if channels == 1 else "RGB")
    fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    flat = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return flat.reshape(1, height, width, channels).permute(0, 3, 1, 2)


def normalised(images: Any, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(pixel / 255 - mean) / std` of uint8 images (batch, *shape), in float32.

    Raises:
        ValueError: the images are not uint8, or have another shape.
    """
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8:
        raise ValueError(f"the images must be uint8 with values from 0 to 255, not {images.dtype}")
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"the images must have the shape (batch, {', '.join(map(str, shape))}), not {tuple(images.shape)}"
        )
    mean_C11, std_C11 = (torch.tensor(each, device=images.device)[:, None, None] for each in (mean, std))
    return (images.float() / 255 - mean_C11) / std_C11


def named(outputs: Tensor, names: Sequence[str], task: str) -> list[tuple[str, float]]:
    """The outputs of one image (K,) with their names; probabilities, largest first, if they are logits of classes. Of a map (K, H, W)
    the share of pixels of each class, or the median depth. Of detections (D, 6) the score of each, with its class and box."""
    if task == "detection":
        called = dict(enumerate(names))
        return [
            (f"{called.get(int(kind), int(kind))} at {x1:.0f}, {y1:.0f} to {x2:.0f}, {y2:.0f}", score)
            for x1, y1, x2, y2, score, kind in outputs.tolist()
            if kind >= 0
        ]
    if task == "segmentation":
        chosen = outputs.argmax(0)
        outputs = torch.stack([(chosen == number).float().mean() for number in range(len(outputs))])
    elif task == "depth":
        outputs = outputs.flatten(1).median(1).values
    elif task == "classification":
        outputs = outputs.softmax(0)
    elif task == "multi_label":
        outputs = outputs.sigmoid()
    names = names if len(names) == len(outputs) else [str(number) for number in range(len(outputs))]
    pairs = list(zip(names, outputs.tolist(), strict=True))
    return (
        sorted(pairs, key=lambda pair: -pair[1]) if task in ("classification", "multi_label", "segmentation") else pairs
    )
