"""How Alembic reaches the database: one transaction for all revisions, and one process at a time."""

from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection, text

import models.records  # noqa: F401 - registers every table
from models.database import Record, engine

LOCK = 0x64697374696C
"""Of Postgres' advisory locks, the one that a migration holds."""


def migrate(connection: Connection) -> None:
    """Run the revisions that were asked for."""
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # a table that is copied and dropped must not take with it the rows that refer to it;
        # the pragma does nothing within a transaction, so it goes past SQLAlchemy, which would begin one
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
    with connection.begin():
        if not sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(
            connection=connection,
            target_metadata=Record.metadata,
            render_as_batch=True,
            transactional_ddl=True,
            compare_type=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        if sqlite and (broken := connection.execute(text("PRAGMA foreign_key_check")).all()):
            raise RuntimeError(f"the migration leaves rows that refer to nothing: {broken[:3]}")


def main() -> None:
    """Migrate the database of the settings."""
    if context.is_offline_mode():
        raise RuntimeError("migrations need a database to look at; run them without --sql")
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    with engine().connect() as connection:
        migrate(connection)
        connection.invalidate()  # its pragmas are not those of the other connections


main()
