"""Source code of classes and functions, cut out of their modules with everything that they need."""

import ast
import inspect
import re
import sys
import textwrap
from collections import OrderedDict
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

OWN = "worker.distillation."
IMPORTED = (torch, F, nn, nn.Module, torch.Tensor, OrderedDict)
"""What the written file imports."""


def module_body(module: ModuleType) -> str:
    """The source of a module from its first class or function on."""
    source = inspect.getsource(module)
    first = next(each for each in ast.parse(source).body if isinstance(each, ast.ClassDef | ast.FunctionDef))
    return "\n".join(source.splitlines()[first.lineno - 1 :])


def class_without_init(cls: type, name: str, base: str) -> str:
    """The source of a class as `name`, without `__init__`, where `base` takes the place of nn.Module."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for part in definition.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            assert part.end_lineno is not None
            del lines[part.lineno - 1 : part.end_lineno + 1]
    text = "\n".join(lines).rstrip()
    text = re.sub(rf"^class {cls.__name__}\b", f"class {name}", text, count=1, flags=re.MULTILINE)
    return re.sub(r"^(class \w+)\(nn\.Module\)", rf"\1({base})", text, count=1, flags=re.MULTILINE)


def function_source(function: FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function)).rstrip()


def needed(text: str, module: str) -> dict[str, Any]:
    """The globals of a module that a piece of its code reads, by name; annotations are not read."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = vars(sys.modules[module])
    return {name: names[name] for name in sorted(read) if name in names}
