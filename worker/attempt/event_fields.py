"""Validation of the fields of an engine's events. The engine is not trusted: its values become keys, headers and
rows."""

import re
from typing import Any

from worker.engine.engine_process import Event

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
CONTENT_TYPE = re.compile(r"[a-z0-9]+/[a-z0-9.+-]{1,100}")
SHA256 = re.compile(r"[0-9a-f]{64}")
STAGE_CHARACTERS = 255


class Malformed(ValueError):
    """An event does not follow the protocol."""


def step_of(value: Any) -> int:
    """A step: an integer from 0 to 2^31 - 1, which every database can store.

    Raises:
        Malformed: it is not.
    """
    if not isinstance(value, int) or not 0 <= value < 2**31:
        raise Malformed(f"a step must be an integer from 0 to {2**31 - 1}, not {value!r}")
    return value


def stage_of(value: Any) -> str | None:
    """The name of a stage, cut to the length of its column."""
    return None if value is None else str(value)[:STAGE_CHARACTERS]


def file_of(event: Event) -> tuple[str, str]:
    """The name and content type of an artifact or a preview.

    Raises:
        Malformed: they are not valid in a key or a header.
    """
    name, content_type = event["name"], str(event["content_type"])
    if not FILE_NAME.fullmatch(name) or not CONTENT_TYPE.fullmatch(content_type):
        raise Malformed(f"invalid file name {name!r} or content type {content_type!r}")
    return name, content_type


def parts_of(manifest: dict[str, Any]) -> dict[str, int]:
    """The parts of a checkpoint: SHA-256 to size.

    Raises:
        Malformed: the name of a part is not a SHA-256.
    """
    parts: dict[str, int] = {}
    for part in manifest["parts"].values():
        sha256, size = part["sha256"], part["size"]
        if not SHA256.fullmatch(sha256) or not isinstance(size, int):
            raise Malformed(f"the part {sha256!r} of {size!r} bytes must be named by its SHA-256")
        parts[sha256] = size
    return parts
