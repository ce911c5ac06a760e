"""CIFAR-10 without data, relative to the teacher: ResNet-34 to ResNet-18 on a GPU, or smaller networks on a CPU.

    python -m benchmarks.datafree.cifar --npz PATH/cifar10.npz                     # the teacher, once
    python -m benchmarks.datafree.cifar --sources dafl fast_meta --minutes 7       # its students
    python -m benchmarks.datafree.cifar --device cpu --npz … --teacher resnet14_cifar --student resnet8_cifar --steps 480 …

Needs only the engine and its dependencies. `cifar10.npz` has the arrays of MNIST's file, with images of 32x32x3. The
teacher trains on the training split; students start from random weights and read no image; the test split measures both, and
nothing is chosen on it. A run has a number of minutes. A pilot run (`--pilot` minutes) measures the speed of this machine;
the run then has as many steps as fit into the remaining time, so that its learning-rate schedule is complete. `--steps`
sets the students' steps instead. A source may have parameters, as in `'dafl preset="paper_cifar10"'`. Students train with the
source's defaults, or with `--recipe papers` as in its papers: SGD at 0.1 (momentum 0.9, weight decay 5e-4, a cosine
schedule), kd at temperature 20.

The teacher and the results are stored in `--results`; a stored row is not run again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import Ran, job_file, keep_row, method_asked, read_rows, run_engine, slug
from benchmarks.compare.protocols import CIFAR10, Files, Protocol, images
from benchmarks.compare.rows import CE, named
from benchmarks.compare.runs import spec_without_length
from worker.distillation import registry
from worker.distillation.training import Training

RESULTS = Path(__file__).parents[2] / "results" / "datafree_cifar"
ENDLESS = 10_000_000
"""More steps than any pilot can take."""
TEACHING = {"batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "warm_up_steps": 200}
PAPERS = {
    "batch_size": 256, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "warm_up_steps": 0,
    "final_learning_rate_fraction": 0.0,
}  # fmt: skip
RECIPES = ("own", "papers")


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    protocol = replace(CIFAR10, teacher=arguments.teacher, student=arguments.student, device=arguments.device)
    files = images(protocol, arguments.npz, arguments.results)
    if not files.test.exists():
        print("There is no teacher yet: pass --npz with CIFAR-10's images once.", file=sys.stderr)
        return 2
    weights = teacher(protocol, files, arguments)
    kept = arguments.results / "rows.jsonl"
    for source in arguments.sources:
        for seed in arguments.seeds:
            row = {
                "teacher": protocol.teacher, "student": protocol.student, "source": source, "recipe": arguments.recipe,
                "length": f"{arguments.steps} steps" if arguments.steps else f"{arguments.minutes:g} minutes", "seed": seed,
            }  # fmt: skip
            if not any(row.items() <= each.items() for each in read_rows(kept)):
                keep_row(kept, row | student(row, protocol, files, weights, arguments))
    print(table(read_rows(kept)))
    return 0


def teacher(protocol: Protocol, files: Files, arguments: argparse.Namespace) -> Path:
    """The teacher's weights, trained once; its results are stored next to them."""
    path = arguments.results / f"{protocol.teacher}.safetensors"
    if not path.exists():
        spec = {
            **spec_without_length(protocol.teacher, {"name": "dataset", "augmentation": "standard"}, [CE], TEACHING),
            "teacher": None, "dataset": "dts_benchmark",
        }  # fmt: skip
        spec["student"] |= {"classes": protocol.classes, "input": protocol.input}
        place = arguments.results / "teacher"
        found, report = _run(place, _job(protocol, files, spec, None), arguments.teacher_minutes, arguments.pilot, None)
        if report is None:
            raise SystemExit(f"the teacher was not trained: {json.dumps(found, indent=1)}")
        path.with_suffix(".json").write_text(json.dumps(found | report["evaluation"]["student"], indent=1))
        shutil.copy(place / "run" / "output" / "student.safetensors", path)
    print(f"{protocol.teacher}: {json.loads(path.with_suffix('.json').read_text())['accuracy']:.2%}", flush=True)
    return path


