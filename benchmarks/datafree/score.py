"""How well the estimate without data tells how often a student agrees with its teacher on real images.

    python -m benchmarks.datafree.score [ROWS.json] [--rows NAME …] [--own NAME …] [--sources procedural dafl noise …]
        [--steps 200] [--at 10 40 100] [--seeds 0 1 …] [--training JSON]
    python -m benchmarks.datafree.score --list

`ROWS.json` lists uploaded checkpoints as for `benchmarks.datafree.uploaded`; `--own` names teachers of
`benchmarks.datafree.robustness`. Every row is one short training, in this process and on one thread. Its student is measured at
the end and at the steps `--at`: by the estimate, as a job's report has it, and on at most 2,000 real test images. Most of these
students are poor, as they must be to show whether the estimate tells. Nothing is chosen on real images.
Results are stored in `results/score.jsonl` and not measured again.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.bare_engine import keep_row, read_rows, slug
from benchmarks.datafree import robustness, uploaded
from worker.distillation.errors import EngineError
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.job import Job
from worker.distillation.like_teacher import completed
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run
from worker.distillation.trainer.stage_run import StageRun

RESULTS = Path(__file__).parents[2] / "results" / "score"
MOST_IMAGES = 2_000
THRESHOLDS = 0.70, 0.80, 0.85, 0.90, 0.95
TRULY_LOW = 0.75, 0.90
KEYS = "row", "source", "steps", "seed"


class ScoredRun(Run):
    """A run that measures its student at some steps, and exports nothing."""

    def __init__(self, job: Job, channel: Channel, at: Sequence[int]):
        super().__init__(job, channel)
        self.at = set(at)
        self.found: list[dict[str, Any]] = []

    def after_step(self, run: StageRun) -> None:
        super().after_step(run)
        if run.number in self.at or run.finished:
            self.at.discard(run.number)
            (member,) = run.members.values()
            with modes_kept(member.network):
                self.found.append({"at": run.number, **self.measured(member.network)})

    def measured(self, student: torch.nn.Module) -> dict[str, Any]:
        """The estimate, and the true agreement and accuracy."""
        estimator = self.lineage.estimator("report")
        estimate = estimator.estimate(student) if estimator else None
        assert self.inputs.evaluation is not None
        true = self.job.task.evaluate(student, self.inputs.evaluation[0], 256, self.lineage.teacher)
        return {
            "agreement": true["agreement"],
            "accuracy": true["accuracy"],
            "estimate": estimate and estimate.agreement,
            "images": estimate and estimate.images,
        }

    def _finish(self) -> dict[str, Any]:
        return {}


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results.with_suffix(".jsonl")
    torch.set_num_threads(1)
    for row in () if arguments.list else asked(arguments):
        if any(row.items() <= each.items() and ("training" in row) == ("training" in each) for each in read_rows(kept)):
            continue
        for found in run(row, arguments):
            keep_row(kept, row | found)
    print(report(read_rows(kept)))
    return 0


def asked(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows to run, the seeds in the outer loop."""
    given = json.loads(arguments.rows_file.read_text()) if arguments.rows_file else {}
    more = {"training": arguments.training} if arguments.training else {}
    names = [*(arguments.rows if arguments.rows is not None else given), *arguments.own]
    return [
        {"row": name, "source": source, "steps": arguments.steps, "seed": seed} | more
        for seed in arguments.seeds
        for name in names
        for source in arguments.sources
    ]


def run(row: dict[str, Any], arguments: argparse.Namespace, kind: type[ScoredRun] = ScoredRun) -> list[dict[str, Any]]:
    """The measurements of one training; of one that failed, its error."""
    place = arguments.results / slug(" ".join(map(str, row.values())))
    place.mkdir(parents=True, exist_ok=True)
    made = _job(row, arguments)
    made["evaluation"] = str(_fewer(Path(made["evaluation"]), arguments.results).resolve())
    running = kind(Job(completed(made), place), Channel(io.StringIO()), arguments.at)
    try:
        running.execute()
    except EngineError as error:
        return [*running.found, {"at": None, "error": error.message}]
    return running.found


