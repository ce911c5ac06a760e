"""Control groups that limit the memory of engines."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from models.records import Attempt, Worker
from tests.worker.engine.test_descendants import ESCAPING, QUICK_SECONDS, escaped, escaping
from tests.worker.engine.test_engine_fork import lives
from tests.worker.scenes import make_job, rows, run_next
from worker.attempt import engine_limits
from worker.attempt.engine_limits import limit_of_jobs
from worker.attempt.outcome import outcome_of
from worker.engine.cgroup import Unusable, _write, group_of, require
from worker.engine.confinement import EngineLimits
from worker.engine.engine_process import EngineProcess, Exit
from worker.engine.engine_start import forks
from worker.tasks import Slots

SMALL = EngineLimits(group_bytes=2**27)
MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A folder of cgroup v2 in which groups with a limit can be made: `TEST_CGROUP`, or a new one where this user may."""
    named = os.environ.get("TEST_CGROUP")
    if named:
        yield Path(named)
        return
    for mount in MOUNTS:
        with suppress(OSError):
            _write(mount / "cgroup.subtree_control", "+memory")
        folder = mount / f"distillery-test-{os.getpid()}"
        try:
            folder.mkdir()
            require(folder)
        except (OSError, Unusable):
            if folder.is_dir():
                folder.rmdir()
            continue
        yield folder
        folder.rmdir()
        return
    pytest.skip("no folder of cgroup v2 with a memory controller is writable here; TEST_CGROUP names one")


@pytest.fixture
def hierarchy() -> Iterator[Path]:
    """A folder of cgroup v2 with or without a memory controller."""
    for mount in MOUNTS:
        folder = mount / f"distillery-test-{uuid.uuid4().hex}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / "cgroup.kill").exists():
                yield folder
                return
        finally:
            for path in (*folder.glob("*/"), folder):
                path.rmdir()
    pytest.skip("no folder of cgroup v2 of Linux 5.14 or later is writable here")


@pytest.fixture
def crowded(delegated: Path) -> Iterator[Path]:
    """A folder for groups that has less memory than a group in it may use."""
    folder = delegated / f"crowded-{uuid.uuid4().hex}"
    folder.mkdir()
    _write(folder / "memory.max", str(2**27))
    _write(folder / "memory.swap.max", "0")
    yield folder
    folder.rmdir()


def test_an_engine_that_uses_more_memory_than_its_group_is_killed_with_what_it_started(
    delegated: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    configure(engine_cgroup=delegated)
    code = (
        "import subprocess, sys; subprocess.Popen(['sleep', '60']); sys.stdin.readline(); print(len(bytearray(2**28)))"
    )
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=SMALL) as engine:
        [group] = delegated.glob("engine-*")
        engine.send("beat")  # it is in its group now
        assert list(filter(None, engine.events(5.0))) == []
        exit = engine.exit()
    assert exit.out_of_memory and "used more memory" in str(exit)
    assert not group.exists()


def test_an_engine_within_its_group_runs(delegated: Path, configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(engine_cgroup=delegated)
    code = 'print(\'{"event": "done"}\')'
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=SMALL) as engine:
        assert [event["event"] for event in engine.events(5.0) if event] == ["done"]
        exit = engine.exit()
    assert exit.code == 0 and not exit.out_of_memory


def test_an_engine_that_the_kernel_kills_for_others_has_not_used_too_much(
    crowded: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    require(crowded)
    configure(engine_cgroup=crowded)
    code = "import sys; sys.stdin.readline(); print(len(bytearray(2**28)))"
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=EngineLimits(group_bytes=2**40)) as engine:
        engine.send("beat")
        assert list(filter(None, engine.events(5.0))) == []
        assert engine.exit() == Exit(-signal.SIGKILL)


@pytest.mark.parametrize("served", [False, True])
def test_what_an_engine_leaves_behind_ends_with_its_group(
    delegated: Path, configure: Callable[..., Any], tmp_path: Path, served: bool
) -> None:
    configure(engine_cgroup=delegated, engine_start="fresh")
    with forks.open(ESCAPING) if served else nullcontext(), escaping(tmp_path, hang=True, limits=SMALL) as engine:
        assert next(event for event in engine.events(QUICK_SECONDS) if event)["message"] == "escaped"
        [group] = delegated.glob("engine-*")
        assert str(escaped(tmp_path)) in (group / "cgroup.procs").read_text().split()
        engine.kill()
        assert engine.exit() == Exit(-signal.SIGKILL)
        assert not lives(escaped(tmp_path)) and not group.exists()


def test_a_worker_without_rights_ends_processes_that_have_left_their_session(hierarchy: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder to another user")
    command = (sys.executable, "-m", "tests.worker.engine.group_probe", str(hierarchy))
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(said["held"]) >= 4 and said["removed"]
    assert not any(map(lives, said["held"]))


def test_a_job_that_uses_more_memory_than_its_group_fails_and_is_not_tried_again(
    delegated: Path, configure: Callable[..., Any], embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(engine_cgroup=delegated)
    monkeypatch.setattr(engine_limits, "memory_bytes", lambda: 2**27)
    make_job(steps=2, memory_bytes=2**28)
    job = run_next()
    assert (job.status, job.error["code"], job.error["fault"]) == ("failed", "job_memory", "job")
    assert "used more memory than a job may" in job.error["message"]
    assert [attempt.outcome for attempt in rows(Attempt, job_id=job.id)] == ["failed"]
    assert list(delegated.glob("engine-*")) == []
    make_job(steps=2)
    assert run_next().status == "succeeded"


@pytest.mark.parametrize(
    ("out_of_memory", "request_", "outcome"),
    [(True, None, "failed"), (False, None, "lost"), (True, "cancel", "cancelled"), (True, "drain", "drained")],
)
def test_the_outcome_of_an_engine_that_was_killed(out_of_memory: bool, request_: Any, outcome: str) -> None:
    ending = outcome_of(None, request_, Exit(-signal.SIGKILL, out_of_memory), "", 60)
    assert ending.outcome == outcome


def test_a_folder_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, configure: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unusable, match="is not a folder of cgroup v2"):
        require(tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(Unusable, match="has no memory controller"):
        require(tmp_path)
    configure(engine_cgroup=tmp_path, device="cpu")
    assert limit_of_jobs() == "process"
    assert "CGROUP_UNUSABLE" in capsys.readouterr().out
    assert group_of(os.getpid(), 2**30) is None and list(tmp_path.glob("engine-*")) == []


def test_an_engine_starts_without_a_group_where_none_can_be_made(tmp_path: Path, configure: Callable[..., Any]) -> None:
    configure(engine_cgroup=tmp_path / "missing")
    code = 'print(\'{"event": "done"}\')'
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=SMALL) as engine:
        assert [event["event"] for event in engine.events(5.0) if event] == ["done"]


def test_a_worker_tells_what_limits_its_jobs(embedded: None, configure: Callable[..., Any]) -> None:
    configure(device="cpu")
    Slots.of("distill", {})
    [worker] = rows(Worker)
    assert worker.about["memory_limit"] == "process"
