"""Jobs on several ranks: the student equals that of one process, and all processes end together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.worker.distillation.distributed.rank_runs import CASES, KD, ORDINARY, run_case
from tests.worker.distillation.distributed.two_ranks import (
    ENVIRONMENT,
    NEAR,
    TIMEOUT_SECONDS,
    alone,
    distance,
    finals,
    run_on_two_ranks,
)
from tests.worker.distillation.killed_runs import job_of, same_bits
from worker.distillation.check import check
from worker.distillation.distributed.division import Division
from worker.distillation.distributed.ranks import Ranks
from worker.distillation.errors import SpecError
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.sources.dataset import Dataset
from worker.distillation.trainer.objective_checks import check_division
from worker.distillation.trainer.objective_sum import Composition

ENGINE = (sys.executable, "-P", "-m", "worker.distillation", "job.json")
FAR = 1e-4
"""In float64 a disabled part of the engine makes more difference than this."""


@pytest.fixture(scope="module")
def ordinary(engine_inputs, tmp_path_factory):
    return run_on_two_ranks(engine_inputs, tmp_path_factory.mktemp("two"), ORDINARY)


@pytest.mark.parametrize("name", ["norms", "uneven", "dist"])
def test_two_ranks_train_the_same_student_as_one_process(name, ordinary, engine_inputs, tmp_path):
    one = alone(engine_inputs, tmp_path / "one", name)
    first, second = finals(ordinary / name)
    assert distance(one, first) < NEAR
    assert same_bits(first, second)


def test_without_shared_statistics_or_gathering_the_student_differs(ordinary):
    """Without the other rank's statistics, or without its samples for an objective, the student is a different one."""
    for name in ("norms", "dist"):
        whole, apart = finals(ordinary / name)[0], finals(ordinary / f"{name}_apart")[0]
        assert distance(whole, apart) > FAR


def test_a_drained_run_of_two_ranks_ends_with_the_same_bits(ordinary):
    for whole, drained in zip(finals(ordinary / "norms"), finals(ordinary / "drained"), strict=True):
        assert same_bits(whole, drained)


def test_one_process_resumes_a_run_of_two(ordinary, tmp_path):
    folder = shutil.copytree(ordinary / "drained", tmp_path / "job")
    run_case("drained", folder, resume="resume-0.json")
    assert distance(finals(ordinary / "norms")[0], load_file(folder / "final-0.safetensors")) < NEAR


@pytest.mark.slow
def test_every_kind_of_objective_gives_the_same_as_one_process(engine_inputs, tmp_path):
    names = [name for name in CASES if name not in (*ORDINARY, "given")]
    folder = run_on_two_ranks(engine_inputs, tmp_path / "two", names)
    for name in names:
        one = alone(engine_inputs, tmp_path / "one" / name, name)
        first, second = finals(folder / name)
        assert distance(one, first) < NEAR, name
        assert same_bits(first, second), name


@contextmanager
def engine(inputs, folder, **values):
    """Start an engine with two ranks and wait for its first steps; yields its process and the process id of rank 1."""
    shutil.copytree(inputs, folder)
    job = job_of(folder, objectives=KD, training={"steps": 10**6})
    asked = {"ranks": 2, "sandbox": "preferred", "threads": 1, "silence_seconds": TIMEOUT_SECONDS}
    (folder / "job.json").write_text(json.dumps({**job.values, **asked, **values}))
    pipe = subprocess.PIPE
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            ENGINE, cwd=folder, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=log, text=True, start_new_session=True
        ) as process,
    ):
        threading.Thread(target=beat, args=(process,), daemon=True).start()
        try:
            events = map(json.loads, process.stdout)
            assert any(event["event"] == "progress" for event in events), (folder / "log").read_text()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            yield process, int(children)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def beat(process):
    """Send a worker's heartbeats until the engine has ended."""
    with suppress(OSError, ValueError):
        while process.poll() is None:
            process.stdin.write('{"command": "beat"}\n')
            process.stdin.flush()
            time.sleep(0.5)


def last_event(process):
    return json.loads(process.stdout.read().splitlines()[-1])


def wait_until_gone(process_id):
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError("the rank is still running")


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.slow
@linux
def test_when_a_rank_dies_the_engine_reports_it_at_once_and_ends(engine_inputs, tmp_path):
    with engine(engine_inputs, tmp_path / "job") as (process, rank):
        began = time.monotonic()
        os.kill(rank, signal.SIGKILL)
        error = last_event(process)
        assert process.wait(TIMEOUT_SECONDS) == 3
        assert time.monotonic() - began < TIMEOUT_SECONDS / 2
    assert (error["event"], error["fault"], error["code"]) == ("error", "service", "rank_lost")
    assert error["message"].startswith("rank 1 of 2 was killed by signal 9 (SIGKILL)")
    wait_until_gone(rank)


@pytest.mark.slow
@linux
def test_when_rank_0_dies_the_others_do(engine_inputs, tmp_path):
    with engine(engine_inputs, tmp_path / "job") as (process, rank):
        process.kill()
        wait_until_gone(rank)


@linux
@pytest.mark.slow
def test_ranks_end_when_another_is_stopped(engine_inputs, tmp_path):
    with engine(engine_inputs, tmp_path / "first", silence_seconds=6.0) as (process, rank):
        os.kill(process.pid, signal.SIGSTOP)
        wait_until_gone(rank)
    with engine(engine_inputs, tmp_path / "second", silence_seconds=6.0) as (process, rank):
        os.kill(rank, signal.SIGSTOP)
        assert last_event(process)["message"] == "rank 1 of 2 has sent nothing for too long"
        wait_until_gone(rank)


def test_a_batch_is_divided_evenly_or_given_whole_to_each():
    divisions = [Division.of(8, Ranks(rank, 3)) for rank in range(3)]
    assert [list(range(8)[division.rows]) for division in divisions] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [division.share for division in divisions] == [3 / 8, 3 / 8, 2 / 8]
    undivided = Division.of(2, Ranks(1, 3))
    assert list(range(2)[undivided.rows]) == [0, 1]
    assert undivided.share == 1 / 3


def test_the_check_refuses_a_source_that_cannot_be_divided(engine_inputs, tmp_path):
    job = job_of(tmp_path, source={"name": "dafl"}, objectives=[{"name": "kd"}], resources={"gpus": 2})
    with pytest.raises(SpecError, match="on one device") as caught:
        check(job)
    assert [problem.pointer for problem in caught.value.problems] == ["/resources/gpus"]


def test_an_objective_that_cannot_be_gathered_is_refused_by_name():
    composition = Composition([{"name": "kd"}])
    composition.objectives[0].needs = ObjectiveNeeds(batch_global=True, input_gradient=True)
    composition.objectives[0].when = {}
    check_division(composition, Dataset(), 1)
    with pytest.raises(SpecError, match="kd relates all images of a batch") as caught:
        check_division(composition, Dataset(), 2)
    assert [problem.pointer for problem in caught.value.problems] == ["/resources/gpus"]
