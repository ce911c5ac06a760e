"""Uploaded programs: a teacher that brings its own architecture, or the architecture of a student."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from worker.distillation.contract_check.unlabelled import suspicions
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.introspection.gradients import source_findings
from worker.distillation.introspection.taps import Tapped
from worker.distillation.limits import UploadLimits
from worker.distillation.programs import NETWORK, ProgramNetwork, is_program
from worker.distillation.programs.build import Checked, checked, tensors_of
from worker.distillation.programs.format import Program
from worker.distillation.programs.fresh import initialise
from worker.distillation.programs.onnx import compare, is_onnx, program_of_onnx
from worker.distillation.programs.probabilities import warnings_of, without_softmax
from worker.distillation.programs.saving import text_of

LISTED_AT_MOST = 100
TRAINED_BATCH = 4
NO_PROGRAM = UploadError(
    "the file holds no program", "Make it with `distillery pack`, or name the network that the weights belong to."
)


def teacher(said: Mapping[str, Any], upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    """Findings on a program, or an ONNX file, that is to teach; writes its canonical form.

    Raises:
        UploadError: it is refused.
        SpecError: it reads other images or has other outputs than its user said.
    """
    if is_onnx(upload):
        values, tensors = program_of_onnx(upload, said, limits)
        _write(values, tensors, canonical)
    else:
        _canonical(upload, canonical, limits)
    found = checked(canonical, limits)
    _check_said(said, found.program)
    network = _first_runs(found, tensors_of(canonical, found.program, torch.device("cpu")))
    if is_onnx(upload):
        compare(upload, network, found.program.contract)
    found, network, left_out = _with_logits(found, network, canonical, limits)
    taps = Tapped(network, _images(found.program, 2))
    program = found.program
    return _common(found, canonical, network) | {
        "network": NETWORK,
        "options": dict(said.get("options") or {}),
        "class_names": list(said.get("class_names") or program.class_names),
        "taps": {tap: list(shape) for tap, shape in taps.map.shapes.items()},
        "stages": list(taps.map.stages),
        **source_findings(network, taps.example),
        "warnings": _warnings(network, program, left_out),
    }


def _with_logits(
    found: Checked, network: ProgramNetwork, canonical: Path, limits: UploadLimits
) -> tuple[Checked, ProgramNetwork, bool]:
    """The program without a softmax at its end, in the canonical form too, and whether it had one."""
    program = without_softmax(json.loads(found.program.text))
    if program is None:
        return found, network, False
    tensors = tensors_of(canonical, found.program, torch.device("cpu"))
    _write(program, tensors, canonical)
    again = checked(canonical, limits)
    return again, again.build(tensors).eval(), True


def _warnings(network: ProgramNetwork, program: Program, left_out: bool) -> list[str]:
    with torch.no_grad():
        outputs = network(_images(program, TRAINED_BATCH))
    return [*warnings_of(outputs, left_out), *suspicions(network, program.contract)]


def student(upload: Path, canonical: Path, limits: UploadLimits) -> dict[str, Any]:
    """Findings on a program that students are to be built of; writes its canonical form.

    Raises:
        UploadError: it is refused, or has no graph of training mode.
    """
    if is_onnx(upload):
        words = "an ONNX file has no training mode, so no student can be built of it"
        raise UploadError(words, "Pack the network with `distillery pack --student`.")
    _canonical(upload, canonical, limits)
    found = checked(canonical, limits)
    if "train" not in found.program.graphs:
        raise UploadError("the program has no graph of training mode", "Pack it with `distillery pack --student`.")
    network = _first_runs(found, tensors_of(canonical, found.program, torch.device("cpu")))
    with torch.random.fork_rng([]):
        kept = initialise(network)
    named = list(found.program.class_names)
    return _common(found, canonical, network) | {
        "class_names": named,
        "keeps_packed_values": list(kept)[:LISTED_AT_MOST],
    }


def _canonical(upload: Path, canonical: Path, limits: UploadLimits) -> None:
    """Write the same program once its header is checked: tensors in single precision, finite, and nothing else."""
    if not is_program(upload, limits):
        raise NO_PROGRAM
    program = checked(upload, limits).program
    if sum(map(_numbers, program.shapes.values())) > limits.parameters or len(program.shapes) > limits.tensors:
        raise UploadError(f"the weights have more than {limits.parameters} numbers", "Upload a smaller network.")
    tensors = tensors_of(upload, program, torch.device("cpu"))
    for name, tensor in tensors.items():
        if program.kinds[name] != "constant" and not bool(torch.isfinite(tensor).all()):
            words = f"the tensor `{name}` holds NaN or infinite values, so the network cannot work"
            raise UploadError(words, "Upload a checkpoint from before training diverged.")
    _write(json.loads(program.text), tensors, canonical)


def _write(program: dict[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file(dict(tensors), path, {"format": "pt", "program": text_of(program)})


def _numbers(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _check_said(said: Mapping[str, Any], program: Program) -> None:
    own, problems = asdict(program.contract), []
    if int(said["classes"]) != program.classes:
        problems.append(Problem("/classes", f"is {said['classes']}, and the program gives {program.classes} outputs"))
    for name in ("channels", "height", "width"):
        if int(said["input"][name]) != own[name]:
            problems.append(Problem(f"/input/{name}", f"is {said['input'][name]}, and the program reads {own[name]}"))
    for name in ("mean", "std"):
        if [float(each) for each in said["input"][name]] != list(own[name]):
            problems.append(Problem(f"/input/{name}", f"is not the program's own, {list(own[name])}"))
    if problems:
        raise SpecError(problems, "Leave out what the file says itself: `distillery teachers upload FILE`.")


def _first_runs(found: Checked, tensors: Mapping[str, Tensor]) -> ProgramNetwork:
    """The network, once every graph has given finite logits for random images; in evaluation mode.

    Raises:
        UploadError: an operation fails on real numbers, or a logit is not finite.
    """
    network, program = found.build(tensors).eval(), found.program
    image = _images(program, TRAINED_BATCH)
    for mode in program.graphs:
        own = copy.deepcopy(network).train(mode == "train")
        try:
            with torch.no_grad(), torch.random.fork_rng([]):
                logits = own(image)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise UploadError(
                f"the program fails on random images in mode {mode!r}: {words}", "Pack it again."
            ) from error
        if not bool(torch.isfinite(logits).all()):
            words = f"the network answers random images with NaN or infinite values in mode {mode!r}"
            raise UploadError(words, "Check that the weights are those of a trained network.")
    return network


def _images(program: Program, count: int) -> Tensor:
    contract = program.contract
    shape = (count, contract.channels, contract.height, contract.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _common(found: Checked, canonical: Path, network: nn.Module) -> dict[str, Any]:
    program = found.program
    return {
        "classes": program.classes,
        "input": json.loads(json.dumps(asdict(program.contract))),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "bytes": canonical.stat().st_size,
        "multiply_adds": found.sizes["eval"].operations // 2,
        "program": {
            "made_by": program.made_by,
            "nodes": {mode: len(graph.nodes) for mode, graph in program.graphs.items()},
        },
    }
