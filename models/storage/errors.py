"""What can go wrong with a blob.

StorageError            something about a blob went wrong
├── NotFound            there is no blob of this key
├── Exists              a create-only write found one
├── TooLarge            a stream went past its limit
├── Damaged             the bytes are not those whose SHA-256 was recorded
└── Unavailable         the store does not answer, or refuses us
    └── Full            there is no room left
"""

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError

NO_ROOM = ("os error 28", "No space left on device", "507 Insufficient Storage")
"""What a disk or an S3 server says when it has no room."""


class StorageError(Exception):
    """Something about a blob went wrong."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}")
        self.key, self.message = key, message


class NotFound(StorageError):
    """There is no blob of this key."""


class Exists(StorageError):
    """A create-only write found a blob of this key."""


class TooLarge(StorageError):
    """A stream went past its limit."""

    def __init__(self, key: str, limit: int):
        super().__init__(key, f"larger than the {limit} bytes that are allowed")
        self.limit = limit


class Damaged(StorageError):
    """The bytes are not those whose SHA-256 was recorded."""


class Unavailable(StorageError):
    """The store does not answer, or refuses us."""


class Full(Unavailable):
    """There is no room left in the store."""


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Raise obstore's errors as ours. An `OSError` is the sender's own, and stays."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(key, "there is no such blob") from error
    except AlreadyExistsError as error:
        raise Exists(key, "there is one already") from error
    except BaseError as error:
        message = str(error).partition("\n")[0]
        full = any(words in str(error) for words in NO_ROOM)
        raise (Full if full else Unavailable)(key, message) from error
