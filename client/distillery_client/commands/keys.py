"""`distillery keys`."""

from typing import Annotated, Any

import typer

from distillery_client import output
from distillery_client.commands.uploads import Identifier
from distillery_client.session import session

app = typer.Typer(no_args_is_help=True, help="Keys of the service; all but `me` need the scope admin.")


@app.command()
def me(context: typer.Context) -> None:
    """Show what the key in use may do and use."""
    with session(context) as client:
        _show(context, client.keys.me())


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What it is for.")],
    scopes: Annotated[str, typer.Option(help="With commas: jobs:read,jobs:write.")],
    expires_days: Annotated[float | None, typer.Option(help="For ever if left out.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Such as running_jobs=2; may be repeated.")
    ] = None,
) -> None:
    """Make a key; its secret is shown this once."""
    values: dict[str, Any] = {"expires_days": expires_days, "limits": dict(map(parse_limit, limit or ()))}
    with session(context) as client:
        _show(context, client.keys.create(name, scopes.split(","), **values))


@app.command("list")
def list_(context: typer.Context) -> None:
    """List keys, newest first."""
    with session(context) as client:
        keys = client.keys.list()
        if context.obj.json:
            output.print_json(list(keys))
        else:
            output.print_table(keys, ("id", "name", "scopes", "expires_at", "revoked_at", "last_used_at"))


@app.command()
def show(context: typer.Context, identifier: Identifier) -> None:
    """Show a key and what it uses."""
    with session(context) as client:
        _show(context, client.keys.get(identifier))


@app.command()
def rotate(
    context: typer.Context,
    identifier: Identifier,
    grace_seconds: Annotated[int, typer.Option(min=0, help="The old secret opens for so long.")] = 0,
) -> None:
    """Give a key a new secret, which is shown this once."""
    with session(context) as client:
        _show(context, client.keys.rotate(identifier, grace_seconds))


@app.command()
def revoke(context: typer.Context, identifier: Identifier) -> None:
    """End a key for good."""
    with session(context) as client:
        _show(context, client.keys.revoke(identifier))


def parse_limit(text: str) -> tuple[str, int]:
    """`running_jobs=2` as a pair.

    Raises:
        typer.BadParameter: it is of another form.
    """
    name, _, number = text.partition("=")
    try:
        return name, int(number)
    except ValueError as error:
        raise typer.BadParameter(f"--limit {text}: must be NAME=NUMBER, such as running_jobs=2") from error


def _show(context: typer.Context, key: dict[str, Any]) -> None:
    if context.obj.json:
        output.print_json(key)
    else:
        output.print_record(key)
