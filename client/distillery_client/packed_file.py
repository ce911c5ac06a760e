"""What a packed network's file says of itself, read from its header alone: without torch or safetensors."""

import json
from pathlib import Path
from typing import Any

PROGRAM = "program"
"""What the service calls the network of a file that brings its own."""
HEADER_BYTES = 64 * 2**20


def packed_program(file: Path) -> dict[str, Any] | None:
    """The program of a packed network's file; None if the file is none."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, file.stat().st_size):
            return None
        text = opened.read(length)
    try:
        program = json.loads(json.loads(text)["__metadata__"][PROGRAM])
    except (ValueError, KeyError, TypeError):
        return None
    return program if isinstance(program, dict) and {"classes", "class_names", "input"} <= program.keys() else None


def teacher_spec(program: dict[str, Any]) -> dict[str, Any]:
    """The body of a POST for a teacher that this program is."""
    return {"network": PROGRAM} | {name: program[name] for name in ("classes", "class_names", "input")}
