"""A pickle machine that runs no code.

`pickletools.genops` of the standard library splits a pickle into opcodes and their plain arguments; it looks up and calls
nothing. This machine keeps a stack and a memo (`pickle_stack.py`), and executes each opcode by creating plain data or an
inert object (`pickle_steps.py`, `inert.py`). Python's own unpickler is not used: there is no import, no `find_class`,
and no `__reduce__`, `__setstate__`, `append` or `update` of an object from the file. REDUCE, NEWOBJ, INST and OBJ call
`made`, which knows a fixed list of names (`rebuilding.py`).
"""

import pickletools
import struct
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.pickle_stack import Fetcher, Maker, Malformed, PickleStack
from worker.distillation.uploads.weights_file.pickle_steps import STEPS


class CutShort(UploadError):
    """The file ends within a pickle."""


def _run(stream: BinaryIO, budget: Budget, made: Maker, fetched: Fetcher) -> Any:
    """Read the object of the next pickle; the stream is then at the pickle's end.

    Raises:
        Malformed: the bytes are not a valid pickle.
        UploadError: the pickle exceeds a limit.
    """
    machine = PickleStack(made, fetched)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            budget.spend()
            if opcode.name == "STOP":
                return machine.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise Malformed(f"the opcode {opcode.name} is not supported")
            step(machine, argument)
    except (ValueError, LookupError, struct.error, OverflowError, EOFError) as error:
        raise Malformed(str(error)[:200]) from error
    raise Malformed("pickle exhausted before seeing STOP")


def read_pickle(stream: BinaryIO, budget: Budget, made: Maker, fetched: Fetcher) -> Any:
    """Read the object of the next pickle of a stream of bounded size; the stream is then at the pickle's end.

    `made(of, args)` returns the replacement of a call, `fetched(id)` that of a persistent id.

    Raises:
        CutShort: the stream ends within the pickle.
        UploadError: the pickle is damaged or exceeds a limit.
    """
    try:
        return _run(stream, budget, made, fetched)
    except Malformed as error:
        if any(words in str(error) for words in ("exhausted", "remain", "not enough data", "no newline")):
            raise CutShort(f"the checkpoint's pickle is cut short: {error}", "Upload the complete file.") from error
        raise UploadError(
            f"the checkpoint's pickle cannot be read: {error}",
            "Upload the complete file; if it is complete, save the weights with `torch.save(network.state_dict(), path)`.",
        ) from error
