"""The command `distillery`.

Exit codes: 0 on success; 1 if a job failed, an upload was rejected, or the service refused the request or did not answer;
2 if the call must change: an unknown option, no service or key, an invalid spec.
"""

from pathlib import Path
from typing import Annotated

import typer

from distillery_client.commands import artifacts, catalogue, experiments, jobs, keys, pack, unpack, uploads
from distillery_client.session import Options

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Distil vision networks from the command line."
)
app.add_typer(uploads.teachers, name="teachers")
app.add_typer(uploads.datasets, name="datasets")
app.add_typer(uploads.files, name="files")
app.add_typer(jobs.app, name="jobs")
app.add_typer(experiments.app, name="experiments")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(keys.app, name="keys")
app.command("catalogue")(catalogue.catalogue)
app.command("pack")(pack.pack)
app.command("unpack")(unpack.unpack)


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="DISTILL_URL", help="URL of the service.")] = None,
    key: Annotated[str | None, typer.Option(envvar="DISTILL_KEY", help="API key.", show_envvar=True)] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="DISTILL_DATA", help="Data folder of an embedded service, from which URL and key are read."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    context.obj = Options(url, key, data, json)


def main() -> None:
    """Run the command line."""
    app()
