"""Reads the files of a folder in order, and prints a line of JSON for each: the result, seconds and megabytes.

`python measured_reading.py FOLDER`; run in a separate process with a memory limit.
"""

import json
import resource
import sys
import time
from pathlib import Path

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.state_dicts import read_state_dict

MEGABYTE = 1024
"""In kilobytes, the unit of `ru_maxrss` on Linux."""


def measured(path: Path) -> dict[str, object]:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        state = read_state_dict(path, UploadLimits())
        found: dict[str, object] = {"names": list(state)[:3], "count": len(state)}
        found["first"] = next(iter(state.values())).flatten()[:4].tolist()
    except UploadError as error:
        found = {"refused": error.message, "hint": error.hint}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found | {"seconds": time.process_time() - start, "megabytes": (after - before) / MEGABYTE}


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    for file in sorted(Path(folder).iterdir(), key=lambda each: each.stat().st_size):
        print(json.dumps({"file": file.name} | measured(file)), flush=True)
