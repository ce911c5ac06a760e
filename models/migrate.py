"""Migrating the database to the newest schema.

`make migrate` runs it by hand, the embedded service at every start. Any number of processes may run it concurrently.
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
    """Alembic's configuration, without logging."""
    made = Config()
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(revision: str = "head") -> None:
    """Upgrade the database of the settings to a revision."""
    command.upgrade(config(), revision)


def downgrade(revision: str = "base") -> None:
    """Downgrade the database of the settings to a revision; `base` has no tables."""
    command.downgrade(config(), revision)


def is_current() -> bool:
    """Whether the database has the schema of this version of the code."""
    with engine().execution_options(reading=True).connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == _expected_heads()


@lru_cache(maxsize=1)
def _expected_heads() -> set[str]:
    """The newest revisions of this version. Cached at the start of the process, so that later changes on disk are ignored."""
    return set(ScriptDirectory.from_config(config()).get_heads())


def prepare() -> None:
    """Upgrade an SQLite database to the newest schema. For other databases, which may be shared, only check the schema.

    Raises:
        SystemExit: the database does not answer, or it is not SQLite and has another schema.
    """
    _expected_heads()
    try:
        if make_url(settings().database).get_backend_name() == "sqlite":
            upgrade()
        elif not is_current():
            sys.exit("The database does not have the schema of this version. Run 'make migrate' first.")
    except OperationalError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        sys.exit(f"The database does not answer: {reason}. Check DISTILL_DATABASE_URL.")


if __name__ == "__main__":
    upgrade()
