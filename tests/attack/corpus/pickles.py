"""Pickles: every opcode and its abuses, and every way to call a function, in each container that holds a pickle."""

import gzip
import io
import pickletools
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.attack.corpus.case import Canary, Case
from tests.worker.distillation.uploads.hostile_pickles import (
    Call,
    Name,
    Raw,
    Stored,
    emit,
    legacy,
    pickled,
    storage,
    tensor,
    zipped,
)

Payload = tuple[str, str, tuple[Any, ...]]
"""Module, name and arguments of a call."""
HUGE = (2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def payloads(canary: Canary, mark: str) -> dict[str, Payload]:
    """Calls that leave a trace, by name."""
    path = canary.mark(mark)
    code = f"__import__('os').mkdir({path!r})"
    return {
        "mkdir": ("os", "mkdir", (path,)),
        "posix": ("posix", "mkdir", (path,)),
        "copytree": ("shutil", "copytree", ("/etc/apt", path)),
        "system": ("os", "system", (f"touch {path}",)),
        "popen": ("os", "popen", (f"touch {path}",)),
        "subprocess": ("subprocess", "check_output", (("touch", path),)),
        "eval": ("builtins", "eval", (code,)),
        "exec": ("builtins", "exec", (code,)),
        "open": ("builtins", "open", (path, "w")),
        "io_open": ("io", "open", (path, "w")),
        "symlink": ("os", "symlink", ("/etc/passwd", path)),
        "logging": ("logging", "FileHandler", (path,)),
        "sqlite": ("sqlite3", "connect", (path,)),
        "numpy": ("numpy", "savetxt", (path, (0,))),
        "timeit": ("timeit", "timeit", (code, "pass", Name("time", "perf_counter"), 1)),
        "pdb": ("bdb", "Bdb.run", (Call(Name("bdb", "Bdb"), ()), code)),
        "socket": ("socket", "create_connection", (("127.0.0.1", canary.port),)),
        "url": ("urllib.request", "urlopen", (f"http://127.0.0.1:{canary.port}/",)),
    }


CONTROLLED = (
    "mkdir",
    "posix",
    "system",
    "subprocess",
    "eval",
    "exec",
    "open",
    "io_open",
    "symlink",
    "logging",
    "sqlite",
    "numpy",
    "timeit",
    "socket",
)
"""Payloads that a plain `pickle.loads` carries out on any machine."""


def forms(payload: Payload) -> dict[str, Any]:
    """The call as a value, in every form that a pickle has for it."""
    module, name, args = payload
    function = emit(Name(module, name))
    packed = b"".join(map(emit, args))
    maker = Name(module, name)
    return {
        "reduce": Call(maker, args),
        "stack_global": Raw(emit(module) + emit(name) + b"\x93" + emit(args) + b"R"),
        "inst": Raw(b"(" + packed + b"i%s\n%s\n" % (module.encode(), name.encode())),
        "obj": Raw(b"(" + function + packed + b"o"),
        "newobj": Raw(function + emit(args) + b"\x81"),
        "newobj_ex": Raw(function + emit(args) + b"}\x92"),
        "setstate": Raw(b"cm\nC\n)\x81" + emit({"__setstate__": maker}) + b"b"),
        "getattr": Call(
            Call(Name("builtins", "getattr"), (Call(Name("importlib", "import_module"), (module,)), name)), args
        ),
        "partial": Call(Call(Name("functools", "partial"), (maker, *args)), ()),
        "map": Call(Name("builtins", "list"), (Call(Name("builtins", "map"), (maker, [*args])),)),
        "in_a_key": {Call(maker, args): 1},
        "as_state": Call(Name("collections", "OrderedDict"), (), Call(maker, args)),
        "as_items": Call(Name("collections", "OrderedDict"), ([["k", Call(maker, args)]],)),
        "as_persistent_id": Stored(Call(maker, args)),
        "as_storage_type": Stored(("storage", Call(maker, args), "0", "cpu", 4)),
        "as_storage_class": Stored(("storage", maker, "0", "cpu", 4)),
        "as_shape": tensor(shape=Call(maker, args)),
        "as_rebuild": Call(maker, (storage(), 0, (2, 2), (2, 1), False, {})),
        "as_hooks": Call(Name("torch._utils", "_rebuild_parameter"), (tensor(), True, Call(maker, args))),
        "copyreg": Call(Name("copyreg", "_reconstructor"), (maker, Name("builtins", "object"), args)),
        "from_bytes": Call(Name("torch.storage", "_load_from_bytes"), (pickled(Call(maker, args)),)),
        "loads": Call(Name("pickle", "loads"), (pickled(Call(maker, args)),)),
    }


def containers() -> dict[str, Callable[[Any], bytes]]:
    """Files that hold the pickle of a value, by name."""
    return {
        "zip": zipped,
        "legacy": legacy,
        "bare": pickled,
        "gzip": lambda value: gzip.compress(pickled(value), mtime=0),
        "npy": lambda value: _npy_of_objects(pickled(value)),
        "npz": lambda value: _zip_of({"w.npy": _npy_of_objects(pickled(value))}),
        "tar": lambda value: _tar_of({"weights.pth": zipped(value)}),
        "zip_in_zip": lambda value: _zip_of({"weights.pth": zipped(value)}),
        "torchscript": lambda value: _zip_of(
            {"a/data.pkl": pickled(value), "a/code/__torch__.py": b"", "a/version": b"3"}
        ),
        "old_tar": lambda value: _tar_of({"storages": pickled(0), "tensors": pickled(0), "pickle": pickled(value)}),
    }


def beside(value: Any) -> dict[str, Any]:
    """A state dict with a valid weight, and the value."""
    return {"state_dict": {"conv1.weight": tensor()}, "extra": value}


def calls(canary: Canary) -> Iterator[Case]:
    """Every payload in every form in every container, alone and beside weights."""
    for payload in payloads(canary, "x"):
        for form in forms(("os", "mkdir", ("x",))):
            for container in containers():
                for place in ("alone", "beside"):
                    name = f"{payload}-{form}-{container}-{place}"

                    def make(payload=payload, form=form, container=container, place=place, name=name) -> bytes:
                        value = forms(payloads(canary, name)[payload])[form]
                        return containers()[container](value if place == "alone" else beside(value))

                    yield Case("pickled calls", name, make)


CONTEXTS = {
    "empty": b"",
    "value": b"N",
    "mark": b"(",
    "marked": b"(NN",
    "list": b"](N",
    "dict": b"}(NN",
    "function": b"cos\nmkdir\n)",
    "text": b"X\x01\0\0\0aX\x01\0\0\0b",
    "tensor": emit(tensor()),
    "memo": b"]q\0",
}
"""What is on the stack before the opcode."""


def opcodes(dice: random.Random) -> Iterator[Case]:
    """Every opcode, on each kind of stack, with arguments that fit, that are cut short, and that lie about their length."""
    for opcode in pickletools.opcodes:
        for context in CONTEXTS:
            for kind in ("fits", "short", "long"):
                own = dice.random()  # so that a file is made of its own numbers, whenever it is made

                def make(opcode: Any = opcode, context: str = context, kind: str = kind, own: float = own) -> bytes:
                    return _opcode(opcode, context, kind, random.Random(own))

                yield Case("pickle opcodes", f"{opcode.name}-{context}-{kind}", make)


def _opcode(opcode: Any, context: str, kind: str, dice: random.Random) -> bytes:
    """One such file: the opcode stands there once, twice or very often."""
    argument = _argument(opcode.arg, kind, dice)
    many = dice.choice((1, 1, 2, 50_000 if len(argument) < 40 else 2))
    tail = dice.choice((b"", b"0", b"N\x86", b"}" + emit("k") + emit(tensor()) + b"s"))
    value = Raw(CONTEXTS[context] + (opcode.code.encode("latin-1") + argument) * many + tail)
    return containers()[dice.choice(("zip", "legacy"))](value)


def _argument(described: Any, kind: str, dice: random.Random) -> bytes:
    """Bytes of an opcode's argument."""
    if described is None:
        return b""
    if described.n >= 0:
        return dice.randbytes(described.n if kind == "fits" else max(0, described.n - 1))
    if described.n == pickletools.UP_TO_NEWLINE:
        lines = {
            "fits": (b"1", b"os", b"'a'", b"L", b"\xff"),
            "short": (b"",),
            "long": (b"9" * 100_000, b"\\u0000" * 10_000),
        }
        return dice.choice(lines[kind]) + (b"" if kind == "short" else b"\n")
    head = {
        pickletools.TAKEN_FROM_ARGUMENT1: "<B",
        pickletools.TAKEN_FROM_ARGUMENT4: "<i",
        pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
        pickletools.TAKEN_FROM_ARGUMENT8U: "<Q",
    }[described.n]
    body = dice.randbytes(dice.randrange(1, 20))
    most = 2 ** (8 * struct.calcsize(head) - (head == "<i")) - 1
    length = {"fits": len(body), "short": len(body) + 1, "long": min(dice.choice(HUGE), most)}[kind]
    return struct.pack(head, length) + body


def growth() -> Iterator[Case]:
    """Small pickles that ask for much memory or time."""
    calls = {
        "bytearray": Call(Name("builtins", "bytearray"), (2**34,)),
        "bytes": Call(Name("builtins", "bytes"), (2**34,)),
        "zeros": Call(Name("numpy", "zeros"), (2**34,)),
        "range": Call(Name("builtins", "list"), (Call(Name("builtins", "range"), (2**34,)),)),
        "text_times": Call(Name("operator", "mul"), ("a", 2**34)),
        "power": Call(Name("builtins", "pow"), (9, 10**9)),
        "deep": Raw(b"]" * 500_000 + b"a" * 499_999),
        "deep_tuples": Raw(b")" + b"\x85" * 500_000),
        "doubled": Raw(b"]" + b"q\1](h\1h\1e" * 80),
        "doubled_keys": Raw(b")" + b"q\1h\1h\1\x86" * 80 + b"}\x94h\0N0"),
        "memo": Raw(b"N" + b"".join(b"r" + struct.pack("<I", n * 4001 % 2**32) for n in range(200_000))),
        "names": Raw(b"}(" + b"".join(emit(f"n{n}") + b"N" for n in range(200_000)) + b"u"),
        "frames": Raw(b"".join(b"\x95" + struct.pack("<Q", 2**40) for _ in range(100_000)) + b"N"),
        "protocols": Raw(b"\x80\x05" * 500_000 + b"N"),
        "collide": Raw(b"}(" + b"".join(emit(n * (2**61 - 1)) + b"N" for n in range(1, 200_000)) + b"u"),
        "long_integer": Raw(b"\x8b" + struct.pack("<i", 30_000_000) + b"\x7f" * 30_000_000),
        "decimal_integer": Raw(b"L" + b"9" * 3_000_000 + b"L\n"),
    }
    for name, value in calls.items():
        for container in ("zip", "legacy"):
            yield Case(
                "pickles that grow", f"{name}-{container}", lambda v=value, c=container: containers()[c](beside(v))
            )
    for name, value in tensors().items():
        for container in ("zip", "legacy"):
            yield Case("lying tensors", f"{name}-{container}", lambda v=value, c=container: containers()[c](v))


def tensors() -> dict[str, Any]:
    """State dicts whose tensors do not fit their storages."""
    huge = storage(numel=2**40)
    shapes: dict[str, Any] = {
        "stride_0": tensor((10**4, 10**4), (0, 0)),
        "beyond": tensor(offset=1),
        "negative": tensor(strides=(-2, 1), offset=2),
        "negative_shape": tensor((-1, -1)),
        "overflow": tensor((2**32, 2**32), (1, 1)),
        "dimensions": tensor((1,) * 100, (1,) * 100),
        "no_elements": tensor((0, 2**62), (1, 1)),
        "boolean": tensor((True, 4)),
        "text": tensor("22"),
        "none": tensor(None),
        "nested": tensor(((2, 2), 2)),
        "claims": tensor((2**20, 2**20), (2**20, 1), of=huge),
        "elsewhere": tensor(of=storage("../0")),
        "absolute": tensor(of=storage("/etc/passwd")),
        "nul": tensor(of=storage("0\0")),
        "no_key": tensor(of=storage("")),
        "long_key": tensor(of=storage("9" * 10_000)),
        "other_type": tensor(of=storage(kind="ComplexDoubleStorage")),
        "unknown_type": tensor(of=storage(kind="EvilStorage")),
        "far": tensor(strides=(2**62, 1)),
    }
    found: dict[str, Any] = {name: {"conv1.weight": each} for name, each in shapes.items()}
    alias = b"".join(emit(f"n{n}") + b"h\1" for n in range(5000))
    found["aliases"] = Raw(b"}(" + emit("n") + emit(tensor()) + b"q\1" + alias + b"u")
    found["names"] = {
        name: tensor() for name in ("", ".", "..", "a/../b", "\0", "é" * 10_000, "\u202e", "__class__", "a" * 10_000)
    }
    found["no_text"] = {1: tensor(), None: tensor(), (1, 2): tensor(), b"w": tensor()}
    shadow = {"values": Name("os", "mkdir"), "items": {}, "keys": 0, "__dict__": {}}
    pairs = [["w", tensor((10**4, 10**4), (0, 0))]]
    found["shadow"] = Call(Name("collections", "OrderedDict"), (pairs,), shadow)
    return found


def _npy_of_objects(data: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def _zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def _tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
