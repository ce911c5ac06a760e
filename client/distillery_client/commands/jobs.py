"""`distillery jobs`."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from distillery_client import event_files, output
from distillery_client.client import Client
from distillery_client.commands.uploads import Identifier, json_object
from distillery_client.errors import JobEnded
from distillery_client.progress import follow
from distillery_client.session import session

app = typer.Typer(no_args_is_help=True, help="Distillation jobs.")

Watch = Annotated[bool, typer.Option("--watch", help="Follow the job until it has ended.")]


@app.command()
def submit(
    context: typer.Context,
    spec: Annotated[
        typer.FileText | None, typer.Option(metavar="FILE", help="Job spec in JSON; - for standard input.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the teacher, or of a job whose student is the teacher.")
    ] = None,
    student: Annotated[
        str | None, typer.Option(metavar="NETWORK", help="Network of the student, such as lenet5_half.")
    ] = None,
    width: Annotated[
        float | None, typer.Option(help="Without --student: a student like its teacher with this part of its channels.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the dataset. Without one, training images are synthesised.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the dataset that the finished student is measured on.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="Objective, such as kd=0.9. May be repeated.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="Source of training batches, such as dafl.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of training steps.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of training epochs.")] = None,
    training: Annotated[str, typer.Option(help="Further fields of the spec's training, as a JSON object.")] = "{}",
    watch: Watch = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Validate only: print the resolved spec and submit nothing.")
    ] = False,
) -> None:
    """Submit a job from a file, from options, or from both; options override the file."""
    bounds = {key: value for key, value in (("steps", steps), ("epochs", epochs)) if value is not None}
    trained = json_object(training, "--training") | bounds
    chosen = {
        "name": name,
        "teacher": teacher,
        "student": _student(student, width),
        "dataset": dataset,
        "evaluation": {"dataset": evaluation} if evaluation else None,
        "objectives": [parse_objective(text) for text in objective] if objective else None,
        "source": {"name": source} if source else None,
    }
    body = _read(spec) | {key: value for key, value in chosen.items() if value is not None}
    if trained:
        body["training"] = body.get("training", {}) | trained
    with session(context) as client:
        if validate:
            _show(context, client.jobs.validate(body))
            return
        _submitted(context, client, client.jobs.submit(body), watch)


def _student(network: str | None, width: float | None) -> dict[str, Any] | None:
    if network and width is not None:
        raise typer.BadParameter("is for students without a --student", param_hint="--width")
    if width is not None:
        return {"like": "teacher", "width": width}
    return {"network": network} if network else None


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs with this status: running, failed, …")] = None,
) -> None:
    """List jobs, newest first."""
    with session(context) as client:
        jobs = client.jobs.list(status=status)
        if context.obj.json:
            output.print_json(list(jobs))
        else:
            output.print_table(jobs, ("id", "name", "status", "phase", "created_at"))


@app.command()
def show(context: typer.Context, identifier: Identifier) -> None:
    """Show a job."""
    with session(context) as client:
        _show(context, client.jobs.get(identifier))


@app.command()
def watch(
    context: typer.Context,
    identifier: Identifier,
    metric: Annotated[list[str] | None, typer.Option(help="Metric to draw. May be repeated.")] = None,
    curves: Annotated[
        bool | None, typer.Option("--curves/--no-curves", help="Draw curves. Default: if the output is a terminal.")
    ] = None,
) -> None:
    """Follow a job until it has ended, with its curves. The exit code is 0 if it succeeded, else 1."""
    drawn = output.errors.is_terminal if curves is None else curves
    with session(context) as client:
        _follow(context, client, identifier, drawn or bool(metric), metric or ())


@app.command()
def report(
    context: typer.Context,
    identifier: Identifier,
    folder: Annotated[Path, typer.Option(help="Folder of the file.")] = Path(),
) -> None:
    """Download the report of a job that has ended: one HTML file to show and to keep."""
    with session(context) as client:
        output.screen.print(str(client.jobs.report(identifier, folder)), markup=False, highlight=False)


@app.command()
def tensorboard(
    context: typer.Context,
    identifier: Identifier,
    folder: Annotated[Path, typer.Option(help="Folder that TensorBoard reads.")] = Path("runs"),
) -> None:
    """Write the metrics of a job as event files for TensorBoard, and follow the job until it has ended."""
    with session(context) as client:
        path = event_files.follow(client, identifier, folder)
        output.screen.print(f"{path}: tensorboard --logdir {folder}", markup=False, highlight=False)


@app.command()
def cancel(context: typer.Context, identifier: Identifier) -> None:
    """Cancel a job."""
    with session(context) as client:
        _show(context, client.jobs.cancel(identifier))


@app.command()
def validate(
    context: typer.Context,
    spec: Annotated[typer.FileText, typer.Argument(metavar="FILE", help="Job spec in JSON; - for standard input.")],
    wait: Annotated[int, typer.Option(min=0, max=60, help="Seconds to wait until the networks are built.")] = 30,
) -> None:
    """Validate a spec without creating a job: print it with every default written out, or list every problem."""
    with session(context) as client:
        _show(context, client.jobs.validate(_read(spec), wait))


@app.command()
def retry(context: typer.Context, identifier: Identifier, watch: Watch = False) -> None:
    """Submit the spec of a job that has ended as a new job."""
    with session(context) as client:
        _submitted(context, client, client.jobs.retry(identifier), watch)


@app.command()
def chain(
    context: typer.Context,
    identifier: Identifier,
    student: Annotated[str, typer.Option(metavar="NETWORK", help="Network of the new student, such as lenet5_half.")],
    watch: Watch = False,
) -> None:
    """Submit a job whose teacher is the student of job ID, with the rest of that job's spec."""
    with session(context) as client:
        _submitted(context, client, client.jobs.chain(identifier, student), watch)


