"""The student in half precision (float16): half of the bytes, with a measured difference from the student in float32."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.plain import plain
from worker.distillation.errors import EngineError
from worker.distillation.export import onnx, safetensors
from worker.distillation.export.card import Card
from worker.distillation.export.portable import portable, random_images
from worker.distillation.networks.detectors.detector import Detector, unpadded
from worker.distillation.tasks.detected_boxes import agreement

COMPARED_IMAGES = 64
MOST_DIFFERENCE = 0.1
"""A file whose outputs differ from the student's by a larger part of the largest output is not published."""
HINT = "Remove `{name}` from `exports`; the same format in float32 is exact."


class HalfPrecision(nn.Module):
    """A network that computes in float16, with inputs and outputs in float32."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.network(image.half())
        return output.float()


def write_safetensors(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the weights in float16; the file is read again, and the network with its weights computes in float32.

    Returns the difference that `compare` measures.

    Raises:
        EngineError: a weight is too large for float16, or the outputs differ too much.
    """
    network = portable(plain(student))
    _check_range(network, "safetensors_fp16")
    safetensors.write(_halves(network), _card(card), path)
    restored = copy.deepcopy(network)
    restored.load_state_dict(safetensors.read(path))
    images = random_images(card.contract, COMPARED_IMAGES)
    with torch.no_grad():
        return compare(restored(images), network(images), card, "safetensors_fp16")


def write_onnx(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the graph in float16, with input and output in float32; onnxruntime runs the file on the CPU.

    Returns `opset`, and the difference that `compare` measures.

    Raises:
        EngineError: a weight is too large for float16, the network cannot be converted, or the outputs differ too much.
    """
    network = portable(plain(student))
    if isinstance(network, Detector):
        raise onnx.ExportFailed("detectors are not written as `onnx_fp16`", "Choose `onnx` or `safetensors_fp16`.")
    _check_range(network, "onnx_fp16")
    opset = onnx.write_unchecked(HalfPrecision(network), _card(card), path)
    images = random_images(card.contract, COMPARED_IMAGES)
    with torch.no_grad():
        expected = network(images)
    return {"opset": opset, **compare(onnx.run(path, images), expected, card, "onnx_fp16")}


def compare(given: Tensor, expected: Tensor, card: Card, name: str) -> dict[str, Any]:
    """How far outputs (B, K) are from those in float32, for `images` random images.

    `max_relative_difference` is the largest difference of an output, divided by the largest absolute output of the batch. For
    the task `classification`, `agreement` is the share of images for which the same class is chosen.

    Raises:
        EngineError: the shapes differ, or the difference is not finite or above 0.1.
    """
    if card.task == "detection":
        return _compare_detections(given, expected, name)
    if given.shape != expected.shape:
        raise EngineError(f"the outputs of `{name}` have the shape {tuple(given.shape)}, not {tuple(expected.shape)}")
    largest = max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
    difference = float((given - expected).abs().max()) / largest
    if not difference <= MOST_DIFFERENCE:
        raise EngineError(f"the outputs of `{name}` differ by {difference:.2g} of the largest", HINT.format(name=name))
    measured: dict[str, Any] = {"images": len(expected), "max_relative_difference": difference}
    if card.task == "classification":
        measured["agreement"] = float((given.argmax(1) == expected.argmax(1)).double().mean())
    return measured


def _compare_detections(given: Tensor, expected: Tensor, name: str) -> dict[str, Any]:
    """`agreement`, F1 of the detections of both on so many `images`."""
    found = agreement(unpadded(given), unpadded(expected), score=0.0)
    if found < 1 - MOST_DIFFERENCE:
        raise EngineError(f"`{name}` and the student agree on {found:.1%} of their detections", HINT.format(name=name))
    return {"images": len(expected), "agreement": found}


def _halves(network: nn.Module) -> nn.Module:
    """A copy with floating-point tensors in float16; integers, such as BatchNorm's count of batches, stay."""
    return copy.deepcopy(network).half()


def _check_range(network: nn.Module, name: str) -> None:
    most = torch.finfo(torch.float16).max
    for key, tensor in network.state_dict().items():
        if tensor.is_floating_point() and bool((tensor.abs() > most).any()):
            raise EngineError(
                f"the student's `{key}` has values above {most:g}, the most of float16", HINT.format(name=name)
            )


def _card(card: Card) -> Card:
    return replace(card, precision="float16")
