"""One sentence instead of a traceback, if a process cannot start for a reason that its operator can change."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from models.settings import Settings
from models.storage.errors import StorageError

UNUSABLE = 2
"""Exit code of a process that cannot start."""


class CannotStart(Exception):
    """A process cannot start; the message says why and what to do."""


@contextmanager
def explained() -> Iterator[None]:
    """Print one sentence and exit with code 2 if the settings, the database, the storage or a folder cannot be used."""
    try:
        yield
    except CannotStart as error:
        _exit(str(error))
    except (ValidationError, SettingsError) as error:
        _exit(f"The settings are not valid: {_settings_errors(error)}")
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        _exit(f"The database cannot be used: {_first_line(error)}. Check DISTILL_DATABASE_URL.")
    except DatabaseError as error:
        _exit(f"The database cannot be used: {_first_line(error.orig or error)}. Check DISTILL_DATABASE_URL.")
    except StorageError as error:
        _exit(f"The storage cannot be used: {_first_line(error)}. Check DISTILL_STORAGE_URL.")
    except OSError as error:
        _exit(f"A folder cannot be used: {_first_line(error)}. Check DISTILL_DATA and the rights of this user.")


def _settings_errors(error: ValidationError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        return f"{_first_line(error)}."
    prefix = Settings.model_config["env_prefix"]
    found = []
    for one in error.errors():
        name = f"{prefix}{one['loc'][0]}".upper() + ": " if one["loc"] else ""
        found.append(f"{name}{one['msg'].removeprefix('Value error, ')}")
    return f"{'; '.join(found)}."


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _exit(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(UNUSABLE)
