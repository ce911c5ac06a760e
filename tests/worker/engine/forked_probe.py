"""A command that prints its environment, in a fresh interpreter or forked; then it does what `job.json` says."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

script = json.loads(Path(sys.argv[1]).read_text())


def seen() -> dict[str, object]:
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "LC_CTYPE"},
        "folder": os.getcwd(),  # noqa: PTH109
        "arguments": sys.argv[1:],
        "leads_its_session": os.getsid(0) == os.getpid(),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],  # noqa: PTH208 - the last is the folder's
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "file_bytes": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "terminal": sys.stdin.isatty(),
        "main": sys.modules["__main__"].__file__,
        "safe_path": sys.flags.safe_path,
    }


child = subprocess.Popen(["sleep", "60"]).pid if "child" in script else None
print(json.dumps({"event": "log", **seen(), "pid": os.getpid(), "child": child, "chance": random.random()}), flush=True)
print("a word", file=sys.stderr, flush=True)
if "heard" in script:
    print(json.dumps({"event": "log", "heard": json.loads(sys.stdin.readline())}), flush=True)
if "hang" in script:
    time.sleep(60)
if "raise" in script:
    raise ValueError("on purpose")
sys.exit(script.get("code", 0))
