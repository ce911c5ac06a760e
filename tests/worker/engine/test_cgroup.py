"""Control groups that limit the memory of engines."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.records import Worker
from tests.worker.scenes import rows
from worker.attempt.engine_limits import limit_of_jobs
from worker.engine.cgroup import Unusable, group_of, require
from worker.engine.confinement import EngineLimits
from worker.engine.engine_process import EngineProcess
from worker.tasks import Slots

MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A folder of cgroup v2 in which groups with a limit can be made: `TEST_CGROUP`, or a new one where this user may."""
    named = os.environ.get("TEST_CGROUP")
    if named:
        yield Path(named)
        return
    for mount in MOUNTS:
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


def test_an_engine_that_uses_more_memory_than_its_group_is_killed_with_what_it_started(
    delegated: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    configure(engine_cgroup=delegated)
    code = (
        "import subprocess, sys; subprocess.Popen(['sleep', '60']); sys.stdin.readline(); print(len(bytearray(2**28)))"
    )
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=EngineLimits(group_bytes=2**27)) as engine:
        [group] = delegated.glob("engine-*")
        engine.send("beat")  # it is in its group now
        assert list(filter(None, engine.events(5.0))) == []
        exit = engine.exit()
    assert exit.out_of_memory and "used more memory" in str(exit)
    assert not group.exists()


def test_an_engine_within_its_group_runs(delegated: Path, configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(engine_cgroup=delegated)
    code = 'print(\'{"event": "done"}\')'
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=EngineLimits(group_bytes=2**27)) as engine:
        assert [event["event"] for event in engine.events(5.0) if event] == ["done"]
        exit = engine.exit()
    assert exit.code == 0 and not exit.out_of_memory


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
    with EngineProcess(tmp_path, (sys.executable, "-c", code), limits=EngineLimits(group_bytes=2**27)) as engine:
        assert [event["event"] for event in engine.events(5.0) if event] == ["done"]


def test_a_worker_tells_what_limits_its_jobs(embedded: None, configure: Callable[..., Any]) -> None:
    configure(device="cpu")
    Slots.of("distill", {})
    [worker] = rows(Worker)
    assert worker.about["memory_limit"] == "process"
