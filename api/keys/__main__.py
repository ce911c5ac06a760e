"""`python -m api.keys`: keys without the API, for whoever reaches the database. Secrets go to standard output, alone."""

import argparse
import sys
from datetime import UTC, datetime

from pydantic import ValidationError

from api.access.auth import OPERATOR
from api.access.scopes import SCOPES
from api.http.errors import ApiError
from api.http.paging import MOST, Window
from api.keys import service
from api.keys.schemas import KeyMade, KeySpec, Rotation
from models import migrate
from models.scheduling.key_limits import OwnLimits
from models.spec.problems import problems_of


def main() -> None:
    """Carry out one command."""
    arguments = _parser().parse_args()
    migrate.prepare()
    try:
        arguments.command(arguments)
    except ApiError as error:
        sys.exit("\n".join([error.detail, *(f"  {pointer}: {message}" for pointer, message in error.errors)]))
    except ValidationError as error:
        sys.exit("\n".join(f"{problem.pointer}: {problem.message}" for problem in problems_of(error)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description="Keys of this database.")
    commands = parser.add_subparsers(required=True)
    create = commands.add_parser("create", help="make a key; its secret is printed once")
    create.add_argument("--name", required=True, help="what it is for")
    create.add_argument("--scopes", required=True, help=f"some of {','.join(SCOPES)}, or all")
    create.add_argument("--expires-days", type=float, help="for ever if left out")
    create.add_argument("--limit", action="append", default=[], metavar="NAME=NUMBER", help="such as running_jobs=2")
    create.set_defaults(command=_create)
    commands.add_parser("list", help="list all keys, the newest first").set_defaults(command=_list)
    rotate = commands.add_parser("rotate", help="give a key a new secret, which is printed once")
    rotate.add_argument("id")
    rotate.add_argument("--grace-seconds", type=int, default=0, help="the old secret opens for so long")
    rotate.set_defaults(command=_rotate)
    revoke = commands.add_parser("revoke", help="end a key for good")
    revoke.add_argument("id")
    revoke.set_defaults(command=_revoke)
    return parser


def _create(arguments: argparse.Namespace) -> None:
    scopes = list(SCOPES) if arguments.scopes == "all" else arguments.scopes.split(",")
    limits = OwnLimits.model_validate({name: _number(value) for name, _, value in map(_parts, arguments.limit)})
    _tell(
        service.create(
            OPERATOR,
            KeySpec(name=arguments.name, scopes=scopes, expires_days=arguments.expires_days, limits=limits),
        )
    )


def _list(arguments: argparse.Namespace) -> None:
    cursor: str | None = None
    while True:
        page = service.page(Window(MOST, cursor))
        for key in page.data:
            print(key.id, key.name, ",".join(key.scopes), _state(key.revoked_at, key.expires_at), sep="\t")
        cursor = page.next_cursor
        if cursor is None:
            return


def _rotate(arguments: argparse.Namespace) -> None:
    _tell(service.rotate(OPERATOR, arguments.id, Rotation(grace_seconds=arguments.grace_seconds).grace_seconds))


def _revoke(arguments: argparse.Namespace) -> None:
    print(f"{service.revoke(arguments.id).id} is revoked.", file=sys.stderr)


def _tell(made: KeyMade) -> None:
    print(f"{made.id} ({made.name}) may {', '.join(made.scopes)}. Its secret is shown this once:", file=sys.stderr)
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
