"""A machine that reads pickles and runs nothing.

`pickletools.genops` of the standard library splits a pickle into opcodes and their plain arguments; it looks up and calls
nothing. This machine keeps a stack and a memo (`pickle_stack.py`) and answers each opcode with plain data or an
inert note (`pickle_steps.py`, `inert.py`). Python's
own unpickler is not used: no import, no `find_class`, no `__reduce__`, `__setstate__`, `append` or `update` of an object
from the file exists. REDUCE, NEWOBJ, INST and OBJ end in `made`, which knows a fixed list of names (`rebuilding.py`).
"""

import pickletools
import struct
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.pickle_stack import Fetcher, Maker, Malformed, PickleStack
from worker.distillation.uploads.weights_file.pickle_steps import STEPS


class CutShort(UploadError):
    """The bytes end within a pickle."""


def _run(stream: BinaryIO, budget: Budget, made: Maker, fetched: Fetcher) -> Any:
    """The object of the next pickle; the stream stands behind it then.

    Raises:
        Malformed: the bytes make no sense.
        UploadError: they ask for more than is allowed.
    """
    machine = PickleStack(made, fetched)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            budget.spend()
            if opcode.name == "STOP":
                return machine.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise Malformed(f"the opcode {opcode.name} is not read")
            step(machine, argument)
    except (ValueError, LookupError, struct.error, OverflowError, EOFError) as error:
        raise Malformed(str(error)[:200]) from error
    raise Malformed("pickle exhausted before seeing STOP")


def read_pickle(stream: BinaryIO, budget: Budget, made: Maker, fetched: Fetcher) -> Any:
    """The object of the next pickle of a stream, which holds no more than may be read. The stream stands behind it then.

    `made(of, args)` gives what stands for a call, `fetched(id)` what stands for a persistent id.

    Raises:
        CutShort: the stream ends within the pickle.
        UploadError: the pickle is damaged, or asks for more than is allowed.
    """
    try:
        return _run(stream, budget, made, fetched)
    except Malformed as error:
        if any(words in str(error) for words in ("exhausted", "remain", "not enough data", "no newline")):
            raise CutShort(f"the checkpoint's pickle is cut short: {error}", "Upload the whole file again.") from error
        raise UploadError(
            f"the checkpoint's pickle cannot be read: {error}",
            "Upload the whole file again; if it is whole, save the weights with `torch.save(network.state_dict(), path)`.",
        ) from error
