"""Errors of storage.

StorageError            an operation on a blob failed
├── NotFound            there is no blob with this key
├── Exists              a create-only write found a blob with this key
├── TooLarge            a stream is longer than its limit
├── Damaged             the bytes do not have the recorded SHA-256
└── Unavailable         the storage does not respond, or refuses access
    └── Full            the storage is full
"""

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError

NO_ROOM = ("os error 28", "No space left on device", "507 Insufficient Storage")
"""Parts of the messages of a disk or an S3 server that is full."""


class StorageError(Exception):
    """An operation on a blob failed."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class NotFound(StorageError):
    """There is no blob with this key."""


class Exists(StorageError):
    """A create-only write found a blob with this key."""


class TooLarge(StorageError):
    """A stream is longer than its limit."""

    def __init__(self, key: str, limit: int):
        super().__init__(key, f"larger than the allowed {limit} bytes")
        self.limit = limit


class Damaged(StorageError):
    """The bytes do not have the recorded SHA-256."""


class Unavailable(StorageError):
    """The storage does not respond, or refuses access."""


class Full(Unavailable):
    """The storage is full."""


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Raise obstore's errors as ours. An `OSError` comes from the data being written, and is not translated."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(key, "there is no such blob") from error
    except AlreadyExistsError as error:
        raise Exists(key, "the blob exists already") from error
    except BaseError as error:
        message = str(error).partition("\n")[0]
        full = any(words in str(error) for words in NO_ROOM)
        raise (Full if full else Unavailable)(key, message) from error
