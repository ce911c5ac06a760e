import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.distillation.process.event_pipe import ORPHANED, Channel

ENGINE = """
import sys, time
from worker.distillation.process.event_pipe import Channel, claim_standard_output, die_with_parent
output = claim_standard_output()
die_with_parent()
print("a library prints")
channel = Channel(output, 1.0, sys.stdin)
channel.say("started")
while channel.request is None:
    time.sleep(0.01)
channel.say("stopped", reason=channel.request)
"""


@pytest.fixture
def engine():
    process = subprocess.Popen(
        [sys.executable, "-c", ENGINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert json.loads(process.stdout.readline()) == {"event": "started"}
    with process:
        yield process
        process.kill()


def test_output_of_a_library_is_not_an_event(engine):
    engine.stdin.write('{"command": "drain"}\n')
    engine.stdin.flush()
    assert json.loads(engine.stdout.readline()) == {"event": "stopped", "reason": "drain"}
    assert engine.wait(5) == 0
    assert "a library prints" in engine.stderr.read()


def test_malformed_lines_are_ignored_and_heartbeats_keep_it_alive(engine):
    for line in ("what\n", "[1]\n", *['{"command": "beat"}\n'] * 8, '{"command": "cancel"}\n'):
        engine.stdin.write(line)
        engine.stdin.flush()
        time.sleep(0.2)
    assert json.loads(engine.stdout.readline())["reason"] == "cancel"


def test_it_ends_when_its_input_closes(engine):
    engine.stdin.close()
    assert engine.wait(5) == ORPHANED


def test_it_ends_when_its_worker_is_silent(engine):
    began = time.monotonic()
    assert engine.wait(10) == ORPHANED
    assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_it_dies_with_its_worker():
    worker = subprocess.Popen(
        [
            sys.executable, "-c",
            f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {ENGINE!r}.replace('1.0', '60.0')],"
            " stdin=subprocess.PIPE, stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with worker:
        pid = int(worker.stdout.readline())
        worker.kill()
    for _ in range(100):
        if not running(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the engine outlived its worker")


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # an unreaped zombie is dead too
    except OSError:
        return False


def test_infinite_numbers_and_nan_become_null():
    output = io.StringIO()
    Channel(output).say("metrics", values={"loss": float("nan"), "nested": [float("inf"), 1.5]})
    assert json.loads(output.getvalue()) == {"event": "metrics", "values": {"loss": None, "nested": [None, 1.5]}}
