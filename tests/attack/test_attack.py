"""The attack: its corpus is what the seed says, its controls work, its rules can break; and short campaigns."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from models.records import Job
from tests.api.service import Service, running
from tests.attack.controls import NoTrace, require_traces
from tests.attack.corpus import archives, pickles
from tests.attack.corpus.case import Canary
from tests.attack.findings import Findings
from tests.attack.tenants import Coverage, machine, operations
from tests.chaos.fleet import ROOT

OPTIONS = settings(
    max_examples=2, stateful_step_count=25, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An API on SQLite."""
    with running(tmp_path_factory.mktemp("tenants")) as one:
        yield one


def test_two_tenants_see_their_own(service: Service) -> None:
    covered = Coverage(operations(service))
    run_state_machine_as_test(seed(4)(machine(service, covered)), settings=OPTIONS)
    assert sum(covered.calls["stranger"].values()) > 0
    assert covered.calls["owner"][("POST", "/v1/experiments")] > 0


def test_the_model_finds_a_record_that_changes_hands(service: Service) -> None:
    """The control: with a job that is given to the other tenant, the machine fails."""
    covered = Coverage(operations(service))
    made = machine(service, covered)
    finish = made.finish_a_job.__wrapped__ if hasattr(made.finish_a_job, "__wrapped__") else None
    tenants = made()
    try:
        tenant, kind, job = (finish or made.finish_a_job)(tenants, 0)
        with service.rows() as session:
            session.get_one(Job, job).key_id = tenants.users[1].key_id
        with pytest.raises(AssertionError):
            tenants.list_all((tenant, kind, job), 1, 5, False)
    finally:
        tenants.teardown()


def test_payloads_leave_traces_when_they_run(tmp_path: Path) -> None:
    with Canary(tmp_path / "canary") as canary:
        require_traces(canary)
        assert canary.traces() == []


def test_a_control_without_a_trace_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.attack.controls.LOADER", "pass")
    with Canary(tmp_path / "canary") as canary, pytest.raises(NoTrace, match="mkdir"):
        require_traces(canary)


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    import random

    with Canary(tmp_path / "canary") as canary:
        one, other = (list(pickles.opcodes(random.Random(3))) for _ in range(2))
        assert [case.name for case in one] == [case.name for case in other]
        assert all(a.make() == b.make() for a, b in itertools.islice(zip(one, other, strict=True), 50))
        cases = [*pickles.calls(canary), *archives.zips(canary), *archives.tars(canary)]
        assert len({(case.family, case.name) for case in cases}) == len(cases) > 7000


def test_a_bomb_is_small_and_unpacks_to_what_it_says() -> None:
    import zlib

    packed = archives.deflated(50 * 2**20, b"head")
    assert len(packed) < 2**17 and zlib.decompress(packed, -15) == b"head" + bytes(50 * 2**20)


def test_findings_count_what_they_do_not_list() -> None:
    findings = Findings()
    for number in range(100):
        findings.require(number % 2 == 0, "odd", str(number))
    assert findings.counts["odd"] == 50 and len(findings.broken["odd"]) == 30


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="it measures engines in /proc")
def test_a_short_attack_breaks_no_rule(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.attack", "--seed", "3", "--minutes", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    figures = json.loads((tmp_path / "attack-3.json").read_text())["figures"]
    assert figures["uploads"]["files"] > 10 and figures["uploads"]["traces"] == 0
    assert figures["clients"]["kinds"] > 5 and sum(figures["tenants"]["calls"].values()) > 50
