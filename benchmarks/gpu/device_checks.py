"""Part 1: whether the engine does on a GPU what it does on a CPU: sandbox, kill and resume, precision, copies, every method."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.method_checks import methods, stepped
from benchmarks.gpu.results import Runs
from benchmarks.loop.engine_loop import job_of, stage_of, write_inputs
from benchmarks.loop.setting import Setting, setting
from worker.distillation.data.transfers import copied_to_cpu, sent
from worker.distillation.introspection.taps import Tapped
from worker.distillation.job import Job
from worker.distillation.precision import use_fast_kernels
from worker.distillation.teaching.quick_teacher import Graphed, QuickTeacher
from worker.distillation.training import Training

PART = "device"
STEPS = 40


def run(runs: Runs, carry: Path) -> None:
    """All checks, the most important first."""
    given = setting("resnet14_cifar", "resnet8_cifar", 128, 32, classes=10)
    folder = runs.folder / PART
    shutil.rmtree(folder, ignore_errors=True)
    write_inputs(given, folder)
    use_fast_kernels(torch.device(runs.device), tf32=True)
    steps: list[tuple[str, float, Callable[[], dict[str, Any]]]] = [
        ("environment", 1, lambda: _environment(runs.device)),
        ("sandbox", 40, lambda: _sandboxed(given, folder, runs.device)),
        ("kill_and_resume", 120, lambda: _killed(given, folder, runs.device)),
        ("waits_in_a_step", 10, lambda: _waits(given, folder, runs.device)),
        ("quick_teacher", 10, lambda: _quick(given, runs.device)),
        ("cached_answers", 20, lambda: _cached(given, folder, runs.device)),
        ("copies", 5, lambda: _copies(runs.device)),
        ("cpu_and_device", 30, lambda: _as_on_cpu(given, folder, runs.device)),
    ]
    for name, seconds, action in steps:
        runs.once(PART, name, seconds, action)
    for name, seconds, step in methods(given, folder, runs.device):
        runs.once(PART, name, seconds, step)


def _environment(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch.__version__, "cpus": os.cpu_count(), "threads": torch.get_num_threads()}
    if device == "cuda":
        found |= {
            "name": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "driver": _driver(),
        }  # fmt: skip
    return found


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.exists() else "unknown"


def _engine(job: Job, folder: Path, kill_at: int | None = None, **values: Any) -> tuple[list[dict[str, Any]], int]:
    """The events and the exit code of an engine of its own; with `kill_at` it is killed at the first checkpoint from that step on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dataset", "teacher"):
        shutil.copy(job.folder / f"{name}.safetensors", folder)
    (folder / "job.json").write_text(json.dumps({**job.values, **values}))
    command = [sys.executable, "-P", "-m", "worker.distillation", str(folder / "job.json")]
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TMPDIR": str((folder / "tmp").resolve()),
    }
    events: list[dict[str, Any]] = []
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as child,
    ):
        assert child.stdout
        for line in child.stdout:
            events.append(json.loads(line))
            if (
                kill_at is not None
                and events[-1]["event"] == "checkpoint"
                and events[-1]["manifest"]["step"] >= kill_at
            ):
                child.kill()
        child.wait()
    return events, child.returncode


def _ended(events: list[dict[str, Any]]) -> None:
    if not events or events[-1]["event"] != "done":
        raise RuntimeError(f"the engine ended with {json.dumps(events[-1:])[:1500]}")


def _bounded(given: Setting, folder: Path, device: str, source: dict[str, Any] | None = None, **training: Any) -> Job:
    training = {"steps": STEPS, "time_limit_minutes": None} | training
    job = job_of(given, folder, source or {"augmentation": "standard"}, training, device)
    # a teacher of random weights is at chance level: with class names of its own the job is a transfer, and it is not judged
    teacher = {**job.values["teacher"], "class_names": [f"other {number}" for number in range(given.classes)]}
    return Job({**job.values, "teacher": teacher}, folder)


def _sandboxed(given: Setting, folder: Path, device: str) -> dict[str, Any]:
    """An engine in the sandbox trains to its end; says what confines it."""
    events, code = _engine(_bounded(given, folder, device), folder / "sandboxed", sandbox="preferred")
    _ended(events)
    report = next(event for event in events if event["event"] == "sandbox")
    return {"code": code, **{key: value for key, value in report.items() if key != "event"}}


