"""What a process makes once is made once, also if several threads ask first."""

import threading

from models.made_once import MadeOnce


def test_threads_that_ask_at_the_same_time_get_one_object():
    entered, together = [], threading.Event()

    @MadeOnce
    def make():
        entered.append(threading.get_ident())
        together.wait(0.2)  # time for the other threads to come
        return object()

    found = []
    threads = [threading.Thread(target=lambda: found.append(make())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 1 and len(set(map(id, found))) == 1 and len(found) == 4
    make.cache_clear()
    assert make.cache_info().currsize == 0 and make() is not found[0]
