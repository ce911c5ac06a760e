"""The student as a program, published only once the program computes what the student does (docs/programs.md)."""

from pathlib import Path

import torch
from torch import nn

from worker.distillation.compression.plain import plain
from worker.distillation.errors import UploadError
from worker.distillation.export.card import Card
from worker.distillation.export.onnx import CHECKED_BATCHES, ExportFailed
from worker.distillation.export.portable import portable, random_images
from worker.distillation.export.safetensors import serialise
from worker.distillation.programs.build import load
from worker.distillation.programs.packing import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, CannotPack
from worker.distillation.programs.saving import program_and_tensors, text_of

HINT = "Leave `program` out of `exports`, or choose another student."


def write(student: nn.Module, card: Card, path: Path) -> None:
    """Write one file of tensors and program, which any later upload is read from.

    Raises:
        ExportFailed: torch cannot export the student, or the file computes something else.
    """
    network = portable(plain(student))
    try:
        program, tensors = program_and_tensors(network, card.contract, card.class_names)
    except CannotPack as error:
        raise ExportFailed(f"the student cannot be packed as a program: {error}", HINT) from error
    stored = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    path.write_bytes(serialise(stored, {"format": "pt", **card.texts(), "program": text_of(program)}))
    verify(path, network, card)


def verify(path: Path, network: nn.Module, card: Card) -> None:
    """See that the file, read as an upload is, gives what the network does, for random images in batches of 1 and 3.

    Raises:
        ExportFailed: it is refused, or its logits differ by more than the tolerance.
    """
    try:
        again = load(path).eval()
    except UploadError as error:
        raise ExportFailed(f"the student's program would be refused: {error.message}", HINT) from error
    for count in CHECKED_BATCHES:
        image = random_images(card.contract, count, seed=count)
        with torch.no_grad():
            expected, given = network.eval()(image), again(image)
        allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(expected.abs().max())
        difference = float((given - expected).abs().max())
        if not difference <= allowed:
            words = f"the program's logits differ from the student's by {difference:.2g}, more than {allowed:.2g}"
            raise ExportFailed(words, HINT)