@app.command()
def events(context: typer.Context, identifier: Identifier, watch: Watch = False) -> None:
    """Print the events of a job, oldest first."""
    with session(context) as client:
        for event in client.jobs.watch(identifier) if watch else client.jobs.events(identifier):
            if context.obj.json:
                sys.stdout.write(json.dumps(event) + "\n")
            else:
                output.screen.print(
                    f"{event['seq']:>5}  {event['type']:<10}  {event['message']}", markup=False, highlight=False
                )


def parse_objective(text: str) -> dict[str, Any]:
    """Parse `kd=0.9` into `{"name": "kd", "weight": 0.9}`.

    Raises:
        typer.BadParameter: the weight is not a number.
    """
    name, equals, weight = text.partition("=")
    try:
        return {"name": name} | ({"weight": float(weight)} if equals else {})
    except ValueError as error:
        raise typer.BadParameter(f"--objective {text}: the weight must be a number") from error


def _read(spec: TextIO | None) -> dict[str, Any]:
    return json_object(spec.read(), "--spec") if spec else {}


def _follow(
    context: typer.Context, client: Client, identifier: str, curves: bool = False, metrics: Sequence[str] = ()
) -> None:
    job = follow(client, identifier, output.errors, curves, metrics)
    if job["status"] != "succeeded":
        if context.obj.json:
            output.print_json(job)
        raise JobEnded(job)
    if context.obj.json:
        output.print_json(job)
        return
    output.print_record({name: job.get(name) for name in ("id", "name", "status", "started_at", "finished_at")})
    if "artifacts" in job.get("links", {}):
        with tempfile.TemporaryDirectory() as folder:
            report = client.artifacts.download(job["id"], "report.json", Path(folder))
            output.print_result(json.loads(report.read_text(encoding="utf-8")))
        output.screen.print(f"Files: distillery artifacts download {job['id']}", markup=False, highlight=False)


def _submitted(context: typer.Context, client: Client, job: dict[str, Any], watch: bool) -> None:
    """Follow a new job, or say what was chosen for it and how to follow it."""
    if watch:
        _follow(context, client, job["id"])
    elif context.obj.json:
        output.print_json(job)
    else:
        output.print_record({name: job.get(name) for name in ("id", "name", "status", "queue_position")})
        for pointer, reason in ((job.get("resolved") or {}).get("reasons") or {}).items():
            output.screen.print(f"{pointer}: {reason}", markup=False, highlight=False)
        output.screen.print(f"Follow it: distillery jobs watch {job['id']}", markup=False, highlight=False)


def _show(context: typer.Context, job: dict[str, Any]) -> None:
    if context.obj.json:
        output.print_json(job)
    else:
        output.print_record(job)
