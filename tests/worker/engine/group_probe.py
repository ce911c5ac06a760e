"""A worker without rights in a folder of cgroup v2 that root gives it: ends a group whose processes have left their session."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from worker.engine.cgroup import Group

USER = 10001
LEAVING = "read go; setsid sh -c 'sleep 61 & setsid sleep 60 & echo; wait' & wait"

folder, own = Path(sys.argv[1]), Path(sys.argv[1], "worker")
own.mkdir()
for path in (folder, folder / "cgroup.procs", own, own / "cgroup.procs"):
    os.chown(path, USER, USER)
(own / "cgroup.procs").write_text(str(os.getpid()))
os.setgroups([])
os.setgid(USER)
os.setuid(USER)
group = Group(folder / "engine-probe")
group.path.mkdir()
with subprocess.Popen(["sh", "-c", LEAVING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
    assert first.stdin and first.stdout
    group.add(first.pid)
    first.stdin.write(b"\n")
    first.stdin.flush()
    first.stdout.readline()
    time.sleep(0.2)
    held = [int(pid) for pid in (group.path / "cgroup.procs").read_text().split()]
    group.end()
    print(json.dumps({"held": held, "removed": not group.path.exists()}), flush=True)
    first.kill()
