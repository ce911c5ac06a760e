"""What a run does after a step, depending on the worker's request."""

import io

import pytest

from tests.worker.distillation.killed_runs import events_of
from worker.distillation.distributed.ranks import ALONE
from worker.distillation.process.event_pipe import Channel
from worker.distillation.trainer import worker_requests
from worker.distillation.trainer.worker_requests import Stopped, WorkerRequests


@pytest.fixture
def requests():
    return WorkerRequests(Channel(io.StringIO()), ALONE)


def test_a_checkpoint_is_saved_when_it_is_due(requests):
    assert requests.action(checkpoint_due=False) is None
    assert requests.action(checkpoint_due=True) == "checkpoint"


@pytest.mark.parametrize("due", [False, True])
def test_a_request_of_the_worker_has_priority_over_a_checkpoint(due, requests):
    requests.channel.request = "drain"
    assert requests.action(checkpoint_due=due) == "drain"
    requests.channel.request = "cancel"
    with pytest.raises(Stopped, match="cancel"):
        requests.action(checkpoint_due=due)


def test_long_work_is_cancelled_at_once_and_drained_only_after_it(requests):
    requests.channel.request = "drain"
    requests.pulse()
    requests.channel.request = "cancel"
    with pytest.raises(Stopped, match="cancel"):
        requests.pulse()


def test_long_work_sends_alive_events_regularly(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(worker_requests.time, "monotonic", lambda: now[0])
    output = io.StringIO()
    requests = WorkerRequests(Channel(output), ALONE)
    counts = []
    for second in (100.0, 109.5, 110.0, 119.5, 120.0):
        now[0] = second
        requests.pulse()
        counts.append(len(events_of(output)))
    assert counts == [0, 0, 1, 1, 2]
    assert {event["event"] for event in events_of(output)} == {"alive"}
