"""`distillery experiments`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from distillery_client import output
from distillery_client.client import Client
from distillery_client.commands.uploads import Identifier
from distillery_client.session import FAILED, session

app = typer.Typer(no_args_is_help=True, help="Experiments: several jobs from one request, compared in a table.")

Watch = Annotated[
    bool, typer.Option("--watch", help="Follow the experiment until all jobs have ended, then print the table.")
]
Metric = Annotated[str | None, typer.Option(help="Metric to compare. Default: the task's main metric.")]
Baseline = Annotated[str | None, typer.Option(help="Variant from which differences are taken. Default: the first.")]
Best = Annotated[str | None, typer.Option(help="`highest` or `lowest`. Default: by the metric's name.")]
Format = Annotated[str, typer.Option("--format", help="`markdown`, `csv` or `json`.")]


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Experiment in YAML or JSON: name, base, and grid or variants.")],
    watch: Watch = False,
    metric: Metric = None,
    baseline: Baseline = None,
) -> None:
    """Submit an experiment from a file. Nothing is queued unless all of its jobs are valid."""
    body = read(file)
    with session(context) as client:
        experiment = client.experiments.submit(body)
        if watch:
            output.errors.print(f"{experiment['id']}: {sum(experiment['counts'].values())} jobs", highlight=False)
            _follow(context, client, experiment["id"], metric, baseline)
        else:
            _show(context, experiment)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List experiments, newest first."""
    with session(context) as client:
        experiments = client.experiments.list()
        if context.obj.json:
            output.print_json(list(experiments))
        else:
            output.print_table(experiments, ("id", "name", "status", "counts", "created_at"))


@app.command()
def show(context: typer.Context, identifier: Identifier) -> None:
    """Show an experiment and its variants."""
    with session(context) as client:
        _show(context, client.experiments.get(identifier))


@app.command()
def watch(context: typer.Context, identifier: Identifier, metric: Metric = None, baseline: Baseline = None) -> None:
    """Follow an experiment until all jobs have ended, then print its table. The exit code is 0 if all succeeded, else 1."""
    with session(context) as client:
        _follow(context, client, identifier, metric, baseline)


@app.command()
def table(
    context: typer.Context,
    identifier: Identifier,
    metric: Metric = None,
    baseline: Baseline = None,
    best: Best = None,
    format: Format = "markdown",
) -> None:
    """Print the table of an experiment: mean, spread and differences paired by seed."""
    if format not in ("markdown", "csv", "json"):
        raise typer.BadParameter("must be markdown, csv or json", param_hint="--format")
    with session(context) as client:
        if format == "json" or context.obj.json:
            output.print_json(client.experiments.table(identifier, metric, baseline, best))
        else:
            sys.stdout.write(client.experiments.table_text(identifier, format, metric, baseline, best))


@app.command()
def cancel(context: typer.Context, identifier: Identifier) -> None:
    """Cancel all jobs of an experiment that have not ended."""
    with session(context) as client:
        _show(context, client.experiments.cancel(identifier))


@app.command()
def delete(context: typer.Context, identifier: Identifier) -> None:
    """Delete an experiment and its jobs, which must have ended."""
    with session(context) as client:
        client.experiments.delete(identifier)


def read(path: Path) -> dict[str, Any]:
    """Read an experiment from a file in YAML, of which JSON is a part.

    Raises:
        typer.BadParameter: the file cannot be read, or is not an object.
    """
    try:
        body = yaml.safe_load(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise typer.BadParameter(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(body, dict):
        raise typer.BadParameter(f"{path} must have the fields name, base, and grid or variants")
    return body


def _follow(context: typer.Context, client: Client, identifier: str, metric: str | None, baseline: str | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    counts: dict[str, int] = {}
    with Progress(*columns, console=output.errors) as bars:
        task = bars.add_task("queued", total=1.0)
        for experiment in client.experiments.changes(identifier):
            counts = experiment["counts"]
            bars.update(task, completed=fraction_of(experiment), description=words_of(counts))
    if context.obj.json:
        output.print_json(client.experiments.table(identifier, metric, baseline))
    else:
        sys.stdout.write(client.experiments.table_text(identifier, "markdown", metric, baseline))
    if counts.get("failed", 0) + counts.get("cancelled", 0):
        raise typer.Exit(FAILED)


def fraction_of(experiment: dict[str, Any]) -> float:
    """The completed fraction of an experiment: the mean over its jobs; a job that has ended counts as completed."""
    ended = ("succeeded", "failed", "cancelled")
    jobs = [job for variant in experiment["variants"] for job in variant["jobs"]]
    done = [1.0 if job["status"] in ended else job["fraction"] or 0.0 for job in jobs]
    return sum(done) / len(done) if done else 1.0


def words_of(counts: dict[str, int]) -> str:
    """`2 running, 10 queued`."""
    order = ("running", "queued", "succeeded", "failed", "cancelled")
    return ", ".join(f"{counts[status]} {status}" for status in order if counts.get(status))


def _show(context: typer.Context, experiment: dict[str, Any]) -> None:
    if context.obj.json:
        output.print_json(experiment)
    else:
        output.print_record(experiment)
