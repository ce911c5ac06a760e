"""Translation: an ONNX graph as the graph of a program, node after node."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.programs.format import Value, is_name
from worker.distillation.programs.onnx.building import Building, NoTranslation
from worker.distillation.programs.onnx.node import Constant, Context, Operand, Rule
from worker.distillation.programs.onnx.reading import EXPORT_AGAIN, OnnxGraph, dims_of, is_channels_last, refuse

CHANNELS_LAST = "channels_last"
SPARE_BYTES = 16 * 2**20
"""What constants that are not in the file may take at most, beside four times those that are."""


class Translator:
    """Translates one graph by `rules`, one for each operation; `fold` computes what can be computed at once; `said` holds
    what the file does not."""

    def __init__(
        self,
        source: OnnxGraph,
        contract: InputContract,
        said: Mapping[str, Any],
        rules: Mapping[str, Rule],
        fold: Rule,
    ):
        self.source = source
        self.contract = contract
        self.said = said
        self.rules = rules
        self.fold = fold
        self.values: dict[str, Operand] = {"": None}
        self.paths: set[str] = set()
        room = 4 * sum(array.nbytes for array in source.arrays.values()) + SPARE_BYTES
        self.built = Building(contract, room)

    def program(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The program as JSON, and its tensors.

        Raises:
            UploadError: operations have no translation; it names them all.
        """
        self._bind()
        self._refuse_unknown()
        for number, node in enumerate(self.source.graph.node):
            self._translate(node, number)
        graph = self.built.graph(self._output())
        contract = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.contract).items()
        }
        return {
            "format": "program", "version": 1, "made_by": f"ONNX, opset {self.source.opset}", "input": contract,
            "classes": int(self.said["classes"]), "class_names": list(self.said.get("class_names") or []),
            "tensors": self.built.kinds, "alias": {}, "graphs": {"eval": graph},
        }, self.built.tensors  # fmt: skip

    def _bind(self) -> None:
        graph = self.source.graph
        self.values |= {name: Constant(array, name) for name, array in self.source.arrays.items()}
        inputs = [each for each in graph.input if each.name not in self.source.arrays]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise refuse(f"it has {len(inputs)} inputs and {len(graph.output)} outputs; one of each is read")
        self.values[inputs[0].name] = self._image(inputs[0])

    def _image(self, given: Any) -> Value:
        """The graph's input: the images, with their channels last where the graph reads them so, as Keras's do."""
        if not is_channels_last(dims_of(given), self.contract):
            return Value(0)
        self.paths.add(CHANNELS_LAST)
        return self.built.add(CHANNELS_LAST, "aten.permute.default", [Value(0), [0, 2, 3, 1]], {})

    def _refuse_unknown(self) -> None:
        unknown = sorted({node.op_type for node in self.source.graph.node} - set(self.rules))
        if unknown:
            raise refuse(
                f"it uses {', '.join(each[:60] for each in unknown[:12])}, which have no translation", EXPORT_AGAIN
            )

    def _translate(self, node: Any, number: int) -> None:
        where = f"node {number}, {node.op_type}"
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise refuse(f"{where} reads {missing[0][:80]!r}, which no node before it gives")
        operands = [self.values[name] for name in node.input]
        context = Context(self.built, self.source.opset, node, operands, self._path(node))
        rule = self.rules[node.op_type]
        try:
            found = self.fold(context)
            found = rule(context) if found is None else found
        except NoTranslation as error:
            raise refuse(f"{where} {error}, which has no translation") from error
        except UploadError as error:
            raise refuse(f"{where} has no translation: {error.message}", EXPORT_AGAIN) from error
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
            raise refuse(f"{where} has inputs or attributes that make no sense: {str(error)[:200]}") from error
        results = list(found) if isinstance(found, (list, tuple)) else [found]
        for name, result in zip(node.output, results, strict=False):
            if name:
                self.values[name] = result

    def _path(self, node: Any) -> str:
        """The module of a node: after the name of its weights where they have one of the kind, else after its operation."""
        stem = re.sub(r"[^a-z0-9]", "", node.op_type.lower())
        names = [name for name in node.input[1:3] if name in self.source.arrays]
        base = names[0].rpartition(".")[0] if names and names[0].endswith(".weight") else ""
        if base and is_name(base) and base not in self.paths:
            self.paths.add(base)
            return base
        number = 0
        while f"{stem}_{number}" in self.paths:
            number += 1
        self.paths.add(f"{stem}_{number}")
        return f"{stem}_{number}"

    def _output(self) -> int:
        name = self.source.graph.output[0].name
        found = self.values.get(name)
        if not isinstance(found, Value) or found.number == 0:
            raise refuse("its output does not depend on its input")
        return found.number