def _killed(given: Setting, folder: Path, device: str) -> dict[str, Any]:
    """The student of a killed and resumed run beside those of two whole ones, whose difference is that of the device."""
    job = _bounded(given, folder, device)
    for name in ("whole", "again"):
        _ended(_engine(job, folder / name)[0])
    killed = folder / "killed"
    events, _ = _engine(job, killed, kill_at=5, checkpoint_seconds=0)
    manifest = [event["manifest"] for event in events if event["event"] == "checkpoint"][-1]
    (killed / "checkpoints" / "resume.json").write_text(json.dumps(manifest))
    resumed, _ = _engine(job, killed, resume="checkpoints/resume.json")
    _ended(resumed)
    students = [load_file(folder / name / "output" / "student.safetensors") for name in ("whole", "again", "killed")]
    started = next(event for event in resumed if event["event"] == "started")
    apart, noise = distance(students[0], students[2]), distance(students[0], students[1])
    if apart > max(20 * noise, 0.05):
        raise RuntimeError(f"the resumed student differs by {apart:.2e}, two whole runs by {noise:.2e}")
    return {"resumed_from": started["resumed_from"], "killed_and_whole": apart, "two_whole_runs": noise}


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """The root mean square difference of all weights, relative to their size."""
    pairs = [(one[name].float(), other[name].float()) for name in one if one[name].is_floating_point()]
    apart = sum(float((a - b).square().sum()) for a, b in pairs)
    size = sum(float(a.square().sum()) for a, _ in pairs)
    return (apart / size) ** 0.5


def _waits(given: Setting, folder: Path, device: str) -> dict[str, Any]:
    """Where a plain step of KD waits for the GPU: nowhere."""
    run = stage_of(job_of(given, folder, {"augmentation": "standard"}, {"average_weights": 0.999}, device))
    return stepped(run, 3 if device == "cpu" else 10)


def _quick(given: Setting, device: str) -> dict[str, Any]:
    """The largest difference of a quick teacher's logits, relative to their size, and the agreement of the classes."""
    network = given.networks()[0].to(device)
    teacher = Tapped(network, given.contract.blank(torch.device(device)))
    image = given.normalised(64).to(device)
    with torch.no_grad():
        expected = teacher(image).logits
    found: dict[str, Any] = {}
    for name, options in (
        ("folded", {"fold_teacher": True}),
        ("bf16", {"teacher_precision": "bf16", "fold_teacher": True}),
    ):
        made = QuickTeacher(teacher, Training.from_spec({"precision": "fp32", **options}))
        found[name] = _apart(made(image), expected)
    if device == "cuda":
        graphed = Graphed(network)
        with torch.no_grad():
            found["graph"] = _apart(graphed(image), expected)
    if found["folded"]["apart"] > 0.02:
        raise RuntimeError(f"the folded teacher differs: {found}")
    return found


def _apart(logits: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    largest = float((logits - expected).abs().max() / expected.abs().max())
    return {"apart": largest, "agreement": float((logits.argmax(1) == expected.argmax(1)).float().mean())}


def _cached(given: Setting, folder: Path, device: str) -> dict[str, Any]:
    """Weights after some steps with cached and with live answers."""
    source = {"augmentation": "standard", "views": 2}
    students = []
    for answers in ("live", "cached"):
        torch.manual_seed(0)
        run = stage_of(job_of(given, folder, source, {"teacher_answers": answers, "precision": "fp32"}, device))
        for _ in range(4 if device == "cpu" else 20):
            run.advance()
        students.append(copied_to_cpu(run.members["student"].network.state_dict()))
    return {"apart": distance(*students)}


def _copies(device: str) -> dict[str, Any]:
    """Copies arrive as they were sent, even if the tensor is changed right after."""
    tensor = torch.randn(1 << 20)
    expected = tensor.clone()
    arrived = sent(tensor, device)
    state = {"a": arrived, "b": [arrived[:10].view(2, 5).t()]}
    copied = copied_to_cpu(state)
    arrived.zero_()
    if not torch.equal(copied["a"], expected) or not torch.equal(copied["b"][0], expected[:10].view(2, 5).t()):
        raise RuntimeError("a copy differs from what was sent")
    return {"equal": True}


def _as_on_cpu(given: Setting, folder: Path, device: str) -> dict[str, Any]:
    """Weights after a few steps in fp32 on the device and on the CPU."""
    students = []
    for place in ("cpu", device):
        run = stage_of(job_of(given, folder, {"augmentation": "standard"}, {"precision": "fp32"}, place))
        for _ in range(4):
            run.advance()
        students.append(copied_to_cpu(run.members["student"].network.state_dict()))
    return {"apart": distance(*students)}
