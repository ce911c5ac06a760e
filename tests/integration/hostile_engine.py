"""The engine with hostile code in its process, which starts as soon as the engine has confined itself.

It simulates an upload that has taken over the process. It reports its findings as the message of an error, and ends.
"""

import json
import sys
from pathlib import Path

from tests.integration.hostile import attack
from worker.distillation import __main__ as engine
from worker.distillation.process.event_pipe import Channel
from worker.distillation.sandbox import enter


def enter_and_attack(job_file: Path, channel: Channel) -> bool:
    values = json.loads(job_file.read_text())
    targets = values["spec"]["labels"]["script"] if "spec" in values else values["options"]["targets"]
    if enter(job_file, channel):
        found = json.dumps(attack(json.loads(targets)))
        channel.say("error", fault="user", code="hostile", message=found, hint="", errors=[])
    return False


engine.enter = enter_and_attack
if __name__ == "__main__":
    sys.exit(engine.main())
