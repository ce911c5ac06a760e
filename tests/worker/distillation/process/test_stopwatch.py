"""Processor time as a limit that does not depend on the load of the machine."""

import time

from worker.distillation.process.stopwatch import WALL_SECONDS, Stopwatch


def test_counts_processor_time_and_at_least_a_tenth_of_the_clocks():
    processor, wall = 5.0, 100.0
    watch = Stopwatch(lambda: processor, lambda: wall)
    assert watch.seconds == 0
    processor, wall = 8.0, 100.0 + 3 * WALL_SECONDS - 1
    assert watch.seconds == 3
    wall = 100.0 + 4 * WALL_SECONDS
    assert watch.seconds == 4


def test_what_a_thread_computes_counts_in_full():
    watch, used = Stopwatch(), time.thread_time()
    while time.thread_time() < used + 0.05:
        pass
    assert watch.seconds >= 0.05
