"""Bringing the database to the newest schema.

`make migrate` does it by hand and the embedded service at every start; any number of processes may do it at once.
"""

import sys
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from models.database import engine
from models.settings import settings

FOLDER = Path(__file__).parents[1] / "migrations"


def config() -> Config:
    """Alembic's configuration, without its logging."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(revision: str = "head") -> None:
    """Bring the database of the settings up to a revision."""
    command.upgrade(config(), revision)


def downgrade(revision: str = "base") -> None:
    """Take the database of the settings back to a revision; `base` is empty."""
    command.downgrade(config(), revision)


def is_current() -> bool:
    """Whether the database has the schema that this code was written for."""
    with engine().execution_options(reading=True).connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == _wanted_heads()


@lru_cache(maxsize=1)
def _wanted_heads() -> set[str]:
    """The revisions that this code was written for: as it was when this process began, whatever is on the disk later."""
    return set(ScriptDirectory.from_config(config()).get_heads())


def prepare() -> None:
    """Bring an SQLite database to the newest schema; of another, which others may use, only require it.

    Raises:
        SystemExit: the database does not answer, or has another schema.
    """
    _wanted_heads()
    try:
        if make_url(settings().database).get_backend_name() == "sqlite":
            upgrade()
        elif not is_current():
            sys.exit("The database does not have the schema of this version: run 'make migrate' first.")
    except OperationalError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        sys.exit(f"The database does not answer: {reason}. Is DISTILL_DATABASE_URL right?")


if __name__ == "__main__":
    upgrade()
