"""Checks of several specs by one engine, one after the other: to start and confine an engine takes longer than a check."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.distillation.check import check
from worker.distillation.failures import engine_error
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel


def check_each(job: Job, channel: Channel) -> None:
    """Check the specs of a job file of the kind `checks`, and send the event `result` after each of them.

    An exception that is a bug of the engine ends the engine: the specs without a result are checked by others.
    """
    for number, values in enumerate(job.values["checks"]):
        begins = {"event": "check_begins", "number": number, "job": values.get("job"), "request": values.get("request")}
        print(json.dumps(begins), file=sys.stderr, flush=True)
        channel.say("result", number=number, **_result(values, job.folder))


def _result(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    try:
        return {"facts": check(Job.of({**values, "kind": "check"}, folder))}
    except Exception as error:
        known = engine_error(error, "check")
        if known is None:
            raise
        return {"error": known.as_event()}
