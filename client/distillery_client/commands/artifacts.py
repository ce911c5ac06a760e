"""`distillery artifacts`."""

from pathlib import Path
from typing import Annotated

import typer

from distillery_client import output
from distillery_client.commands.uploads import Identifier
from distillery_client.progress import transfer
from distillery_client.session import session

app = typer.Typer(no_args_is_help=True, help="Artifacts of a job: the student, its ONNX file, the report.")


@app.command("list")
def list_(context: typer.Context, job: Identifier) -> None:
    """List the artifacts of a job."""
    with session(context) as client:
        artifacts = client.artifacts.list(job)
        if context.obj.json:
            output.print_json(artifacts)
        else:
            output.print_table(artifacts, ("name", "size", "sha256"))


@app.command()
def download(
    context: typer.Context,
    job: Identifier,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Names of artifacts. Default: all.")
    ] = None,
    folder: Annotated[Path, typer.Option("--to", file_okay=False, help="Folder to write to.")] = Path(),
) -> None:
    """Download artifacts. Interrupted downloads are resumed, and every SHA-256 is checked."""
    with session(context) as client:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for name in names or [artifact["name"] for artifact in client.artifacts.list(job)]:
            with transfer(output.errors, name) as moved:
                files.append(client.artifacts.download(job, name, folder, moved))
        if context.obj.json:
            output.print_json([str(file) for file in files])
        else:
            for file in files:
                output.screen.print(str(file), markup=False, highlight=False)
