"""A program's graph of evaluation mode as the code of a module: one line an operation."""

from typing import Any

import torch

from worker.distillation.programs.arguments import read_by
from worker.distillation.programs.dry_run import forced_device
from worker.distillation.programs.format import Graph, Node, Program, Special, TensorName, Value

_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "truediv": "/", "mod": "%",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_BUILT_IN = {"torch.sym_max": "max", "torch.sym_min": "min", "torch.sym_int": "int", "torch.sym_float": "float"}
CLASS = '''class {name}(nn.Module):
    """The network as the operations of its evaluation mode; `v0` are the images."""

    TENSORS: ClassVar[dict[str, Any]] = {{
{tensors}
    }}
    """Shapes of the parameters, and of other tensors with their types."""

    def __init__(self) -> None:
        super().__init__()
        for path, (shape, dtype) in self.TENSORS.items():
            *parents, leaf = path.split(".")
            module: nn.Module = self
            for name in parents:
                if name not in module._modules:
                    module.add_module(name, nn.Module())
                module = module._modules[name]
            if dtype is None:
                module.register_parameter(leaf, nn.Parameter(torch.rand(shape)))
            else:
                module.register_buffer(leaf, torch.ones(shape, dtype=dtype))

    def forward(self, v0: Tensor) -> Tensor:
        aten = torch.ops.aten
        t = dict(self.named_parameters()) | dict(self.named_buffers())
{lines}
        return v{output}'''


def class_of(program: Program, name: str) -> str:
    """The source of the class `name`, whose state dict has the program's stored tensors."""
    graph = program.graphs["eval"]
    tensors = [f"        {each!r}: ({shape!r}, {_dtype(program, each)})," for each, shape in program.shapes.items()]
    lines = [f"        {line}" for line in _lines(graph, program)]
    return CLASS.format(name=name, tensors="\n".join(tensors), lines="\n".join(lines), output=graph.output)


def _dtype(program: Program, name: str) -> str:
    return "None" if program.kinds[name] == "param" else f"torch.{program.dtypes[name]}"


def _lines(graph: Graph, program: Program) -> list[str]:
    """The operations, each followed by the removal of what nobody reads later."""
    last: dict[int, int] = {}
    for number, node in enumerate(graph.nodes, start=1):
        last |= {number: number} | {each.number: number for each in read_by(node) if isinstance(each, Value)}
    for kept in (0, graph.output):  # the images say the device, wherever a tensor is made
        last.pop(kept, None)
    over: dict[int, list[str]] = {}
    for value, number in last.items():
        over.setdefault(number, []).append(f"v{value}")
    lines, path = [], ""
    for number, node in enumerate(graph.nodes, start=1):
        if graph.calls[node.call].path != path:
            path = graph.calls[node.call].path
            lines.append(f"# {path}")
        lines.append(f"v{number} = {_operation(node, program)}")
        if number in over:
            lines.append(f"del {', '.join(over[number])}")
    return lines


def _operation(node: Node, program: Program) -> str:
    kind, _, name = node.operation.name.partition(".")
    given = [_argument(each, program) for each in node.arguments]
    if kind == "operator" and name == "getitem":
        return f"{given[0]}[{given[1]}]"
    if kind == "operator":
        return f"-{given[0]}" if name == "neg" else f"{given[0]} {_SIGNS[name]} {given[1]}"
    keywords = {key: _argument(value, program) for key, value in node.keywords.items()}
    keywords |= dict.fromkeys(forced_device(node, torch.device("cpu")), "v0.device")
    called = _BUILT_IN.get(node.operation.name, node.operation.name)
    return f"{called}({', '.join([*given, *(f'{key}={value}' for key, value in keywords.items())])})"


def _argument(value: Any, program: Program) -> str:
    if isinstance(value, Value):
        return f"v{value.number}"
    if isinstance(value, TensorName):
        return f"t[{program.stored(value.name)!r}]"
    if isinstance(value, Special):
        written = {"device": "v0.device", "float": f'float("{value.value}")'}
        return written.get(value.kind, f"torch.{value.value}")
    if isinstance(value, list):
        return f"[{', '.join(_argument(each, program) for each in value)}]"
    return repr(value)
