"""Distillation without data from uploaded checkpoints, which nobody here trained.

    python -m benchmarks.datafree.uploaded ROWS.json [--rows NAME …] [--sources auto procedural …] [--steps 1200] [--seeds 0 …]

`ROWS.json` lists the checkpoints: `{"NAME": {"file": PATH, "data": PATH, "student": {…}}}`, with paths relative to it.
`data` is an npz or a zip of images with a test split; `student` is as in a job's spec. Every checkpoint is inspected as an
upload is: with `"input": {…}` (and perhaps more of its `teacher`) by its names and shapes, else by the labelled images, which
the job does not get. Every row is one job of the bare engine on one thread, whose spec sets only the student, the length and
what is asked for on the command line. The source `dataset` trains on the row's images, for comparison. Nothing is chosen on real images: they measure the finished student.
Results are stored in `results/uploaded.jsonl` and not measured again.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import job_file, keep_row, method_asked, read_rows, run_engine, slug
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.job_spec import JobSpec, resolve
from worker.distillation.uploads.inspect_upload import inspect

RESULTS = Path(__file__).parents[2] / "results" / "uploaded"


def main() -> int:
    arguments = _arguments()
    rows = json.loads(arguments.rows_file.read_text())
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results.with_suffix(".jsonl")
    for name in arguments.rows or list(rows):
        for source in arguments.sources:
            for seed in arguments.seeds:
                asked = {
                    "row": name,
                    "asked": source,
                    "steps": arguments.steps,
                    "seed": seed,
                    "training": arguments.training,
                }
                if not any(asked.items() <= each.items() for each in read_rows(kept)):
                    keep_row(kept, asked | run(rows[name], asked, arguments))
    return 0


def run(row: dict[str, Any], asked: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """One job; returns the choices, accuracies, the agreement with the teacher, what is known without data, and the seconds."""
    data, teacher = inputs(row, arguments.rows_file.parent, arguments.results)
    place = arguments.results / slug("_".join(map(str, asked.values())))
    place.mkdir(parents=True, exist_ok=True)
    content = job(row, teacher, asked, data)
    (place / "job.json").write_text(json.dumps(content, indent=1))
    ran = run_engine(place / "job.json")
    found: dict[str, Any] = {
        "source": content["spec"]["source"]["name"], "initial_weights": content["spec"]["student"].get("initial_weights"),
        "seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds,
    }  # fmt: skip
    if ran.last["event"] != "done":
        return found | {"error": ran.last.get("code", ran.last["event"]), "message": ran.last["message"]}
    report = json.loads((place / "output" / "report.json").read_text())
    measured = {name: report["evaluation"]["student"][name] for name in ("accuracy", "agreement")}
    return (
        found
        | measured
        | {"teacher_accuracy": report["evaluation"]["teacher"]["accuracy"], "without_data": report["without_data"]}
    )


def inputs(row: dict[str, Any], beside: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inspections of a row's dataset and of its checkpoint."""
    data = inspected(beside / row["data"], {"kind": "dataset", "options": {}}, folder)
    declared = (
        {"teacher": {"input": row["input"], **row.get("teacher", {})}} if "input" in row else {"dataset": data["path"]}
    )
    return data, inspected(beside / row["file"], {"kind": "teacher", "teacher": {}, **declared}, folder)


def inspected(path: Path, description: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result of an inspection, with the absolute `path` of the canonical form; kept for later rows."""
    place = folder / slug(f"{path.name} {json.dumps(description)}"[:120])
    result = place / "result.json"
    if not result.exists():
        (place / "output").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / "upload")
        found = inspect({**description, "upload": "upload"}, place)
        result.write_text(json.dumps(found | {"path": str((place / found["path"]).resolve())}))
    return json.loads(result.read_text())


def job(row: dict[str, Any], teacher: dict[str, Any], asked: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The job file that a worker writes, plus an evaluation on the test images; `teacher` and `data` are inspections."""
    found, path = teacher["findings"], Path(data["path"])
    reads = method_asked(asked["asked"])["name"] == "dataset"
    facts = Facts(
        teacher=TeacherFacts(found["network"], found["classes"], found["input"], found["options"], found),
        dataset=DatasetFacts(data["findings"]) if reads else None,
    )
    spec = {
        "teacher": "tch_" + "0" * 32,
        "student": row["student"],
        "source": method_asked(asked["asked"]),
        "training": {"steps": asked["steps"], "seed": asked["seed"], **asked["training"]},
        "exports": ["safetensors"],
    } | ({"dataset": "dts_" + "0" * 32} if reads else {})
    resolved = resolve(JobSpec.model_validate(spec), facts) | {"evaluation": {"split": "test"}}
    given = {name: found[name] for name in ("network", "options", "classes", "input")} | {"weights": teacher["path"]}
    return job_file(resolved, given, path, path if reads else None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree.uploaded", description=__doc__.splitlines()[0])
    parser.add_argument("rows_file", type=Path, metavar="ROWS.json")
    parser.add_argument("--rows", nargs="+")
    parser.add_argument("--sources", nargs="+", default=["auto"], help="`auto`, or sources with or without parameters")
    parser.add_argument("--steps", type=int, default=1200, help="steps of the student")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds of the students")
    parser.add_argument("--training", type=json.loads, default={}, help="more of the spec's `training`, as JSON")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
