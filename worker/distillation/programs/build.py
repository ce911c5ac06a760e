"""Building: from a checked program to its network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from worker.distillation.limits import UploadLimits
from worker.distillation.programs import arguments
from worker.distillation.programs.dry_run import Sizes, dry_run, widened
from worker.distillation.programs.format import Program, refuse
from worker.distillation.programs.network import Block, Holder, ProgramNetwork
from worker.distillation.programs.plan import Enter, Plan, cut_points, plans
from worker.distillation.programs.reading import read


class Checked:
    """A program that passed all checks but the first real run; shared by all networks that are built of it."""

    def __init__(self, program: Program):
        arguments.check(program)
        self.program = program
        self.sizes: Mapping[str, Sizes] = dry_run(program)
        self.plans = plans(program, {mode: sizes.shapes for mode, sizes in self.sizes.items()})

    def build(self, tensors: Mapping[str, Tensor]) -> ProgramNetwork:
        """The network, with these tensors by their stored names; parameters are new, and buffers are as given."""
        network = ProgramNetwork(self.program, self.plans, self._stages())
        try:
            self._add_modules(network)
            self._add_tensors(network, tensors)
        except (KeyError, AttributeError) as error:
            raise refuse(f"a module or tensor has a name that torch does not allow: {error}") from error
        return network

    def _stages(self) -> frozenset[str]:
        """Modules that the network calls; of a flat one, as an ONNX file makes, those whose results are cut points."""
        plan = self.plans["eval"]
        calls = {path for path in plan.called if path}
        graph = self.program.graphs["eval"]
        if any(call.caller > 0 for call in graph.calls) or any(node.call == 0 for node in graph.nodes):
            return frozenset(calls)
        points = cut_points(self.program, self.sizes["eval"].shapes)
        steps = [step for step in plan.bodies[0].steps if isinstance(step, Enter)]
        return frozenset(step.path for step in steps if step.gives in points)

    def _add_modules(self, network: ProgramNetwork) -> None:
        layers: dict[str, Any] = {}
        for plan in self.plans.values():
            for body in plan.bodies.values():
                prefix = f"{body.path}." if body.path else ""
                layers |= {prefix + step.path: step.layer for step in body.steps if isinstance(step, Enter)}
        owners = {name.rpartition(".")[0] for name in self.program.kinds}
        called = set().union(*(plan.called for plan in self.plans.values()))
        for path in (*(path for path in _in_order(self.plans, self.program)), *sorted(layers)):
            self._add_module(network, path, layers, called)
        for path in sorted(owners - {""}):
            self._add_module(network, path, layers, called)

    def _add_module(self, network: nn.Module, path: str, layers: Mapping[str, Any], called: set[str]) -> None:
        module, at = network, ""
        for part in path.split("."):
            at = f"{at}.{part}" if at else part
            if part not in module._modules:
                module.add_module(part, self._module(at, layers.get(at), called))
            module = module._modules[part]  # type: ignore[assignment]

    def _module(self, path: str, layer: Any, called: set[str]) -> nn.Module:
        if layer is None:
            return Block(path, self.plans) if path in called else Holder()
        made: nn.Module = layer.make()
        made._parameters, made._buffers = dict.fromkeys(made._parameters), dict.fromkeys(made._buffers)
        return made  # its tensors are registered by their names afterwards

    def _add_tensors(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        shared: dict[str, Tensor] = {}
        for name, kind in self.program.kinds.items():
            stored = self.program.stored(name)
            if stored not in shared:
                tensor = tensors[stored]
                shared[stored] = nn.Parameter(tensor) if kind == "param" else tensor
            owner, _, leaf = name.rpartition(".")
            module = network.get_submodule(owner)
            if kind == "param":
                module.register_parameter(leaf, shared[stored])  # type: ignore[arg-type]
            else:
                module.register_buffer(leaf, shared[stored], persistent=kind == "buffer")


def _in_order(of: Mapping[str, Plan], program: Program) -> list[str]:
    """Paths of modules in the order in which the original named its tensors, then of those without any as they are called."""
    owners = [name.rpartition(".")[0] for name in program.kinds]
    called = [path for plan in of.values() for path in plan.called]
    return [path for path in dict.fromkeys((*owners, *called)) if path]


_CHECKED: dict[tuple[str, int, int], Checked] = {}
MOST_KEPT = 4


def checked(path: Path, limits: UploadLimits | None = None) -> Checked:
    """The checked program of a file; a file that was read before and has not changed is not checked again.

    Raises:
        UploadError: the program is refused.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if key not in _CHECKED:
        while len(_CHECKED) >= MOST_KEPT:
            del _CHECKED[next(iter(_CHECKED))]
        _CHECKED[key] = Checked(read(path, limits))
    return _CHECKED[key]


def load(path: Path, device: torch.device | None = None, limits: UploadLimits | None = None) -> ProgramNetwork:
    """The network of a program's file with its weights, in training mode as every new module; on the meta device without
    its weights.

    Raises:
        UploadError: the program is refused.
    """
    found, where = checked(path, limits), device or torch.device("cpu")
    return found.build(tensors_of(path, found.program, where))


def tensors_of(path: Path, program: Program, device: torch.device) -> dict[str, Tensor]:
    """The stored tensors, each in memory of its own: those that are mapped from a file are not aligned, and torch's
    kernels would take other ways with them."""
    if device.type == "meta":
        return {
            name: torch.empty(shape, dtype=getattr(torch, widened(program.dtypes[name])), device=device)
            for name, shape in program.shapes.items()
        }
    with safe_open(path, "pt", device="cpu") as file:
        read_in = {name: file.get_tensor(name) for name in program.shapes}
    return {
        name: tensor.to(device, getattr(torch, widened(program.dtypes[name])), copy=True)
        for name, tensor in read_in.items()
    }
