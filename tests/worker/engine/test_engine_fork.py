"""Forked engines: they behave like fresh ones, and end with their server and worker."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.worker.attempt.test_job import eventually
from tests.worker.distillation.killed_runs import job_of, write_inputs
from worker.engine import engine_fork
from worker.engine.confinement import EngineLimits
from worker.engine.engine_process import ENGINE, EngineProcess, Exit
from worker.engine.engine_start import forks

pytestmark = pytest.mark.skipif(not engine_fork.can_fork(), reason="only Linux forks engines")

PROBE = (sys.executable, "-P", "-m", "tests.worker.engine.forked_probe")
LIGHT = "import worker.distillation.process.fork_server as it; it.NOW = it.METHODS = (); it.main()"
"""A fork server without torch."""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def light(configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork this process's engines from a server without torch."""
    configure(engine_start="fork")
    monkeypatch.setattr(engine_fork, "COMMAND", (sys.executable, "-P", "-c", LIGHT))
    with forks.open(PROBE):
        yield


def probe(folder: Path, limits: EngineLimits | None = None, **script: object) -> EngineProcess:
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(script))
    return EngineProcess(folder, PROBE, 1, limits=limits or EngineLimits())


def first_word(engine: EngineProcess) -> dict[str, Any]:
    return next(event for event in engine.events(20.0) if event)


def server() -> int:
    assert forks._server is not None
    return forks._server.pid


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_forked_engine_has_the_same_environment_as_a_fresh_one(light: None, tmp_path: Path) -> None:
    said = {}
    for way in ("fork", "fresh"):
        if way == "fresh":
            forks._wanted, forks._server = False, (forks._server and forks._server.end())
        with probe(tmp_path / "same", EngineLimits(file_bytes=1 << 20), heard=True, code=3) as engine:
            engine.send("beat")
            words = [event for event in engine.events(20.0) if event]
            assert engine.exit() == Exit(3)
            assert engine.log.last_lines() == "a word" and words[1]["heard"] == {"command": "beat"}
        said[way] = {name: value for name, value in words[0].items() if name not in ("pid", "chance")}
    assert said["fork"] == said["fresh"]
    assert said["fork"]["file_bytes"] == 1 << 20 and said["fork"]["descriptors"] == [0, 1, 2]


def test_forked_engines_have_their_own_random_numbers_and_exit_like_interpreters(light: None, tmp_path: Path) -> None:
    drawn = set()
    for _ in range(2):
        with probe(tmp_path, **{"raise": True}) as engine:
            drawn.add(first_word(engine)["chance"])
            assert engine.exit() == Exit(1) and engine.log.last_lines().endswith("ValueError: on purpose")
    assert len(drawn) == 2


def test_killing_an_engine_kills_its_children_and_not_the_server(light: None, tmp_path: Path) -> None:
    before, begun = server(), time.monotonic()
    with probe(tmp_path, child=True, hang=True) as engine:
        word = first_word(engine)
        os.kill(word["pid"], signal.SIGKILL)
        assert engine.exit() == Exit(-9)
        eventually(lambda: not lives(word["child"]), 5.0)
    with probe(tmp_path, child=True, hang=True) as engine:
        word = first_word(engine)
        engine.kill()
        assert engine.exit() == Exit(-9)
        assert not lives(word["pid"])
        eventually(lambda: not lives(word["child"]), 5.0)
    assert server() == before and lives(before)
    assert time.monotonic() - begun < 30  # shorter than the child would run


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_an_engine_ends_with_its_server_and_the_next_one_gets_a_new_server(
    light: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(engine_fork, "REPORT_SECONDS", 0.5)
    before = server()
    with probe(tmp_path, child=True, hang=True) as engine:
        word = first_word(engine)
        os.kill(before, number)
        if number == signal.SIGSTOP:
            engine.kill()
        assert engine.exit() == Exit(-9)
        assert not lives(word["pid"]) and not lives(before)
        eventually(lambda: not lives(word["child"]), 5.0)
    with probe(tmp_path, code=0) as engine:
        assert engine.exit() == Exit(0)
    assert server() != before


def test_an_engine_that_is_killed_before_it_starts_never_starts(light: None, tmp_path: Path) -> None:
    os.kill(server(), signal.SIGSTOP)
    begun = time.monotonic()
    with probe(tmp_path, hang=True) as engine:
        engine.kill()
        assert engine.exit() == Exit(-9)
    assert time.monotonic() - begun < 10 and engine.log.last_lines() == ""
    with probe(tmp_path) as engine:
        assert engine.exit() == Exit(0)
    assert forks._server is not None and forks._server.proven  # the server that was killed with it counts as proven


def test_engines_start_in_fresh_interpreters_if_the_server_cannot_start(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(engine_start="fork")
    monkeypatch.setattr(engine_fork, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    with forks.open(PROBE):
        assert forks._server is not None
        forks._server._process.wait()
        with probe(tmp_path) as engine:
            assert engine.exit() == Exit(0)
        assert forks._server is None


def test_server_and_engine_end_with_a_killed_worker(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from worker.engine import engine_fork
from worker.engine.engine_process import EngineProcess
from worker.engine.engine_start import forks
engine_fork.COMMAND = (sys.executable, "-P", "-c", {LIGHT!r})
with forks.open({PROBE!r}), EngineProcess(Path(sys.argv[1]), {PROBE!r}) as engine:
    event = next(event for event in engine.events(20.0) if event)
    print(forks._server.pid, event["pid"], event["child"], flush=True)
    time.sleep(60)
"""
    (tmp_path / "job.json").write_text('{"hang": true, "child": true}')
    environment = os.environ | {"DISTILL_ENGINE_START": "fork", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        server, engine, child = map(int, worker.stdout.readline().split())
        worker.kill()
    try:
        eventually(lambda: not lives(server) and not lives(engine), 5.0)
    finally:
        os.kill(child, signal.SIGKILL)  # the engine's own children do not end with it


@pytest.mark.slow
def test_a_student_has_the_same_bits_forked_and_fresh(configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(engine_start="fork")
    fresh = (sys.executable, "-Pm", "worker.distillation")
    with forks.open(ENGINE):
        students = [student(tmp_path / str(number), way) for number, way in enumerate((fresh, ENGINE, ENGINE))]
        assert forks._server is not None and forks._server.proven
    assert students[0] == students[1] == students[2]


def student(folder: Path, command: Sequence[str], threads: int = 2) -> bytes:
    """The student of a real engine after a few steps."""
    write_inputs(folder)
    source = {"name": "dataset", "augmentation": "shift"}
    job = job_of(folder, objectives=[{"name": "kd"}], training={"steps": 10, "batch_size": 32}, source=source)
    (folder / "job.json").write_text(json.dumps({**job.values, "threads": threads}))
    with EngineProcess(folder, command, threads) as engine:
        started = next(event for event in engine.events(60.0) if event and event["event"] == "started")
        assert engine.exit() == Exit(0), engine.log.last_lines()
    assert started["threads"] == threads
    return (folder / "output" / "student.safetensors").read_bytes()
