"""What an event of the engine may hold. The engine is not trusted: what it names becomes keys, headers and rows."""

import re
from typing import Any

from worker.engine.engine_process import Event

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
CONTENT_TYPE = re.compile(r"[a-z0-9]+/[a-z0-9.+-]{1,100}")
SHA256 = re.compile(r"[0-9a-f]{64}")
STAGE_CHARACTERS = 255


class Malformed(ValueError):
    """The engine said something that the contract does not know."""


def step_of(value: Any) -> int:
    """A step, which is a number that every database takes.

    Raises:
        Malformed: it is none.
    """
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise Malformed(f"a step is {value!r}")
    return value


def stage_of(value: Any) -> str | None:
    """A stage's name, cut to what its column takes."""
    return None if value is None else str(value)[:STAGE_CHARACTERS]


def file_of(event: Event) -> tuple[str, str]:
    """The name and content type of an artifact or a preview.

    Raises:
        Malformed: they are none that a key or a header can hold.
    """
    name, content_type = event["name"], str(event["content_type"])
    if not FILE_NAME.fullmatch(name) or not CONTENT_TYPE.fullmatch(content_type):
        raise Malformed(f"the engine names a file {name!r} of type {content_type!r}")
    return name, content_type


def parts_of(manifest: dict[str, Any]) -> dict[str, int]:
    """The parts of a checkpoint: SHA-256 to size.

    Raises:
        Malformed: a part is not named by its SHA-256.
    """
    parts: dict[str, int] = {}
    for part in manifest["parts"].values():
        sha256, size = part["sha256"], part["size"]
        if not SHA256.fullmatch(sha256) or not isinstance(size, int):
            raise Malformed("a checkpoint's part is not named by its SHA-256")
        parts[sha256] = size
    return parts
