"""What every command needs: global options, a client, and exit codes for errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import stamina.instrumentation
import typer
from stamina.instrumentation import RetryDetails

from distillery_client import output
from distillery_client.client import Client
from distillery_client.errors import DistilleryError, InvalidRequest, Misconfigured

FAILED = 1
USAGE = 2


@dataclass(frozen=True)
class Options:
    """The global options, which come before the command."""

    url: str | None = None
    key: str | None = None
    data: Path | None = None
    json: bool = False


@contextmanager
def session(context: typer.Context) -> Iterator[Client]:
    """A client for one command. Errors of this package are printed and end the command.

    The exit code is 2 if the call must change (no service or key was found, the request is not valid), else 1.
    """
    options: Options = context.obj
    stamina.instrumentation.set_on_retry_hooks([_print_retry])
    try:
        with Client(options.url, options.key, data=options.data) as client:
            yield client
    except DistilleryError as error:
        output.print_error(error)
        raise typer.Exit(USAGE if isinstance(error, Misconfigured | InvalidRequest) else FAILED) from error


def _print_retry(details: RetryDetails) -> None:
    output.errors.print(
        f"[dim]The request failed ({type(details.caused_by).__name__}). Retrying in {details.wait_for:.1f} s.[/]"
    )
