"""`python -m tests.attack --seed N`: attack a whole service for some minutes, and check that its rules hold."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.attack import requests, tenants
from tests.attack.clients import Clients
from tests.attack.controls import require_traces
from tests.attack.corpus.case import Canary
from tests.attack.corpus.every import corpus
from tests.attack.findings import Findings
from tests.attack.measures import MEGABYTE, Watch, resident_bytes
from tests.attack.report import table
from tests.attack.target import Target, started
from tests.attack.uploads import Uploads

SHARES = {"uploads": 0.5, "clients": 0.15, "requests": 0.2, "tenants": 0.15}
"""Parts of a campaign, and their share of its time."""


def main() -> int:
    """Run a campaign; the exit code is 0 if every rule held."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="distillery-attack-"))
    findings, began = Findings(), time.monotonic()
    with Canary(folder / "canary") as canary:
        require_traces(canary)
        with started(folder, arguments.sandbox) as target:
            _attack(target, canary, findings, arguments, folder)
    report: dict[str, Any] = {
        "seed": arguments.seed, "rules": "broken" if findings.broken else "kept", "seconds": round(time.monotonic() - began),
        "sandbox": arguments.sandbox, "broken": {rule: [findings.counts[rule], *said] for rule, said in findings.broken.items()},
        "figures": findings.figures,
    }  # fmt: skip
    (arguments.out / f"attack-{arguments.seed}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table([report]))
    for rule, said in findings.broken.items():
        print(f"\n{rule}: broken {findings.counts[rule]} times", *(f"  {sentence}" for sentence in said), sep="\n")
    if findings.broken or arguments.keep:
        print(f"logs and data are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if findings.broken else 0


def _attack(target: Target, canary: Canary, findings: Findings, arguments: argparse.Namespace, folder: Path) -> None:
    parts = arguments.part or list(SHARES)
    whole = 60 * arguments.minutes / sum(SHARES[part] for part in parts)
    workers = [target.whole.processes[kind].pid for kind in ("inspect", "distill")]
    with Watch(target.service.process.pid, workers) as watch:
        for part in parts:
            seconds, before = whole * SHARES[part], watch.count()
            if part == "uploads":
                cases = corpus(canary, target.inputs, arguments.seed)
                chosen = (case for case in cases if not arguments.family or case.family in arguments.family)
                Uploads(target, canary, findings, watch).run(chosen, seconds, arguments.files)
            elif part == "clients":
                Clients(target, findings, watch, arguments.seed).run(seconds)
            elif part == "requests":
                requests.send(target, findings, arguments.seed, seconds, folder)
            else:
                tenants.explore(target.service, findings, arguments.seed, seconds)
            _check(target, canary, findings, watch, part, before)
            findings.note("service", **{f"api_mb_after_{part}": round(resident_bytes(watch.api) / MEGABYTE)})
        findings.note("service", api_peak_mb=round(watch.api_bytes / MEGABYTE), most_processes=watch.most_processes)


def _check(target: Target, canary: Canary, findings: Findings, watch: Watch, part: str, before: int) -> None:
    """What holds after every part."""
    findings.require(
        watch.settled(before), "no process is left", f"{watch.count()} processes after {part}, {before} before"
    )
    findings.require(not canary.traces(), "nothing is executed", f"{canary.traces()[:5]} after {part}")
    findings.require(watch.api_bytes < 200 * MEGABYTE, "API memory", f"{watch.api_bytes / MEGABYTE:.0f} MB in {part}")
    for name, process in target.whole.processes.items():
        findings.require(
            process.poll() is None, "nothing goes down", f"{name} ended with {process.returncode} in {part}"
        )
    for line in target.check_logs()[:5]:
        findings.violation("no unhandled exception", f"{part}: {line}")
    try:
        target.send_good_upload()
    except AssertionError as error:
        findings.violation("answers a good request after each", f"after {part}: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the same seed sends the same files in the same order")
    parser.add_argument("--minutes", type=float, default=15, help="duration, divided among the parts")
    parser.add_argument("--part", action="append", choices=list(SHARES), help="may be repeated; default: all")
    parser.add_argument("--family", action="append", help="only files of this family; may be repeated")
    parser.add_argument(
        "--files", type=int, help="maximum number of hostile files; default: as many as there is time for"
    )
    parser.add_argument(
        "--sandbox", choices=("off", "preferred", "required"), default="off",
        help="off (default): a payload that is run leaves a trace; otherwise the sandbox hides it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path(".attack"), help="folder for reports")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
