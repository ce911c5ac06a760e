"""The load campaign: its table, and a short run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.fleet import ROOT
from tests.load.report import table


def test_the_table_has_a_row_for_each_figure() -> None:
    report = {
        "seed": 1, "rules": "kept", "seconds": 9, "minutes": 1,
        "figures": {"rates": {"poll": {"a second": 5, "bare": 10}}, "mixed": {"memory": {"api": {"MB": 100}}, "jobs": 7}},
    }  # fmt: skip
    rows = table([report]).splitlines()
    assert rows[0] == "|  | seed 1 |"
    assert "| rates, poll | a second 5, bare 10 |" in rows
    assert "| mixed, memory, api | MB 100 |" in rows and "| mixed, jobs | 7 |" in rows


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="it reads memory in /proc")
def test_a_short_load_is_fair_and_loses_nothing(tmp_path: Path) -> None:
    parts = ["--part", "fairness", "--jobs", "60", "--part", "mixed", "--minutes", "0.5"]
    command = [sys.executable, "-m", "tests.load", "--seed", "3", "--out", str(tmp_path), *parts]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert json.loads((tmp_path / "load-3.json").read_text())["figures"]["mixed"]["jobs"] > 0
