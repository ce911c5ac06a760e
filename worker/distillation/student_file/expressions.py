"""Networks as Python expressions: which modules they contain, with the arguments that each was made with."""

import importlib
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.networks.detectors.detector import Detector
from worker.distillation.networks.family import library_call
from worker.distillation.programs import ProgramNetwork
from worker.distillation.student_file.detectors import code_of
from worker.distillation.student_file.program_code import class_of
from worker.distillation.student_file.source_code import (
    IMPORTED,
    OWN,
    class_without_init,
    function_source,
    needed,
)

PLAIN = (bool, int, float, str, tuple, type(None))
LINE = 110


class CannotBeWritten(Exception):
    """A network that cannot be written as code; the message is a clause that says why."""


class Writer:
    """Writes networks as expressions, and collects the definitions and libraries that these need."""

    def __init__(self) -> None:
        self._names: dict[Any, str] = {}
        self._texts: dict[str, str] = {}
        self._libraries: set[str] = set()

    def libraries(self) -> list[str]:
        """The names of the libraries beside torch."""
        return sorted(self._libraries)

    def definitions(self) -> list[str]:
        """The source of all classes and functions; bases come before the classes made of them."""
        return list(self._texts.values())

    def expression(self, module: nn.Module, indent: int) -> str:
        """The code that builds a module with random weights.

        Raises:
            CannotBeWritten: it contains a module that is neither PyTorch's, nor the project's, nor a library's network.
        """
        call = library_call(module)
        if call is not None:
            return self._of_library(module, call, indent)
        cls = type(module)
        if isinstance(module, Detector):
            return self._of_detector(module, indent)
        if isinstance(module, ProgramNetwork):
            return self._of_program(module)
        if cls.__module__.startswith(OWN):
            return self._of_project(module, indent)
        if cls.__module__.startswith("torch.nn.modules.") and not module._modules:
            return f"nn.{module!r}"
        if cls is nn.Sequential:
            return self._of_sequence(module, indent)
        if cls is nn.ModuleList:
            parts = [self.expression(part, indent + 4) for part in module._modules.values() if part is not None]
            return f"nn.ModuleList({_in_brackets('[]', parts, indent)})"
        if cls is nn.Module:  # a part of the path of other modules, which run by themselves
            return _call("Module", [], self._parts(module, indent), indent)
        raise CannotBeWritten(f"there is no code for modules of the class {cls.__module__}.{cls.__qualname__}")

    def _of_library(self, module: nn.Module, call: str, indent: int) -> str:
        """The call of the library, and the modules that were replaced in its network."""
        self._libraries.add(call.partition(".")[0])
        plain = dict(made_by(call).named_modules())
        other: dict[str, str] = {}
        shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        for path, part in module.named_modules():
            known = plain.get(path)
            within = any(path.startswith(f"{each}.") for each in other)
            changed = known is None or type(known) is not type(part) or known._modules.keys() != part._modules.keys()
            if not within and (changed or (not part._modules and repr(known) != repr(part))):
                other[path] = self.expression(part, indent + 4)
            elif not within and known is not None and (own := _other_shapes(known, part)):
                shapes[path] = own
        whole = _call("replaced", [call], other, indent) if other else call
        return f"resized({whole}, {shapes!r})" if shapes else whole

    def _of_detector(self, module: Detector, indent: int) -> str:
        found = code_of(module)
        if found is None:
            raise CannotBeWritten(
                "torchvision's detectors are not written as code; make the network with `torchvision.models.get_model`, to whose"
                " state dict the weights belong"
            )
        name, calls, values = found
        parts = {"backbone": self.expression(module.get_submodule("backbone"), indent + 4)}
        parts |= {key: self._of_library(module.get_submodule(key), call, indent + 4) for key, call in calls.items()}
        return _call(name, [], parts | values, indent)

    def _of_program(self, module: ProgramNetwork) -> str:
        name = self._free_name("Program")
        self._texts[name] = class_of(module.program, name)
        return f"{name}()"

    def _parts(self, module: nn.Module, indent: int) -> dict[str, str]:
        """The code of each submodule by its name."""
        return {
            key: "None" if part is None else self.expression(part, indent + 4) for key, part in module._modules.items()
        }

    def _of_project(self, module: nn.Module, indent: int) -> str:
        if module._parameters:
            raise CannotBeWritten(f"{type(module).__name__} has parameters of its own")
        name = self._define_class(type(module))
        values = {key: repr(value) for key, value in vars(module).items() if self._is_value(key, value)}
        tensors = {key: _tensor(value) for key, value in module._buffers.items() if value is not None}
        return _call(name, [], self._parts(module, indent) | values | tensors, indent)

    def _is_value(self, key: str, value: Any) -> bool:
        return isinstance(value, PLAIN) and not key.startswith("_") and key not in ("training", "call_super_init")

    def _of_sequence(self, module: nn.Module, indent: int) -> str:
        parts = self._parts(module, indent)
        if list(parts) == [str(number) for number in range(len(parts))]:
            return _call("nn.Sequential", _runs(list(parts.values())), {}, indent)
        named = _call("OrderedDict", [], parts, indent)
        return f"nn.Sequential({named})"

    def _define_class(self, cls: type) -> str:
        """Define a class with its bases and all that its methods use; gives its name in the file."""
        if cls in self._names:
            return self._names[cls]
        for base in cls.__bases__:
            if base.__module__.startswith(OWN):
                self._define_class(base)
        name = self._names[cls] = self._free_name(cls.__name__)
        text = class_without_init(cls, name, "Module")
        self._define_needed(text, cls)
        self._texts[name] = text
        return name

    def _define_needed(self, text: str, definition: Any) -> None:
        for name, value in needed(text, definition.__module__).items():
            written = isinstance(value, type | FunctionType) and value in self._names
            if value is definition or written or any(value is each for each in IMPORTED):
                continue
            if isinstance(value, FunctionType) and value.__module__.startswith(OWN):
                self._names[value] = name
                source = function_source(value)
                self._define_needed(source, value)
                self._texts[name] = source
            elif isinstance(value, type) and value.__module__.startswith(OWN):
                self._define_class(value)
            elif isinstance(value, PLAIN):
                self._texts[name] = f"{name} = {value!r}"
            else:
                raise CannotBeWritten(f"{definition.__name__} uses `{name}`, which cannot be written as code")

    def _free_name(self, wanted: str) -> str:
        taken = set(self._texts)
        return next(name for number in range(1, 1000) if (name := wanted + str(number) * (number > 1)) not in taken)


