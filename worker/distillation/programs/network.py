"""The network of a program: an `nn.Module` with the original's modules, names and calls.

Nothing is generated or compiled: modules walk through their plan's steps. Values live in a frame, which one forward pass
makes and drops, so that modules hold nothing but tensors and plans.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.programs.dry_run import filled, forced_device
from worker.distillation.programs.format import Program
from worker.distillation.programs.plan import Body, Enter, Operate, Plan


class Frame:
    """The values of one forward pass through one plan, and where its tensors are found."""

    def __init__(self, plan: Plan, owner: nn.Module, prefix: str, device: torch.device):
        self.plan = plan
        self.owner = owner
        self.prefix = prefix
        self.device = device
        self.values: list[Any] = [None] * plan.values

    def tensor(self, name: str) -> Tensor:
        """A parameter or buffer by its name in the program."""
        if not name.startswith(self.prefix):
            raise RuntimeError(
                f"the module at {self.prefix[:-1]!r} reads {name!r}, which is not its own: call the whole network"
            )
        *path, leaf = name[len(self.prefix) :].split(".")
        module = self.owner
        for part in path:
            module = module._modules[part]  # type: ignore[assignment]  # built with every path
        found: Tensor = getattr(module, leaf)
        return found


class Holder(nn.Module):
    """A module that only holds others."""


class Block(nn.Module):
    """A module of a program that is not a layer of torch's. Called with one tensor, as its caller in the original did.

    A pass through the whole network hands on its frame; without one the module runs alone, which it can if it reads
    nothing else from outside.
    """

    def __init__(self, path: str, plans: Mapping[str, Plan]):
        super().__init__()
        self._program_path, self._program_plans = path, plans

    def forward(self, x: Any, frame: Frame | None = None, call: int | None = None) -> Any:
        if frame is None:
            plan = self._plan()
            prefix = f"{self._program_path}." if self._program_path else ""
            frame, call = Frame(plan, self, prefix, x.device), plan.called[self._program_path][-1]
        assert call is not None
        body = frame.plan.bodies[call]
        before = None if body.reads is None else frame.values[body.reads]
        if body.reads is not None:
            frame.values[body.reads] = x
        self._walk(body, frame)
        if before is not None and before is not x and frame.values[body.reads] is not None:  # type: ignore[index]
            frame.values[body.reads] = before  # type: ignore[index]
        return None if body.gives is None else frame.values[body.gives]

    def _plan(self) -> Plan:
        mode = "train" if self.training else "eval"
        if mode not in self._program_plans:
            words = "the program has no graph of training mode: pack it with `--student`, or call `eval()` first"
            raise RuntimeError(words)
        return self._program_plans[mode]

    def _walk(self, body: Body, frame: Frame) -> None:
        for step in body.steps:
            if isinstance(step, Operate):
                frame.values[step.number] = _operate(step, frame)
            else:
                self._enter(step, frame)
            for value in step.forget:
                frame.values[value] = None

    def _enter(self, step: Enter, frame: Frame) -> None:
        module: Any = self
        for part in step.path.split("."):
            module = module._modules[part]
        x = None if step.reads is None else frame.values[step.reads]
        result = module(x) if step.layer is not None else module(x, frame=frame, call=step.call)
        if step.gives is not None:
            frame.values[step.gives] = result


def _operate(step: Operate, frame: Frame) -> Any:
    node = step.node
    arguments = [filled(each, frame.values, frame.tensor, frame.device) for each in node.arguments]
    keywords = {name: filled(value, frame.values, frame.tensor, frame.device) for name, value in node.keywords.items()}
    return node.operation.function(*arguments, **keywords, **forced_device(node, frame.device))


class ProgramNetwork(Block):
    """The whole network: images (B, C, H, W) to logits (B, K). In training mode it follows the graph of training mode.

    `program` is what it was built of; `stage_candidates` are the modules among which default taps are found.
    """

    def __init__(self, program: Program, plans: Mapping[str, Plan], stage_candidates: frozenset[str]):
        super().__init__("", plans)
        self._program = program
        self._program_stages = stage_candidates

    @property
    def program(self) -> Program:
        return self._program

    @property
    def stage_candidates(self) -> frozenset[str]:
        return self._program_stages

    def forward(self, x: Tensor, frame: Frame | None = None, call: int | None = None) -> Any:
        plan = self._plan()
        return super().forward(x, Frame(plan, self, "", x.device), 0)
