"""`python -m api.keys`: manage keys with direct access to the database. Only secrets and lists go to standard output."""

import argparse
import sys
from datetime import UTC, datetime

from pydantic import ValidationError

from api.access.auth import OPERATOR
from api.access.scopes import SCOPES
from api.http.errors import ApiError
from api.http.paging import MAX_LIMIT, Window
from api.keys import service
from api.keys.schemas import KeyMade, KeySpec, Rotation
from models import startup
from models.scheduling.key_limits import OwnLimits
from models.spec.problems import problems_of


def main() -> None:
    """Run one command."""
    arguments = _parser().parse_args()
    startup.prepare()
    try:
        arguments.command(arguments)
    except ApiError as error:
        sys.exit("\n".join([error.detail, *(f"  {pointer}: {message}" for pointer, message in error.errors)]))
    except ValidationError as error:
        sys.exit("\n".join(f"{problem.pointer}: {problem.message}" for problem in problems_of(error)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m api.keys", description="Manage the API keys in the database of the settings."
    )
    commands = parser.add_subparsers(required=True)
    create = commands.add_parser("create", help="create a key; its secret is printed once")
    create.add_argument("--name", required=True, help="purpose of the key")
    create.add_argument("--scopes", required=True, help=f"comma-separated scopes out of {','.join(SCOPES)}, or 'all'")
    create.add_argument("--expires-days", type=float, help="days until the key expires; default: never")
    create.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="limit of the key, such as running_jobs=2; may be repeated",
    )
    create.set_defaults(command=_create)
    commands.add_parser("list", help="list all keys, newest first").set_defaults(command=_list)
    rotate = commands.add_parser("rotate", help="replace the secret of a key; the new one is printed once")
    rotate.add_argument("id", help="id of the key")
    rotate.add_argument(
        "--grace-seconds", type=int, default=0, help="seconds for which the old secret stays valid; default: 0"
    )
    rotate.set_defaults(command=_rotate)
    revoke = commands.add_parser("revoke", help="revoke a key permanently")
    revoke.add_argument("id", help="id of the key")
    revoke.set_defaults(command=_revoke)
    return parser


def _create(arguments: argparse.Namespace) -> None:
    scopes = list(SCOPES) if arguments.scopes == "all" else arguments.scopes.split(",")
    limits = OwnLimits.model_validate({name: _number(value) for name, _, value in map(_parts, arguments.limit)})
    _print_secret(
        service.create(
            OPERATOR,
            KeySpec(name=arguments.name, scopes=scopes, expires_days=arguments.expires_days, limits=limits),
        )
    )


def _list(arguments: argparse.Namespace) -> None:
    cursor: str | None = None
    while True:
        page = service.page(Window(MAX_LIMIT, cursor))
        for key in page.data:
            print(key.id, key.name, ",".join(key.scopes), _state(key.revoked_at, key.expires_at), sep="\t")
        cursor = page.next_cursor
        if cursor is None:
            return


def _rotate(arguments: argparse.Namespace) -> None:
    rotation = Rotation(grace_seconds=arguments.grace_seconds)
    _print_secret(service.rotate(OPERATOR, arguments.id, rotation.grace_seconds))


def _revoke(arguments: argparse.Namespace) -> None:
    print(f"The key {service.revoke(arguments.id).id} is revoked.", file=sys.stderr)


def _print_secret(made: KeyMade) -> None:
    scopes = ", ".join(made.scopes)
    print(f"Key {made.id} ({made.name}) with the scopes {scopes}. The secret is shown only once:", file=sys.stderr)
    print(made.key)


def _state(revoked_at: datetime | None, expires_at: datetime | None) -> str:
    if revoked_at is not None:
        return f"revoked {revoked_at:%Y-%m-%d}"
    if expires_at is None:
        return "never expires"
    return f"{'expired' if expires_at <= datetime.now(UTC) else 'expires'} {expires_at:%Y-%m-%d}"


def _parts(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdecimal() else text


if __name__ == "__main__":
    main()
