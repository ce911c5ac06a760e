"""Generated requests to every route of the OpenAPI document, with a key and without one."""

import re
import subprocess
import sys
from pathlib import Path

import httpx

from api.access.scopes import SCOPES
from tests.attack.findings import Findings
from tests.attack.target import Target

NOT_APPLICABLE = "unsupported_method,positive_data_acceptance,negative_data_rejection,missing_required_header"
"""Checks that do not apply: a body can match its schema and still describe a job that cannot work."""
WITHOUT_KEY = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PHASES = "fuzzing"


def send(target: Target, findings: Findings, seed: int, seconds: float, folder: Path) -> None:
    """Run schemathesis half of the time with a key that may do everything, half without a key."""
    key, _ = target.service.new_key(scopes=list(SCOPES))
    document = httpx.get(f"{target.url}/openapi.json", trust_env=False, timeout=60).json()
    operations = sum(len(routes) for routes in document["paths"].values())
    counts = {
        "with_key": _run(target, findings, seed, seconds / 2, folder, "with a key",
                         "--header", f"Authorization: Bearer {key}", "--exclude-checks", NOT_APPLICABLE),
        "without_key": _run(target, findings, seed, seconds / 2, folder, "without a key", "--checks", WITHOUT_KEY),
    }  # fmt: skip
    findings.note("requests", operations=operations, **counts)


def _run(target: Target, findings: Findings, seed: int, seconds: float, folder: Path, name: str, *options: str) -> int:
    """One run; returns the number of generated test cases."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{target.url}/openapi.json", "--phases", PHASES,
        "--max-time", str(max(1, int(seconds))), "--seed", str(seed), "--generation-database", "none", "--no-shrink", "--max-examples", "3",
        "--request-timeout", "30", "--no-color", "--continue-on-failure", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds * 3 + 300, check=False)
    (folder / f"schemathesis {name}.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        findings.violation("conforms to its document", f"{name}: {done.stdout[-3000:]} {done.stderr[-500:]}")
    found = re.search(r"([\d,]+) generated", done.stdout)
    return int(found[1].replace(",", "")) if found else 0
