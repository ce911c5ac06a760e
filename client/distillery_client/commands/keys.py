"""`distillery keys`."""

from typing import Annotated, Any

import typer

from distillery_client import output
from distillery_client.commands.uploads import Identifier
from distillery_client.session import session

app = typer.Typer(no_args_is_help=True, help="API keys. All commands except `me` need a key with the scope admin.")


@app.command()
def me(context: typer.Context) -> None:
    """Show scopes, limits and usage of the key in use."""
    with session(context) as client:
        _show(context, client.keys.me())


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Purpose of the key.")],
    scopes: Annotated[str, typer.Option(help="Comma-separated scopes: jobs:read,jobs:write.")],
    expires_days: Annotated[float | None, typer.Option(help="Days until the key expires. Default: never.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Limit of the key, such as running_jobs=2. May be repeated."),
    ] = None,
) -> None:
    """Create a key. Its secret is shown only once."""
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
    """Show a key and its usage."""
    with session(context) as client:
        _show(context, client.keys.get(identifier))


@app.command()
def rotate(
    context: typer.Context,
    identifier: Identifier,
    grace_seconds: Annotated[int, typer.Option(min=0, help="Seconds for which the old secret stays valid.")] = 0,
) -> None:
    """Replace the secret of a key. The new one is shown only once."""
    with session(context) as client:
        _show(context, client.keys.rotate(identifier, grace_seconds))


@app.command()
def revoke(context: typer.Context, identifier: Identifier) -> None:
    """Revoke a key permanently."""
    with session(context) as client:
        _show(context, client.keys.revoke(identifier))


def parse_limit(text: str) -> tuple[str, int]:
    """Parse `running_jobs=2` into a pair.

    Raises:
        typer.BadParameter: the text has another form.
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
