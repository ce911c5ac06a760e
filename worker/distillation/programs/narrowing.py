"""Narrower programs: the same operations on fewer channels.

The channels are followed through the graphs without numbers. Integers of the graphs that are numbers of channels are
rewritten, and the result is checked like any program that is read.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.distillation.introspection.channel_freedom import Freedom, length
from worker.distillation.introspection.channel_groups import Axis, Group, positions
from worker.distillation.programs.arguments import bound
from worker.distillation.programs.dry_run import BATCHES, SECONDS, DryRun, on_meta
from worker.distillation.programs.format import Node, Program, Value
from worker.distillation.programs.reading import header_for, parsed
from worker.distillation.programs.saving import text_of

RESHAPING = {"aten.view.default": "size", "aten.reshape.default": "shape", "aten._unsafe_view.default": "size"}
"""Operations that are given the shape of their result, with the argument that holds it."""


class CannotNarrow(Exception):
    """No channel of a program can be removed; the message is half a sentence that says why."""


@dataclass(frozen=True)
class Narrowed:
    """A narrower program, and the positions that it keeps along each dimension of the stored tensors (None: all)."""

    program: Program
    kept: Mapping[str, tuple[Tensor | None, ...]]

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first channels of the wide program's tensors."""
        found = dict(tensors)
        for name, kept in self.kept.items():
            for dimension, at in enumerate(kept):
                if at is not None:
                    found[name] = found[name].index_select(dimension, at.to(found[name].device))
        return found


def narrowed(program: Program, width: float) -> Narrowed:
    """A program with `width` times the channels.

    Raises:
        CannotNarrow: none of its channels can be removed.
        UploadError: the narrower program cannot be run.
    """
    tensors = {name: on_meta(shape, program.dtypes[name]) for name, shape in program.shapes.items()}
    watch = Freedom(tensors)
    runs = {mode: _run(program, mode, tensors, watch) for mode in program.graphs}
    sizes = watch.narrower(width)
    if width < 1 and all(size == group.size for group, size in sizes.items()):
        raise CannotNarrow(_why(watch))
    before = {group: group.size for group in sizes}
    first = {group: torch.arange(size, device="cpu") for group, size in sizes.items()}
    kept: dict[str, tuple[Tensor | None, ...]] = {
        name: tuple(None if axis is None else positions(axis, before, first) for axis in axes)
        for name, axes in watch.axes.items()
    }
    shapes = {
        name: tuple(
            count if at is None else len(at)
            for count, at in zip(shape, kept.get(name, (None,) * len(shape)), strict=True)
        )
        for name, shape in program.shapes.items()
    }
    values = json.loads(program.text)
    for mode, graph in program.graphs.items():
        for number, (node, written) in enumerate(zip(graph.nodes, values["graphs"][mode]["nodes"], strict=True)):
            _rewrite(written, node, _Sizes(watch, sizes, runs[mode].values, number + 1))
    return Narrowed(parsed(text_of(values), header_for(shapes, program.dtypes)), kept)


def _run(program: Program, mode: str, tensors: dict[str, Tensor], watch: Freedom) -> DryRun:
    contract, graph = program.contract, program.graphs[mode]
    image = on_meta((BATCHES[0], contract.channels, contract.height, contract.width))
    run = DryRun(image, tensors, program.alias, mode, time.monotonic() + SECONDS)
    watch.begin(image)
    with torch.no_grad(), torch.random.fork_rng([]), watch:
        for node in graph.nodes:
            run.step(node, node.operation.name)
    watch.end(run.values[graph.output])
    return run


def _why(watch: Freedom) -> str:
    if not watch.holding:
        return "it has no layer whose channels could be fewer"
    most = sorted(watch.holding, key=lambda name: -watch.holding[name])[:3]
    return f"its channels cannot be followed through {', '.join(f'`{name}`' for name in most)}"


@dataclass(frozen=True)
class _Sizes:
    """The channels before and after of a node's result, which is value `number`, and of what it reads."""

    watch: Freedom
    sizes: Mapping[Group, int]
    values: list[Any]
    number: int

    def result(self) -> tuple[int, int] | None:
        return self._of(self.values[self.number])

    def read(self, node: Node) -> tuple[int, int] | None:
        first = node.arguments[0] if node.arguments else None
        return self._of(self.values[first.number]) if isinstance(first, Value) else None

    def _of(self, value: Any) -> tuple[int, int] | None:
        axis: Axis | None = self.watch.along(value) if isinstance(value, Tensor) else None
        return None if axis is None else (value.shape[1], length(axis, self.sizes))


def _rewrite(written: list[Any], node: Node, sizes: _Sizes) -> None:
    """Change a node's numbers of channels where the node is written as JSON."""
    name = node.operation.name
    if node.operation.schema is None:
        return
    given = bound(node.operation, written[2], written[3])
    if name in RESHAPING:
        argument, (before, after) = RESHAPING[name], sizes.result() or (0, 0)
        shape = list(given[argument])
        if before and shape[1] == before:
            shape[1] = after
            _set(written, node, argument, shape)
        return
    before, after = sizes.read(node) or (0, 0)
    if "conv" in name and before and given.get("groups", 1) == before > 1:
        _set(written, node, "groups", after)
    elif name == "aten.group_norm.default" and given["num_groups"] == before > 1:
        _set(written, node, "num_groups", after)
    elif name == "aten.layer_norm.default" and given["normalized_shape"] == [before]:
        _set(written, node, "normalized_shape", [after])


def _set(written: list[Any], node: Node, argument: str, value: Any) -> None:
    names = [each.name for each in node.operation.schema.arguments]
    at = names.index(argument)
    if at < len(written[2]):
        written[2][at] = value
    else:
        written[3][argument] = value
