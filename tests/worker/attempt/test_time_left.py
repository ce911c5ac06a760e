"""The estimate of a run's remaining time."""

import pytest

from worker.attempt.time_left import Pace


def test_the_estimate_is_exact_for_a_constant_speed() -> None:
    at = 0.0
    pace = Pace(lambda: at)
    assert pace.seconds_left(0.0) is None and pace.seconds_left(None) is None
    for at in range(1, 1000, 3):
        left = pace.seconds_left(at / 1000)
    assert left == pytest.approx(1000 - at, rel=0.01)


def test_only_the_last_minutes_count() -> None:
    at, fraction = 0.0, 0.0
    pace = Pace(lambda: at)
    for step in range(2000):  # the second half is ten times as fast
        at, fraction = at + 1, fraction + (0.0005 if step < 1000 else 0.005 if fraction < 0.9 else 0.0)
        left = pace.seconds_left(fraction)
        if step == 1070:
            assert left is not None and 10 < left < 60
    assert left is None  # no progress
