"""The engine's sandbox, on this kernel and as on older ones. What it restricts: tests/integration/test_sandbox.py."""

import errno
import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.distillation.killed_runs import job_of, write_inputs
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.sandbox import Report, landlock, seccomp
from worker.distillation.sandbox.system_calls import ARCHITECTURES, FORBIDDEN, NUMBERS

ROOT = Path(__file__).parents[4]
needs_landlock = pytest.mark.skipif(
    sys.platform != "linux" or landlock.version() < 6,
    reason="THE SANDBOX IS NOT TESTED HERE: it needs Linux 6.12 or newer with Landlock",
)
PRELUDE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading
from dataclasses import asdict
from pathlib import Path
from worker.distillation.sandbox import confine
def refused(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
"""


def run(folder: Path, code: str, *arguments: object) -> dict:
    """The output of a program in a folder of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder),
    }
    command = [sys.executable, "-P", "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


OLDER = """
from worker.distillation.sandbox import linux
outside, version = Path(sys.argv[1]), int(sys.argv[2])
report = linux.confine(Path.cwd(), 1, False, os.getpid(), version)
Path("tmp/new").write_text("its own")
Path("tmp/new").rename("tmp/renamed")
os.kill(os.getpid(), 0)
print(json.dumps(asdict(report) | {
    "own": Path("tmp/renamed").read_text(),
    "read": refused(outside.read_text),
    "write": refused(lambda: outside.open("ab")),
    "cut": refused(lambda: os.truncate(outside, 0)),
    "cut by opening": refused(lambda: os.open(outside, os.O_RDONLY | os.O_TRUNC)),
    "times": refused(lambda: os.utime(outside, (0, 0))),
    "signal": refused(lambda: os.kill(os.getppid(), 0)),
    "socket": refused(lambda: socket.socket(socket.AF_INET)),
}))
"""


@needs_landlock
@pytest.mark.parametrize("version", [1, 2, 3, 5, 6])
def test_older_kernels_restrict_a_single_process_in_the_same_way(tmp_path: Path, version: int) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "own"
    outside.write_text("secret")
    folder.mkdir()
    said = run(folder, OLDER, outside, version)
    assert (said["filesystem"], said["network"], said["signals"]) == (f"landlock-{version}", "none", "scoped")
    assert said["own"] == "its own" and said["why"] == []
    assert set(map(said.get, ("read", "write", "cut", "cut by opening", "times", "signal", "socket"))) <= {
        "EACCES",
        "EPERM",
    }
    assert outside.read_text() == "secret"


SEVERAL = """
there = threading.Event()
threading.Thread(target=there.wait, daemon=True).start()
report = confine(Path.cwd())
print(json.dumps(asdict(report) | {"holds": report.holds}))
"""


@needs_landlock
def test_a_process_with_several_threads_is_not_confined(tmp_path: Path) -> None:
    said = run(tmp_path, SEVERAL)
    assert not said["holds"] and "2 threads" in said["why"][0]


ALONE = """
confine(Path.cwd(), gpu=False)
thread = threading.Thread(target=lambda: Path("written").write_text("by a thread"))
thread.start()
thread.join()
print(json.dumps({
    "thread": Path("written").read_text(), "fork": refused(os.fork), "program": refused(lambda: subprocess.run(["true"])),
    "spawn": refused(lambda: os.posix_spawn("/bin/true", ["true"], {})),
}))
"""


@needs_landlock
def test_a_confined_engine_starts_threads_and_no_processes(tmp_path: Path) -> None:
    said = run(tmp_path, ALONE)
    assert said.pop("thread") == "by a thread"
    assert said == dict.fromkeys(said, "EPERM")


RANKS = """
libc, death = ctypes.CDLL(None), ctypes.c_int()
libc.prctl(1, signal.SIGKILL)
report = confine(Path.cwd(), ranks=2, gpu=False)
libc.prctl(2, ctypes.byref(death))
with socket.create_server(("127.0.0.1", 0)) as server:
    code = "import worker.distillation.process.event_pipe, socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    rank = subprocess.Popen([sys.executable, "-P", "-c", code, str(server.getsockname()[1])])
    server.settimeout(60)
    server.accept()
    code = rank.wait()
sleeper = subprocess.Popen(["sleep", "60"])
sleeper.kill()
print(json.dumps(asdict(report) | {
    "rank": code, "killed": sleeper.wait(), "dies with its parent": death.value,
    "outside": refused(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])))),
    "unix": refused(lambda: socket.socket(socket.AF_UNIX)),
}))
"""


@needs_landlock
def test_ranks_can_connect_to_each_other_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        said = run(tmp_path, RANKS, somebody.getsockname()[1])
    if said["network"] == "shared":  # unprivileged, without user namespaces
        assert "cannot have a network namespace of their own" in said["why"][0] and not Report(**said).holds
        return
    assert (said["network"], said["rank"], said["killed"], said["dies with its parent"]) == ("own", 0, -9, 9)
    assert (said["outside"], said["unix"]) == ("ECONNREFUSED", "EACCES")


WITHOUT_NAMESPACES = """
from worker.distillation.sandbox import kernel, seccomp
lines = [(seccomp.LOAD, 0, 0, 0), (seccomp.JUMP_EQUAL, 0, 1, 272 if os.uname().machine == "x86_64" else 97)]
lines += [seccomp._refuse(errno.EPERM), (seccomp.RETURN, 0, 0, seccomp.ALLOW)]
program = seccomp.Program(len(lines), (seccomp.Line * len(lines))(*lines))
kernel.forbid_privileges()
kernel.prctl(kernel.PR_SET_SECCOMP, seccomp.MODE_FILTER, ctypes.pointer(program))
"""


@needs_landlock
def test_without_namespaces_ranks_share_the_network_and_the_report_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        said = run(tmp_path, WITHOUT_NAMESPACES + RANKS, somebody.getsockname()[1])
    assert (said["network"], said["rank"], said["outside"], said["unix"]) == ("shared", 0, None, "EACCES")
    assert "cannot have a network namespace of their own" in said["why"][0] and said["filesystem"].startswith(
        "landlock"
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    said = run(alone, WITHOUT_NAMESPACES + "print(json.dumps(asdict(confine(Path.cwd()))))")
    assert said["network"] == "none" and said["why"] == []


ALL_THAT_ENGINES_DO = """
report = confine(Path.cwd(), gpu=False)
from worker.distillation.process.event_pipe import Channel
from worker.distillation.uploads.inspect_upload import inspect
from worker.distillation.job import Job
from worker.distillation.run import Run
done = {}
for file in sorted(Path.cwd().glob("*/job.json")):
    job = Job.read(file)
    done[file.parent.name] = inspect(dict(job.values), job.folder)["findings"] if job.kind != "distill" else (
        Run(job, Channel(open(os.devnull, "w"))).execute() and sorted(p.name for p in (job.folder / "output").iterdir()))
print(json.dumps({"holds": report.holds, "done": done}, default=str))
sys.stdout.flush()
os._exit(0)
"""


@needs_landlock
@pytest.mark.slow
def test_everything_that_engines_do_works_in_the_sandbox(tmp_path: Path) -> None:
    """Every kind of upload, networks of torchvision and timm, and every export, in a process confined at its start."""
    image = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    jobs = {"npz": {"kind": "dataset"}, "zip": {"kind": "dataset"}, "weights": {"kind": "file"}}
    jobs = {name: job | {"upload": "sent", "options": {}} for name, job in jobs.items()}
    jobs["weights"]["options"] = {"kind": "weights"}
    contract = {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    for name, network in (("torchvision", "torchvision/squeezenet1_1"), ("timm", "timm/resnet10t")):
        teacher = {"network": network, "options": {}, "classes": 4, "class_names": [], "input": contract}
        jobs[name] = {"kind": "teacher", "upload": "sent", "teacher": teacher}
    for name, job in jobs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text(json.dumps(job))
    with (tmp_path / "npz" / "sent").open("wb") as file:
        np.savez(file, images=image, labels=np.arange(8) % 4)
    with zipfile.ZipFile(tmp_path / "zip" / "sent", "w") as archive:
        for number, picture in enumerate(image):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, ("png", "jpeg", "webp", "bmp")[number // 2])
            archive.writestr(
                f"class{number % 2}/{number}.{('png', 'jpg', 'webp', 'bmp')[number // 2]}", buffer.getvalue()
            )
    torch.save({"a": torch.ones(2, 3)}, tmp_path / "weights" / "sent")
    for name in ("torchvision", "timm"):
        network = networks.build(jobs[name]["teacher"]["network"], 4, read_contract(contract), {})
        torch.save(network.state_dict(), tmp_path / name / "sent")
    write_inputs(tmp_path / "distil")
    exports = ["safetensors", "onnx"]
    spec = job_of(
        tmp_path / "distil", objectives=[{"name": "kd", "weight": 1.0}, {"name": "nst"}], exports=exports
    ).values
    (tmp_path / "distil" / "job.json").write_text(json.dumps(spec))
    said = run(tmp_path, ALL_THAT_ENGINES_DO)
    assert said["holds"] and set(said["done"]) == {*jobs, "distil"}
    assert said["done"]["zip"]["splits"] and said["done"]["timm"]["parameters"] > 0
    assert {"student.safetensors", "student.onnx", "student.py", "student.json", "report.json"} <= set(
        said["done"]["distil"]
    )


@pytest.mark.skipif(sys.platform == "linux" and landlock.version() > 0, reason="engines can be confined here")
def test_on_other_systems_the_engine_reports_that_it_is_not_confined(tmp_path: Path) -> None:
    assert run(tmp_path, "print(json.dumps(asdict(confine(Path.cwd()))))")["filesystem"] == "open"


@pytest.mark.parametrize(("asked", "code"), [("required", 3), ("preferred", None)])
def test_without_a_required_sandbox_the_engine_ends_before_it_reads_anything(
    tmp_path: Path, asked: str, code: int | None
) -> None:
    job = {"kind": "dataset", "upload": "none", "sandbox": asked}
    (tmp_path / "job.json").write_text(json.dumps(job))
    entry = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    entry += "import sys; from worker.distillation import __main__ as engine; sys.argv = ['engine', 'job.json']\n"
    entry += "code = engine.main() if sys.platform else 0\nimport os; os._exit(code)"
    if asked == "preferred":  # it continues, which needs torch: test the first step only
        entry = entry.replace(
            "engine.main()",
            "3 * (not engine.enter(__import__('pathlib').Path('job.json'), engine.Channel(sys.stdout)))",
        )
    command = [sys.executable, "-P", "-c", entry]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "sandbox" and events[0]["filesystem"] == "open" and events[0]["why"]
    assert done.returncode == (code or 0), done.stderr
    if code:
        assert (events[1]["event"], events[1]["code"], events[1]["fault"]) == ("error", "no_sandbox", "service")


def answer(program: list[seccomp.Instruction], machine: str, number: int, *arguments: int) -> int:
    """The result of a filter for a system call: 0 if it is allowed, else the error number. A small BPF interpreter."""
    memory = {seccomp.NUMBER: number, seccomp.ARCHITECTURE: ARCHITECTURES[machine]}
    memory |= {seccomp.ARGUMENTS + 8 * index: value & 0xFFFFFFFF for index, value in enumerate(arguments)}
    held = place = 0
    while True:
        code, yes, no, value = program[place]
        place += 1
        if code == seccomp.RETURN:
            return 0 if value == seccomp.ALLOW else value & 0xFFFF
        if code == seccomp.LOAD:
            held = memory.get(value, 0)
        elif code == seccomp.AND:
            held &= value
        else:
            place += yes if (held == value if code == seccomp.JUMP_EQUAL else held >= value) else no


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_of_each_architecture(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    number = {name: numbers[column] for name, numbers in NUMBERS.items() if numbers[column] is not None}
    strict = seccomp.write(seccomp.Allowed(signals=False, truncation=False, processes=False), 42, machine)
    inet, unix, stream, datagram = seccomp.INET, seccomp.UNIX, seccomp.STREAM, seccomp.DATAGRAM
    for name in FORBIDDEN:
        assert name not in number or answer(strict, machine, number[name]) == errno.EPERM, name
    expected = [
        ("socket", (inet, stream), errno.EACCES), ("socket", (17, stream), errno.EACCES), ("socket", (unix, stream), 0),
        ("socket", (unix, stream | 0x80000), 0), ("socket", (unix, datagram | 0x80000), errno.EACCES),
        ("socketpair", (unix, stream), 0), ("socketpair", (unix, datagram), errno.EACCES),
        ("connect", (3,), errno.ENOENT), ("bind", (3,), errno.EACCES), ("clone3", (), errno.ENOSYS),
        ("clone", (0x3D0F00,), 0), ("clone", (0x10000011,), errno.EPERM), ("clone", (17,), errno.EPERM),
        ("clone", (0x4111,), errno.EPERM), ("clone", (0x103D0F00,), errno.EPERM), ("prlimit64", (0, 7), 0),
        ("prlimit64", (1, 7), errno.EPERM), ("kill", (42, 9), 0), ("kill", (0, 9), 0), ("kill", (41, 9), errno.EPERM),
        ("kill", (-1, 9), errno.EPERM), ("tgkill", (42, 43, 6), 0), ("pidfd_send_signal", (3,), errno.EPERM),
        ("openat", (0, 0, 0o1000), errno.EPERM), ("openat", (0, 0, 0o1101), 0), ("openat", (0, 0, 0), 0),
        ("truncate", (), errno.EPERM),
    ]  # fmt: skip
    expected += [(name, (), errno.EPERM) for name in ("fork", "vfork") if name in number]
    for name, arguments, wanted in expected:
        assert answer(strict, machine, number[name], *arguments) == wanted, (name, arguments)
    among_ranks = seccomp.write(seccomp.Allowed(sockets=True), 42, machine)
    for name, arguments, wanted in [
        ("socket", (inet, stream), 0), ("socket", (16, 3), 0), ("socket", (unix, stream), errno.EACCES),
        ("socket", (17, 3), errno.EACCES), ("connect", (3,), 0), ("kill", (41, 9), 0), ("truncate", (), 0),
        ("clone", (17,), 0), ("clone", (0x10000011,), errno.EPERM),
    ]:  # fmt: skip
        assert answer(among_ranks, machine, number[name], *arguments) == wanted, (name, arguments)
    with_gpu = seccomp.write(seccomp.Allowed(sockets=True, gpu=True), 42, machine)
    for arguments, wanted in [
        ((unix, 0x80005), 0), ((unix, stream), errno.EACCES), ((unix, datagram), errno.EACCES), ((inet, stream), 0),
        ((17, 3), errno.EACCES),
    ]:  # fmt: skip
        assert answer(with_gpu, machine, number["socket"], *arguments) == wanted, arguments
    other = next(name for name in ARCHITECTURES if name != machine)
    assert answer(strict, other, 0) == errno.EPERM
    assert answer(strict, machine, seccomp.X32 | 0) == errno.EPERM
    assert answer(strict, machine, 0 if machine == "x86_64" else 63) == 0  # read


CACHED = """
cached, other = Path(sys.argv[1]), Path(sys.argv[2])
confine(Path.cwd(), gpu=False, reads=[cached])
file = cached / "dataset.safetensors"
print(json.dumps({
    "text": file.read_text(), "names": [path.name for path in cached.iterdir()],
    "write": refused(lambda: file.open("r+b")), "cut": refused(lambda: os.truncate(file, 0)),
    "remove": refused(file.unlink), "add": refused(lambda: (cached / "new").write_text("")),
    "rename": refused(lambda: file.rename("mine")), "link": refused(lambda: os.link(file, "mine")),
    "mode": refused(lambda: file.chmod(0o777)), "other": refused(other.read_text),
}))
"""


@needs_landlock
def test_a_folder_of_the_cache_can_only_be_read(tmp_path: Path) -> None:
    cached, own = tmp_path / "cache" / "blobs" / "one", tmp_path / "own"
    cached.mkdir(parents=True)
    own.mkdir()
    (cached / "dataset.safetensors").write_text("images")
    other = cached.parent / "another"
    other.write_text("of another job")
    said = run(own, CACHED, cached, other)
    assert (said.pop("text"), said.pop("names")) == ("images", ["dataset.safetensors"])
    assert set(said.values()) <= {"EACCES", "EPERM", "EXDEV"}, said
    assert (cached / "dataset.safetensors").read_text() == "images"
