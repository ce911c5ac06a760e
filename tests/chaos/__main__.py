"""`python -m tests.chaos --seed N --set production --jobs 200`: break a service on purpose, and check its guarantees."""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign, Size
from tests.chaos.faults import DATA_KINDS, PROCESS_KINDS
from tests.chaos.fleet import become_subreaper
from tests.chaos.report import table
from tests.chaos.sets import SETS, Embedded, Production
from tests.chaos.specs import VARIANTS

JOBS = {"production": 200, "embedded": 100}


def main() -> int:
    """Run campaigns; the exit code is 0 if every guarantee held."""
    arguments = _arguments()
    become_subreaper()
    arguments.out.mkdir(parents=True, exist_ok=True)
    twins: dict[str, str] = {}
    reports = [_run(name, arguments, twins) for name in arguments.set or JOBS]
    print(table(reports))
    for report in reports:
        for rule, sentences in report["broken"].items():
            print(f"\n{report['set']}: {rule}", *(f"  {sentence}" for sentence in sentences[:20]), sep="\n")
    return 0 if all(report["guarantees"] == "kept" for report in reports) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of faults and jobs; the same seed gives the same plan"
    )
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="may be repeated; default: both")
    parser.add_argument(
        "--jobs", type=int, help="number of jobs; default: 200 on the production set, 100 on the embedded one"
    )
    parser.add_argument("--distill", type=int, default=3, help="number of workers that distil")
    parser.add_argument("--inspect", type=int, default=1, help="number of workers that inspect")
    parser.add_argument("--gap", type=float, default=4.0, help="mean seconds between two faults")
    parser.add_argument("--faults", type=int, help="maximum number of faults; default: until all jobs have ended")
    parser.add_argument("--minutes", type=float, default=8, help="maximum minutes with faults in each set")
    parser.add_argument(
        "--kind", action="append", choices=sorted({*PROCESS_KINDS, *DATA_KINDS, *Production.kinds, *Embedded.kinds}),
        help="only faults of this kind; may be repeated",
    )  # fmt: skip
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="may be repeated; default: all")
    parser.add_argument(
        "--hasty", action="store_true", help="do not wait for data that is removed long after a job's end"
    )
    parser.add_argument("--out", type=Path, default=Path(".chaos"), help="folder for reports and histories")
    parser.add_argument("--keep", action="store_true", help="keep logs and data")
    return parser.parse_args()


def _run(name: str, arguments: argparse.Namespace, twins: dict[str, str]) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix=f"distillery-chaos-{name}-"))
    size = Size(
        jobs=arguments.jobs or JOBS[name], distill=arguments.distill, inspect=arguments.inspect,
        gap_seconds=arguments.gap, faults=arguments.faults, fault_seconds=60 * arguments.minutes,
        hasty=arguments.hasty, kinds=tuple(arguments.kind or ()),
        variants=tuple(arguments.variant or VARIANTS),
    )  # fmt: skip
    wanted_later = True
    try:
        report = Campaign(SETS[name](folder, arguments.seed), arguments.seed, size, twins).run()
        wanted_later = report["guarantees"] != "kept"
        (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
        return report
    finally:
        shutil.copyfile(folder / "history.jsonl", arguments.out / f"{name}-history.jsonl")
        if wanted_later or arguments.keep:
            print(f"logs and data are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
