"""Migrating the database to the newest schema.

`make migrate` runs it by hand, the embedded service at every start. Any number of processes may run it concurrently.
"""

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url

from models.cannot_start import CannotStart, explained
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
    return _current_heads() == _expected_heads()


def _current_heads() -> set[str]:
    with engine().execution_options(reading=True).connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads())


@lru_cache(maxsize=1)
def _expected_heads() -> set[str]:
    """The newest revisions of this version. Cached at the start of the process, so that later changes on disk are ignored."""
    return set(ScriptDirectory.from_config(config()).get_heads())


def prepare() -> None:
    """Upgrade an SQLite database to the newest schema. For other databases, which may be shared, only check the schema.

    Raises:
        CannotStart: the database is not SQLite and has an older schema, or it has one of a newer version.
    """
    _expected_heads()
    _require_known_schema()
    if make_url(settings().database).get_backend_name() == "sqlite":
        upgrade()
    elif not is_current():
        raise CannotStart("The database does not have the schema of this version. Run 'make migrate' first.")


def _require_known_schema() -> None:
    newer = _current_heads() - {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if newer:
        raise CannotStart(
            f"The database has the schema of a newer version ({', '.join(sorted(newer))}). Start that version, or restore a"
            " backup from before its migration."
        )


def main() -> None:
    """Upgrade the database of the settings to the newest schema."""
    with explained():
        _require_known_schema()
        upgrade()


if __name__ == "__main__":
    main()