def student(
    row: Mapping[str, Any], protocol: Protocol, files: Files, weights: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One student's accuracy, absolute and relative to its teacher's, their agreement, and the cost."""
    place = arguments.results / slug(" ".join(str(value) for value in row.values()))
    job = student_job(row, protocol, files, weights)
    found, report = _run(place, job, arguments.minutes, arguments.pilot, arguments.steps)
    if report is None:
        return found
    metrics = {name: report["evaluation"]["student"][name] for name in ("accuracy", "agreement")}
    best = json.loads(weights.with_suffix(".json").read_text())["accuracy"]
    average = report["other_weights"]["evaluation"]["student"]["accuracy"]
    relative = round(metrics["accuracy"] / best, 4)
    return found | metrics | {"average": average, "teacher_accuracy": best, "relative": relative}


def student_job(row: Mapping[str, Any], protocol: Protocol, files: Files, weights: Path) -> dict[str, Any]:
    """The job file of a student, without its length."""
    asked = method_asked(row["source"])
    source = registry.find("sources", asked["name"])
    training = {**source.training_defaults, "average_weights": 0.999, "seed": row["seed"]}
    objectives: list[Mapping[str, Any]] = list(source.objective_defaults)
    if row["recipe"] == "papers":
        training |= PAPERS
        objectives = [named("kd", temperature=20.0)]
    return _job(protocol, files, spec_without_length(protocol.student, asked, objectives, training), weights)


def _job(protocol: Protocol, files: Files, spec: dict[str, Any], weights: Path | None) -> dict[str, Any]:
    given = {"network": protocol.teacher, "options": {}, "classes": protocol.classes, "input": protocol.input}
    described = given | {"weights": str(weights.resolve())} if weights else None
    dataset = files.whole.resolve() if spec["dataset"] else None
    return job_file(spec, described, files.test.resolve(), dataset, device=protocol.device)


def _run(
    place: Path, job: dict[str, Any], minutes: float, pilot: float, steps: int | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run a job of `steps` steps, or of as many as the pilot allows; returns its cost, and its report if there is one."""
    tried = 0.0
    if steps is None:
        ran = _engine(place / "pilot", job, ENDLESS, pilot)
        tried, report = ran.seconds, _report(place / "pilot", ran)
        if report is None:
            return _cost(ran, 0.0), None
        beside = tried - 60 * pilot  # to load, to evaluate, to export
        steps = max(1, int(report["stages"][-1]["steps"] * (60 * minutes - tried - beside) / (60 * pilot)))
    ran = _engine(place / "run", job, steps, None)
    report = _report(place / "run", ran)
    if report is None:
        return _cost(ran, tried), None
    further = {"steps": report["stages"][-1]["steps"], "device": report["environment"]["device_name"]}
    return _cost(ran, tried) | further, report


def _engine(place: Path, job: dict[str, Any], steps: int, minutes: float | None) -> Ran:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    training = asdict(replace(Training.from_spec(job["spec"]["training"]), steps=steps, time_limit_minutes=minutes))
    path = place / "job.json"
    path.write_text(json.dumps(job | {"spec": job["spec"] | {"training": training}}, indent=1))
    return run_engine(path)


def _report(place: Path, ran: Ran) -> dict[str, Any] | None:
    return json.loads((place / "output" / "report.json").read_text()) if ran.last["event"] == "done" else None


def _cost(ran: Ran, tried: float) -> dict[str, Any]:
    """The cost of a run and, if it failed, its error."""
    cost = {"seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds, "pilot_seconds": tried}
    if ran.last["event"] != "done":
        cost |= {"error": ran.last.get("code", ran.last["event"]), "message": ran.last["message"]}
    return cost


def table(found: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, the best first."""
    lines = [
        "| teacher | student | source | recipe | seed | accuracy (average) | of the teacher's | agreement | steps | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(found, key=lambda row: -row.get("relative", 0.0)):
        cells = [each.get("error", "–"), "–", "–", "–"]
        if "accuracy" in each:
            cells = [f"{each['accuracy']:.2%} ({each['average']:.2%})", f"{each['relative']:.1%}"]
            cells += [f"{each['agreement']:.2%}", str(each["steps"])]
        names = [f"{each['teacher']}, {each.get('teacher_accuracy', 0):.2%}"]
        names += [str(each[name]) for name in ("student", "source", "recipe", "seed")]
        lines.append(f"| {' | '.join(names + cells)} | {each['seconds']:.0f} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree.cifar", description=__doc__.splitlines()[0])
    parser.add_argument("--npz", type=Path, help="CIFAR-10; needed once")
    parser.add_argument(
        "--sources",
        nargs="*",
        default=[],
        help="sources, with or without parameters; if empty, only trains the teacher",
    )
    parser.add_argument("--recipe", choices=RECIPES, default="own", help="training recipe of the students")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="seeds of the students; the teacher has one seed"
    )
    parser.add_argument("--minutes", type=float, default=7.0, help="minutes for each student, including its pilot")
    parser.add_argument(
        "--teacher-minutes", type=float, default=8.0, help="minutes for the teacher, including its pilot"
    )
    parser.add_argument(
        "--pilot", type=float, default=0.7, help="minutes of the pilot run that measures how many steps fit"
    )
    parser.add_argument("--steps", type=int, help="steps of each student, regardless of time")
    parser.add_argument("--teacher", default="resnet34_cifar", help="a network's name")
    parser.add_argument("--student", default="resnet18_cifar", help="a network's name")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the teacher and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
