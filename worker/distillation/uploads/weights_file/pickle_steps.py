"""The steps of the pickle machine, one per opcode. No step calls, imports or compares an object of the file."""

from collections.abc import Callable
from typing import Any

from worker.distillation.uploads.weights_file.inert import Global, Made
from worker.distillation.uploads.weights_file.pickle_stack import Malformed, PickleStack, pairs_of

LONGEST_NAME = 512
MOST_BITS = 4096
"""Largest size of an integer."""


def _push(machine: PickleStack, argument: Any) -> None:
    if type(argument) is int and argument.bit_length() > MOST_BITS:
        raise Malformed(f"an integer has {argument.bit_length()} bits; the maximum is {MOST_BITS}")
    machine.stack.append(bytes(argument) if type(argument) is bytearray else argument)


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str or len(module) + len(name) > LONGEST_NAME:
        raise Malformed("a class name is not text, or it is too long")
    return Global(module, name)


def _named(machine: PickleStack, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.stack.append(_global(module, name))


def _named_on_stack(machine: PickleStack, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(_global(module, name))


def _tuple(length: int) -> Callable[[PickleStack, Any], None]:
    def step(machine: PickleStack, _: Any) -> None:
        taken = [machine.pop() for _ in range(length)]
        machine.stack.append(tuple(reversed(taken)))

    return step


def _extend(machine: PickleStack, items: list[Any]) -> None:
    target = machine.top()
    if type(target) is list:
        target.extend(items)
    elif type(target) is Made:
        target.members.extend(items)
    else:
        raise Malformed("APPEND on an object that is not a list")


def _append(machine: PickleStack, _: Any) -> None:
    item = machine.pop()
    _extend(machine, [item])


def _store(machine: PickleStack, items: list[Any]) -> None:
    target, pairs = machine.top(), pairs_of(items)
    if type(target) is dict:
        target.update(pairs)
    elif type(target) is Made:
        target.entries.update(pairs)
    else:
        raise Malformed("SETITEM on an object that is not a dictionary")


def _store_one(machine: PickleStack, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _store(machine, [key, value])


def _call(machine: PickleStack, _: Any) -> None:
    args, of = machine.pop(), machine.pop()
    if type(args) is not tuple:
        raise Malformed("a call has no arguments")
    machine.stack.append(machine.made(of, args))


def _call_named(machine: PickleStack, _: Any) -> None:
    keywords = machine.pop()
    args = machine.pop()
    of = machine.pop()
    if type(args) is not tuple or type(keywords) is not dict:
        raise Malformed("a call has no arguments")
    machine.stack.append(Made(of, (*args, keywords)))


def _instance(machine: PickleStack, argument: str) -> None:
    module, _, name = argument.partition(" ")
    args = tuple(machine.since_mark())
    machine.stack.append(machine.made(_global(module, name), args))


def _instance_on_stack(machine: PickleStack, _: Any) -> None:
    items = machine.since_mark()
    if not items:
        raise Malformed("an object has no class")
    machine.stack.append(machine.made(items[0], tuple(items[1:])))


def _build(machine: PickleStack, _: Any) -> None:
    """Store an object's state. The state of a dictionary, list or tensor is dropped: attributes must not hide entries."""
    state, target = machine.pop(), machine.top()
    if type(target) is Made:
        if target.state is not None:
            raise Malformed("BUILD sets the state of an object twice")
        target.state = state
    elif type(target) in (int, float, str, bytes, bool, tuple, Global) or target is None:
        raise Malformed("BUILD on a plain value")


def _pop(machine: PickleStack, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _set(machine: PickleStack, _: Any) -> None:
    machine.stack.append(Made(Global("builtins", "set")))


def _frozenset(machine: PickleStack, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append(Made(Global("builtins", "frozenset"), members=items))


def _get(machine: PickleStack, index: int) -> None:
    if index not in machine.memo:
        raise Malformed("the memo has no entry at this index")
    machine.stack.append(machine.memo[index])


def _extend_since_mark(machine: PickleStack, _: Any) -> None:
    items = machine.since_mark()
    _extend(machine, items)


def _store_since_mark(machine: PickleStack, _: Any) -> None:
    items = machine.since_mark()
    _store(machine, items)


STEPS: dict[str, Callable[[PickleStack, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"), _push),
    **dict.fromkeys(("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.since_mark().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": lambda machine, _: machine.stack.append(dict(pairs_of(machine.since_mark()))),
    "EMPTY_SET": _set,
    "FROZENSET": _frozenset,
    "APPEND": _append,
    "APPENDS": _extend_since_mark,
    "ADDITEMS": _extend_since_mark,
    "SETITEM": _store_one,
    "SETITEMS": _store_since_mark,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.remember(index)),
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "GLOBAL": _named,
    "STACK_GLOBAL": _named_on_stack,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_named,
    "INST": _instance,
    "OBJ": _instance_on_stack,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: machine.stack.append(machine.fetched(machine.pop())),
}
"""All supported opcodes. Not supported: EXT1, EXT2, EXT4 (the reader's extension registry), PERSID (torch writes BINPERSID),
NEXT_BUFFER and READONLY_BUFFER (buffers outside the pickle)."""
