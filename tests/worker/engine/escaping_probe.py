"""A command that leaves a process behind: in a session of its own, without a parent, and with the command's pipes open."""

import json
import os
import sys
import time
from pathlib import Path

script = json.loads(Path(sys.argv[1]).read_text())
first = os.fork()
if first == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        Path("escaped.part").write_text(str(os.getpid()))
        Path("escaped.part").rename("escaped")
        for _ in range(1200):  # a minute, if nobody ends it
            time.sleep(0.05)
            if script.get("chatty"):
                os.write(1, b"still here\n")
    os._exit(0)
os.waitpid(first, 0)
while not Path("escaped").exists():
    time.sleep(0.01)
print(json.dumps({"event": "log", "message": "escaped"}), flush=True)
if script.get("hang"):
    time.sleep(60)
print(json.dumps({"event": "done"}), flush=True)