def _other_shapes(known: nn.Module, part: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's own tensors that differ from those of the library's: of a normalisation with an activation in it, say."""
    tensors = {**part._parameters, **part._buffers}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}
    return {name: shape for name, shape in found.items() if tuple(getattr(known, name).shape) != shape}


def made_by(call: str) -> nn.Module:
    """The network that a library's call makes, without a change of torch's random numbers."""
    library = call.partition(".")[0]
    names: dict[str, Any] = {library: importlib.import_module(library)}
    with torch.random.fork_rng([]):
        exec(f"made = {call}", names)
    made: nn.Module = names["made"]
    return made


def _runs(parts: list[str]) -> list[str]:
    """The parts of a sequence, where equal neighbours that are long become one generator."""
    found: list[str] = []
    place = 0
    while place < len(parts):
        count = 1
        while place + count < len(parts) and parts[place + count] == parts[place]:
            count += 1
        same = parts[place]
        found += [f"*({same} for _ in range({count}))"] if count > 1 and "\n" in same else [same] * count
        place += count
    return found


def _call(name: str, positional: list[str], named: dict[str, str], indent: int) -> str:
    """A call as code, in one line if it fits."""
    if all(key.isidentifier() for key in named):
        arguments = positional + [f"{key}={value}" for key, value in named.items()]
    else:
        parts = [f"{key!r}: {value}" for key, value in named.items()]
        arguments = [*positional, "**" + _in_brackets("{}", parts, indent + 4)]
    return name + _in_brackets("()", arguments, indent)


def _in_brackets(brackets: str, parts: list[str], indent: int) -> str:
    first, last = brackets[0], brackets[1]
    line = first + ", ".join(parts) + last
    if len(line) + indent < LINE and "\n" not in line:
        return line
    inner = " " * (indent + 4)
    return f"{first}\n" + "".join(f"{inner}{each},\n" for each in parts) + " " * indent + last


def _tensor(value: Tensor) -> str:
    return f"torch.tensor({value.tolist()}, dtype={value.dtype})"
