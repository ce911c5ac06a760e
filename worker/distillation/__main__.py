"""The engine's command: `python -m worker.distillation JOB.json [--check]`."""

import argparse
import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from worker.distillation.distributed.rank_processes import REFUSED, Place, RankProcesses, ranks_wanted
from worker.distillation.process.event_pipe import Channel, RankChannel, claim_standard_output, die_with_parent
from worker.distillation.process.memory import die_first, limit_memory
from worker.distillation.sandbox import enter, stay_hidden

STOPPED = 4


def main() -> int:
    """Run a job file. The exit code is 0, 3 after an event `error`, or 4 after an event `stopped`."""
    parser = argparse.ArgumentParser(prog="python -m worker.distillation", description=main.__doc__)
    parser.add_argument("job", type=Path, help="the job file (docs/architecture.md describes its format)")
    parser.add_argument(
        "--check", action="store_true", help="check the spec only: build all networks on the meta device"
    )
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)  # rank 0 passes these to other ranks
    parser.add_argument("--rendezvous", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # spinning OpenMP threads make training about ten times slower if other processes use the same cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    output = claim_standard_output()
    # importing torch takes long, so register first that the engine dies with its worker
    die_with_parent()
    die_first()
    size = 1 if arguments.check else ranks_wanted(arguments.job)
    if arguments.rank:  # this process has inherited rank 0's sandbox and network
        return run_as_rank(arguments.job, Place(arguments.rank, size, arguments.rendezvous), output)
    if not enter(arguments.job, Channel(output)):
        return REFUSED
    others = RankProcesses(arguments.job, size) if size > 1 else None

    from worker.distillation.errors import SpecError
    from worker.distillation.job import Job

    try:
        job = Job.read(arguments.job)
    except SpecError as error:
        Channel(output).say(**error.as_event())
        return REFUSED
    if arguments.check:
        job = replace(job, values={**job.values, "kind": "check"})
    # a terminal sends no commands, and reading it would stop an engine that runs in the background
    commands = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin
    log_start(job)
    channel = Channel(output, job.values.get("silence_seconds"), commands)
    return run_job(job, channel) if others is None else run_as_leader(others, job, channel)


def log_start(job: Any) -> None:
    """Write the ids of the job and the attempt as the first line of the log."""
    known = {name: job.values.get(name) for name in ("kind", "job", "attempt", "request")}
    print(json.dumps({"event": "engine_begins", **known}), file=sys.stderr, flush=True)


def run_as_leader(others: RankProcesses, job: Any, channel: Channel) -> int:
    """Run as rank 0 of several; return the exit code."""
    others.watch(channel, job.values.get("silence_seconds"))
    try:
        return run_job(job, channel, others.place)
    except RuntimeError:
        traceback.print_exc()
        others.await_failed_rank()
        raise
    finally:
        others.close()


def run_as_rank(job_file: Path, place: Place, output: TextIO) -> int:
    """Run as a rank other than 0; return the exit code."""
    stay_hidden(job_file)

    from worker.distillation.job import Job

    job = Job.read(job_file)
    return run_job(job, RankChannel(output, job.values.get("silence_seconds"), sys.stdin), place)


def run_job(job: Any, channel: Channel, place: Place | None = None) -> int:
    """Run a job (`place` is set if there are several ranks), send its final event, and return the exit code."""
    from worker.distillation.failures import engine_error
    from worker.distillation.trainer.worker_requests import Stopped

    try:
        event, fields = perform(job, channel, place)
        channel.say(event, **fields)
        return 0
    except Stopped as stopped:
        channel.say("stopped", reason=stopped.reason)
        return STOPPED
    except Exception as error:
        known = engine_error(error, job.kind)
        if known is None:
            raise
        traceback.print_exc()
        channel.say(**known.as_event())
    return REFUSED


def perform(job: Any, channel: Channel, place: Place | None) -> tuple[str, dict[str, Any]]:
    """Run the kind of work that the job file names; return the final event and its fields."""
    import torch

    from worker.distillation.check import check
    from worker.distillation.distributed.ranks import ALONE, join
    from worker.distillation.process.heartbeat import heard_by
    from worker.distillation.run import Run
    from worker.distillation.several_checks import check_each
    from worker.distillation.trainer.worker_requests import WorkerRequests
    from worker.distillation.uploads.inspect_upload import inspect

    if (allowed := job.values.get("memory_bytes")) is not None:
        limit_memory(allowed)  # torch is imported: what it has allocated does not count
    threads = job.values.get("threads") or (place and torch.get_num_threads())
    if threads:
        torch.set_num_threads(max(1, threads // place.size) if place else threads)
    if job.kind == "check":
        return "checked", {"facts": check(job)}
    if job.kind == "checks":
        check_each(job, channel)
        return "checked", {"facts": {}}
    if job.kind == "distill":
        ranks = join(place.rank, place.size, job.folder / place.rendezvous, job.device()) if place else ALONE
        run = Run(job, channel, ranks)
        return "done", {"summary": run.execute(), "student": run.artifacts.published}
    with heard_by(WorkerRequests(channel, ALONE).pulse):
        found = inspect(dict(job.values), job.folder)
    return "findings", found


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a normal exit could block on locks of daemon threads; all output is flushed
