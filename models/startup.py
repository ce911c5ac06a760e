"""The start of a process."""

import os

from models import migrate
from models.cannot_start import CannotStart, explained
from models.settings import settings
from models.storage.opening import storage


def prepare() -> None:
    """Read the settings, migrate or check the database, and open the storage. New files are hidden from other users.

    Raises:
        SystemExit: one of them cannot be used; the exit code is 2.
    """
    os.umask(os.umask(0o077) | 0o007)  # the group keeps the rights that the operator gives it
    with explained():
        settings()
        migrate.prepare()
        try:
            storage()
        except ValueError as error:
            raise CannotStart(f"DISTILL_STORAGE_URL is not valid: {error}.") from error
