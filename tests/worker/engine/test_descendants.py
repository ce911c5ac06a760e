"""Processes that an engine leaves behind, in other sessions and with its pipes open, end with it and hold nobody up."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.worker.attempt.test_job import eventually
from tests.worker.engine.test_engine_fork import LIGHT, lives
from worker.engine import engine_fork
from worker.engine.confinement import EngineLimits
from worker.engine.engine_process import EngineProcess, Exit
from worker.engine.engine_start import forks

ESCAPING = (sys.executable, "-P", "-m", "tests.worker.engine.escaping_probe")
QUICK_SECONDS = 20.0
needs_server = pytest.mark.skipif(not engine_fork.can_fork(), reason="only Linux has a fork server")


@pytest.fixture(params=["fork", "fresh"])
def server(
    request: pytest.FixtureRequest, configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A fork server without torch, whose engines are forked or new interpreters."""
    configure(engine_start=request.param)
    monkeypatch.setattr(engine_fork, "COMMAND", (sys.executable, "-P", "-c", LIGHT))
    with forks.open(ESCAPING):
        yield


def escaping(folder: Path, limits: EngineLimits | None = None, **script: object) -> EngineProcess:
    folder.mkdir(exist_ok=True)
    (folder / "job.json").write_text(json.dumps(script))
    return EngineProcess(folder, ESCAPING, 1, limits=limits or EngineLimits())


def escaped(folder: Path) -> int:
    return int((folder / "escaped").read_text())


@needs_server
def test_what_an_engine_leaves_behind_is_dead_when_it_has_ended(server: None, tmp_path: Path) -> None:
    begun = time.monotonic()
    with escaping(tmp_path) as engine:
        assert [event["event"] for event in engine.events(QUICK_SECONDS) if event] == ["log", "done"]
        assert engine.exit() == Exit(0)
        assert not lives(escaped(tmp_path))
    assert time.monotonic() - begun < QUICK_SECONDS


@needs_server
def test_killing_an_engine_kills_what_has_left_its_group_and_no_other_engine(server: None, tmp_path: Path) -> None:
    with escaping(tmp_path / "other", hang=True) as other, escaping(tmp_path / "killed", hang=True) as engine:
        for one in (other, engine):
            assert next(event for event in one.events(QUICK_SECONDS) if event)["message"] == "escaped"
        engine.kill()
        assert engine.exit() == Exit(-signal.SIGKILL)
        assert not lives(escaped(tmp_path / "killed"))
        assert lives(escaped(tmp_path / "other"))
    assert not lives(escaped(tmp_path / "other"))


@pytest.mark.parametrize("chatty", [False, True])
def test_a_held_pipe_does_not_keep_the_worker_busy(tmp_path: Path, chatty: bool) -> None:
    """Without a fork server the process survives, but nobody waits for it, and what the engine said is read. One that writes to
    the closed pipe ends by itself."""
    begun = time.monotonic()
    try:
        with escaping(tmp_path, chatty=chatty) as engine:
            said = [event["event"] for event in engine.events(QUICK_SECONDS) if event]
            assert said == ["log", "done"] and engine.exit() == Exit(0)
        assert time.monotonic() - begun < QUICK_SECONDS and (chatty or lives(escaped(tmp_path)))
    finally:
        with suppress(ProcessLookupError):
            os.kill(escaped(tmp_path), signal.SIGKILL)
    eventually(lambda: not lives(escaped(tmp_path)), 5.0)
