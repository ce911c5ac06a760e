"""When checkpoints are due, with a clock that the test controls."""

import pytest

from worker.distillation.trainer.checkpoint_timer import SHARE_OF_TIME, CheckpointTimer


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def save(timer, clock, took, done=0):
    """Save a checkpoint that takes `took` seconds."""
    with timer.saving(done):
        clock.now += took


def test_the_first_is_due_after_the_seconds(clock):
    timer = CheckpointTimer(30, clock)
    clock.now += 29.5
    assert not timer.due()
    clock.now += 0.5
    assert timer.due()


def test_the_next_is_due_its_interval_after_the_last_was_saved(clock):
    timer = CheckpointTimer(30, clock)
    clock.now += 50
    save(timer, clock, took=0.25)
    clock.now += 29.5
    assert not timer.due()
    clock.now += 0.5
    assert timer.due()


def test_checkpoints_take_no_more_than_their_share_of_the_time(clock):
    """Slow checkpoints, each saved as soon as it is due."""
    timer = CheckpointTimer(1, clock)
    clock.now += 1000
    began, saving = clock.now, 0.0
    for took in (2.0, 5.0, 3.0, 2.0):
        while not timer.due():
            clock.now += 0.5
        save(timer, clock, took)
        saving += took
    while not timer.due():
        clock.now += 0.5
    assert saving / (clock.now - began) <= SHARE_OF_TIME


def test_with_zero_seconds_one_is_due_after_every_step(clock):
    timer = CheckpointTimer(0, clock)
    for _ in range(3):
        assert timer.due()
        save(timer, clock, took=100.0)


def test_at_the_end_of_a_stage_one_is_due_if_the_last_is_old_and_there_is_progress_since(clock):
    timer = CheckpointTimer(30, clock)
    clock.now += 29
    assert not timer.due_at_end(done=5)
    clock.now += 1
    assert timer.due_at_end(done=5)
    save(timer, clock, took=10.0, done=5)
    clock.now += 30
    assert not timer.due()  # the last one took long
    assert not timer.due_at_end(done=5)
    assert timer.due_at_end(done=6)


def test_a_checkpoint_that_fails_does_not_count(clock):
    timer = CheckpointTimer(30, clock)
    clock.now += 40
    with pytest.raises(OSError, match="full"), timer.saving(done=1):
        raise OSError("the disk is full")
    assert timer.due() and timer.due_at_end(done=1)
