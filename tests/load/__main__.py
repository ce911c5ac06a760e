"""`python -m tests.load --seed N --minutes 60`: load a whole service as its users do, and check rates, fairness and memory."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.attack.findings import Findings
from tests.attack.target import started
from tests.load import fairness, rates
from tests.load.mixed import Traffic
from tests.load.report import table

PARTS = ("rates", "fairness", "mixed")


def main() -> int:
    """Run the parts; the exit code is 0 if every rule held."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="distillery-load-"))
    findings, began = Findings(), time.monotonic()
    parts = arguments.part or PARTS
    if "rates" in parts:
        (folder / "rates").mkdir()
        rates.measure(findings, folder, arguments.rate_seconds)
    if set(parts) & {"fairness", "mixed"}:
        with started(folder, "preferred", client_seconds=30.0) as target:
            if "fairness" in parts:
                fairness.measure(target, findings, arguments.jobs)
            if "mixed" in parts:
                Traffic(target, findings, arguments.seed).run(60 * arguments.minutes)
            for line in target.check_logs()[:5]:
                findings.violation("no unhandled exception", line)
    broken = {rule: [findings.counts[rule], *said] for rule, said in findings.broken.items()}
    report = {
        "seed": arguments.seed, "rules": "broken" if broken else "kept", "seconds": round(time.monotonic() - began),
        "minutes": arguments.minutes if "mixed" in parts else "not run", "broken": broken, "figures": findings.figures,
    }  # fmt: skip
    (arguments.out / f"load-{arguments.seed}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(table([report]))
    for rule, said in findings.broken.items():
        print(f"\n{rule}: broken {findings.counts[rule]} times", *(f"  {sentence}" for sentence in said), sep="\n")
    if broken or arguments.keep:
        print(f"logs and data are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of the mixed traffic")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--minutes", type=float, default=60, help="duration of the mixed traffic")
    parser.add_argument("--rate-seconds", type=float, default=60, help="duration of the rates")
    parser.add_argument("--jobs", type=int, default=1000, help="number of jobs of the key that submits many")
    parser.add_argument("--out", type=Path, default=Path(".load"), help="folder for reports")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