def _job(row: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The job file of a row."""
    if row["row"] in arguments.own:
        chosen = robustness.ROWS[row["row"]]
        dataset, classes = robustness.write_images(chosen, arguments.results)
        weights, _ = robustness.teacher(row["row"], chosen, dataset, classes, arguments.results)
        return robustness.job(
            chosen, row["source"], row["steps"], row["seed"], classes, dataset.resolve(), weights.resolve()
        )
    given = json.loads(arguments.rows_file.read_text())[row["row"]]
    data, teacher = uploaded.inputs(given, arguments.rows_file.parent, arguments.results)
    values = {
        "asked": row["source"],
        "steps": row["steps"],
        "seed": row["seed"],
        "training": row.get("training", {}),
    }
    return uploaded.job(given, teacher, values, data)


def _fewer(dataset: Path, folder: Path) -> Path:
    """A canonical dataset with at most 2,000 of the test images."""
    path = folder / f"fewer_{slug(str(dataset))[-80:]}.safetensors"
    if not path.exists():
        with safe_open(dataset, "pt") as file:
            names = [name for name in file.keys() if name.startswith("test.")]  # noqa: SIM118 - it is no mapping
            tensors = {name: file.get_tensor(name)[:MOST_IMAGES].contiguous() for name in names}
            save_file(tensors, path, file.metadata())
    return path


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The rank correlation and the table of thresholds, of finished trainings and of all students."""
    known = [row for row in rows if row.get("estimate") is not None]
    last = [row for row in known if row["at"] == row["steps"]]
    return "\n\n".join(_summary(*pair) for pair in (("finished trainings", last), ("all students", known)) if pair[1])


def _summary(title: str, rows: Sequence[dict[str, Any]]) -> str:
    away = sorted((row["estimate"] - row["agreement"], _name(row)) for row in rows)
    lines = [
        f"{len(rows)} {title} of {len({row['row'] for row in rows})} teachers: rank correlation {rank_correlation(rows):.3f}; "
        f"largest over-estimate {away[-1][0]:+.1%} ({away[-1][1]}), largest under-estimate {away[0][0]:+.1%} ({away[0][1]})",
        "",
        "| estimate below | students | truly below 75 % | truly below 90 % | truly 90 % or more |",
        "|---|---|---|---|---|",
    ]
    for bound in THRESHOLDS:
        below = [row for row in rows if row["estimate"] < bound]
        cells = []
        for low in TRULY_LOW:
            all_low = [row for row in rows if row["agreement"] < low]
            cells.append(f"{len([row for row in below if row['agreement'] < low])} of {len(all_low)}")
        high = [row for row in rows if row["agreement"] >= TRULY_LOW[-1]]
        cells.append(f"{len([row for row in below if row['agreement'] >= TRULY_LOW[-1]])} of {len(high)}")
        lines.append(f"| {bound:.0%} | {len(below)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rank_correlation(rows: Sequence[dict[str, Any]]) -> float:
    """Spearman's rank correlation of estimate and agreement; equal values share their mean rank."""
    ranks = torch.stack([_ranks([row[name] for row in rows]) for name in ("estimate", "agreement")])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> torch.Tensor:
    column = torch.tensor(values, dtype=torch.float64)
    return (column[:, None] > column).sum(1) + ((column[:, None] == column).sum(1) + 1) / 2


def _name(row: dict[str, Any]) -> str:
    return f"{row['row']}, {row['source']}, seed {row['seed']}, step {row['at']}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree.score", description=__doc__.splitlines()[0])
    parser.add_argument("rows_file", type=Path, metavar="ROWS.json", nargs="?")
    parser.add_argument("--rows", nargs="*", help="names in the file; by default all")
    parser.add_argument("--own", nargs="*", default=[], choices=list(robustness.ROWS), metavar="NAME")
    parser.add_argument("--sources", nargs="+", default=["procedural"], help="sources, with or without parameters")
    parser.add_argument("--steps", type=int, default=200, help="steps of a training")
    parser.add_argument(
        "--at", type=int, nargs="*", default=[10, 40, 100], help="steps after which students are measured"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the students")
    parser.add_argument(
        "--training", type=json.loads, default={}, help="more of the spec's `training`, as JSON (uploads only)"
    )
    parser.add_argument("--list", action="store_true", help="print the stored results and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
