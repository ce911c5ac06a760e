"""The engine as a child process, and its log."""

import io
import sys
import time
from pathlib import Path

import pytest

from worker.engine import engine_log
from worker.engine.confinement import EngineLimits
from worker.engine.engine_log import EngineLog
from worker.engine.engine_process import EngineProcess, Exit, clean


def start(folder: Path, code: str, **more: object) -> EngineProcess:
    return EngineProcess(folder, (sys.executable, "-c", code), **more)  # type: ignore[arg-type]


def test_all_events_of_an_engine_are_read(tmp_path: Path) -> None:
    code = "import sys, json; [print(json.dumps({'event': 'log', 'message': str(n)})) for n in range(3)]; print('{\"event\": \"done\"}'); sys.exit(0)"
    with start(tmp_path, code) as engine:
        heard = [event["event"] for event in engine.events(5.0) if event]
        assert heard == ["log"] * 3 + ["done"]
        assert engine.exit() == Exit(0) and engine.final_event == {"event": "done"}


def test_an_engine_that_does_not_exit_after_its_final_event_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.engine_process.LINGER_SECONDS", 0.2)
    code = 'import time; print(\'{"event": "done"}\', flush=True); time.sleep(60)'
    begun = time.monotonic()
    with start(tmp_path, code) as engine:
        assert [event["event"] for event in engine.events(5.0) if event] == ["done"]
        assert engine.exit() == Exit(-9)
    assert time.monotonic() - begun < 10


def test_an_engine_that_does_not_read_does_not_block_commands(tmp_path: Path) -> None:
    with start(tmp_path, "import time; time.sleep(60)") as engine:
        begun = time.monotonic()
        for _ in range(10_000):
            engine.send("beat")
        assert time.monotonic() - begun < 5
    assert str(engine.exit()) == "the engine was killed by signal 9 (SIGKILL), possibly out of memory"


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_limits_hold(tmp_path: Path) -> None:
    code = "import time; time.sleep(0.5); open('large', 'wb').write(bytes(1 << 20))"
    with start(tmp_path, code, limits=EngineLimits(file_bytes=1 << 16)) as engine:
        assert list(filter(None, engine.events(5.0))) == []
        assert engine.exit().code != 0
    assert (tmp_path / "large").stat().st_size == 1 << 16
    assert "File too large" in engine.log.last_lines()


def test_a_log_keeps_its_beginning_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_log, "HEAD_BYTES", 1000)
    monkeypatch.setattr(engine_log, "TAIL_BYTES", 500)
    for lines in (10, 90, 130, 1000):
        written = b"".join(b"line %05d\n" % number for number in range(lines))
        log = EngineLog(tmp_path / "log")
        stream = io.BytesIO(written)
        log.copy(iter(lambda stream=stream: stream.read(64), b""))
        kept = log.path.read_bytes()
        if lines < 150:
            assert kept == written
        else:
            head, _, tail = kept.partition(b"\n... %d bytes omitted ...\n" % (len(written) - 1500))
            assert head == written[:1000] and tail == written[-500:]
        assert log.last_lines(2) == f"line {lines - 2:05d}\nline {lines - 1:05d}"


def test_events_are_cleaned_for_every_database() -> None:
    said = {"a\0": [1e999, float("nan"), -0.5, True, None], "b": {"c": "\ud800 \0x"}}
    assert clean(said) == {"a": [None, None, -0.5, True, None], "b": {"c": "? x"}}
