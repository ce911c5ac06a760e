"""A wrong clock is wrong for a process and all that it starts, and nothing waits longer for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.clocks import can_be_wrong, clock_variables

CODE = "import time, datetime; time.sleep(0.05); print(time.time(), datetime.datetime.now().timestamp())"


@pytest.mark.skipif(not can_be_wrong(), reason="needs Linux and a C compiler")
@pytest.mark.parametrize("seconds", [3600, -3600])
def test_the_time_of_day_is_off_and_a_sleep_is_not(tmp_path: Path, seconds: int) -> None:
    environment = os.environ | clock_variables(seconds, tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for read in map(float, done.stdout.split()):
        assert abs(read - time.time() - seconds) < 60
