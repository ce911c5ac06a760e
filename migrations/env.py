"""Alembic's environment: all revisions in one transaction, one process at a time."""

from logging.config import fileConfig

from alembic import context
from sqlalchemy import Connection, text

import models.records  # noqa: F401 - registers every table
from models.database import Record, engine

LOCK = 0x64697374696C
"""Key of the Postgres advisory lock that a migration holds."""


def migrate(connection: Connection) -> None:
    """Run the requested revisions."""
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # when a table is copied and dropped, the rows that refer to it must not be deleted;
        # the pragma has no effect in a transaction, so it bypasses SQLAlchemy, which would begin one
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
            raise RuntimeError(f"the migration leaves rows with dangling foreign keys: {broken[:3]}")


def main() -> None:
    """Migrate the database of the settings."""
    if context.is_offline_mode():
        raise RuntimeError("migrations read the database: run them without --sql")
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    with engine().connect() as connection:
        migrate(connection)
        connection.invalidate()  # its pragmas differ from those of the other connections


main()
