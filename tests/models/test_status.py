"""Which states follow which."""

import pytest

from models.status import TRANSITIONS, JobStatus, sources_of

FINAL = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


@pytest.mark.parametrize("status", JobStatus)
def test_what_is_final_stays(status: JobStatus) -> None:
    assert status.final == (status in FINAL)
    assert status not in TRANSITIONS[status]


def test_every_state_can_be_reached_and_left_for_a_final_one() -> None:
    reached, front = {JobStatus.QUEUED}, {JobStatus.QUEUED}
    while front:
        front = {target for status in front for target in TRANSITIONS[status]} - reached
        reached |= front
    assert reached == set(JobStatus)
    assert all(TRANSITIONS[status] & FINAL for status in JobStatus if not status.final)


def test_a_job_succeeds_only_by_running() -> None:
    assert sources_of(JobStatus.SUCCEEDED) == (JobStatus.RUNNING,)
    assert sources_of(JobStatus.RUNNING) == (JobStatus.QUEUED,)
    assert sources_of(JobStatus.QUEUED) == (JobStatus.RUNNING,)


@pytest.mark.parametrize("target", JobStatus)
def test_sources_are_transitions_read_backwards(target: JobStatus) -> None:
    assert {status for status in JobStatus if target in TRANSITIONS[status]} == set(sources_of(target))
