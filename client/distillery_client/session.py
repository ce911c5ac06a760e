"""What every command of the command line needs: its options, a client, and errors turned into sentences and exit codes."""

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
    """The options before the command."""

    url: str | None = None
    key: str | None = None
    data: Path | None = None
    json: bool = False


@contextmanager
def session(context: typer.Context) -> Iterator[Client]:
    """A client for one command; the package's errors end it with a sentence.

    Exit code 2 says that the call has to change (no service or key was found, a spec is wrong), 1 that it was right
    and did not work.
    """
    options: Options = context.obj
    stamina.instrumentation.set_on_retry_hooks([_say_again])
    try:
        with Client(options.url, options.key, data=options.data) as client:
            yield client
    except DistilleryError as error:
        output.print_error(error)
        raise typer.Exit(USAGE if isinstance(error, Misconfigured | InvalidRequest) else FAILED) from error


def _say_again(details: RetryDetails) -> None:
    output.errors.print(
        f"[dim]No answer yet ({type(details.caused_by).__name__}); again in {details.wait_for:.1f} s.[/]"
    )
