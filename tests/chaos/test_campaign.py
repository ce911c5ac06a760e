"""Short campaigns against whole services: every guarantee holds under faults."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import ROOT


def campaign(out: Path, *arguments: str) -> dict[str, Any]:
    """The report of a campaign, run as a command, since it treats all its descendants as its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--out", str(out), *arguments],
        cwd=ROOT, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [report] = out.glob("*.json")
    return dict(json.loads(report.read_text()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it finds engines in /proc")
def test_six_jobs_survive_five_faults_on_the_embedded_set(tmp_path: Path) -> None:
    variants = ("--variant", "longer than a lease", "--variant", "two long stages")
    size = ("--jobs", "6", "--distill", "2", "--faults", "5", "--gap", "1")
    report = campaign(tmp_path, "--set", "embedded", "--seed", "3", "--hasty", *size, *variants)
    assert sum(report["jobs"].values()) == 6 and sum(report["faults"].values()) == 5
    assert report["attempts"].get("lost", 0) + report["attempts"].get("drained", 0) >= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="it finds engines in /proc")
def test_twenty_jobs_survive_faults_on_the_production_set(tmp_path: Path) -> None:
    report = campaign(tmp_path, "--set", "production", "--seed", "5", "--jobs", "20", "--faults", "25", "--gap", "3")
    assert sum(report["jobs"].values()) == 20
    assert report["resumes"] >= 1 and len(report["faults"]) >= 8
