"""Results of a run: JSON lines that are written as they come, and a clock that says what can still be started."""

import json
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROWS = "rows.jsonl"


@dataclass
class Clock:
    """Ends after a number of minutes."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds left."""
        return 60 * self.minutes - (time.monotonic() - self.began)


@dataclass
class Runs:
    """The results in a folder. `earlier` is a folder that an earlier run returned: its rows are not measured again, and its other
    files are copied where they are missing."""

    folder: Path
    clock: Clock
    earlier: Path | None = None
    tiny: bool = False
    device: str = "cuda"
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.earlier is not None and self.earlier.is_dir():
            for path in self.earlier.rglob("*"):
                target = self.folder / path.relative_to(self.earlier)
                if path.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, target)
        path = self.folder / ROWS
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines if line.endswith("}")]

    def found(self, part: str, name: str) -> dict[str, Any] | None:
        """The result of a step that has succeeded, in this run or an earlier one."""
        return next(
            (row for row in self.rows if (row["part"], row["name"]) == (part, name) and "error" not in row), None
        )

    def once(self, part: str, name: str, seconds: float, action: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Run a step that takes about so many seconds, unless it has succeeded before or too little time is left; an exception is a
        result too. Returns the step's result, if it has succeeded."""
        if (row := self.found(part, name)) is not None:
            return row
        if self.clock.left() < (0 if self.tiny else seconds):
            print(json.dumps({"part": part, "name": name, "skipped": f"{self.clock.left():.0f} s left"}), flush=True)
            return None
        began = time.monotonic()
        try:
            result = action()
        except Exception as error:  # noqa: BLE001 - one failed step must not end a run on a machine that is lent for minutes
            result = {"error": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-4000:]}
        row = {"part": part, "name": name, "took": round(time.monotonic() - began, 1), **result}
        self._keep(row)
        return None if "error" in row else row

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with (self.folder / ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        shown = {key: value for key, value in row.items() if key not in ("trace", "profile")}
        print(json.dumps(shown)[:600], flush=True)

    def failed(self) -> int:
        """Number of steps without a success."""
        return len(
            {
                (row["part"], row["name"])
                for row in self.rows
                if "error" in row and not self.found(row["part"], row["name"])
            }
        )
