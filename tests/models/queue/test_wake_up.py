"""Wake-up messages, with and without an available broker."""

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from models.queue.wake_up import KINDS, WAKE_UP, Kind, app, wake_up

ROOT = Path(__file__).parents[3]
Configure = Callable[..., Any]


@pytest.fixture(params=["filesystem", "redis"])
def broker(request: pytest.FixtureRequest, configure: Configure) -> str:
    url = "" if request.param == "filesystem" else request.getfixturevalue("redis_url")
    configure(broker_url=url)
    return str(request.param)


def received(kind: Kind) -> list[Any]:
    """The messages in a queue."""
    found = []
    with app().connection_for_read() as connection:
        waiting = connection.SimpleQueue(kind, no_ack=True)
        try:
            while True:
                found.append(waiting.get(timeout=0.5))
        except Empty:
            return found
        finally:
            waiting.close()


def test_messages_arrive_in_their_own_queue(broker: str) -> None:
    assert wake_up("inspect")
    assert wake_up("distill", 3)
    distill, inspect = received("distill"), received("inspect")
    assert (len(distill), len(inspect)) == (3, 1)
    for message in [*distill, *inspect]:
        assert message.headers["task"] == WAKE_UP
        assert message.content_type == "application/json"
        arguments, keywords, _ = message.payload
        assert (arguments, keywords) == ([], {})


def test_a_count_of_zero_sends_nothing(broker: str) -> None:
    assert wake_up("distill", 0)
    assert received("distill") == []


def test_an_unavailable_broker_fails_at_once_without_raising(configure: Configure) -> None:
    configure(broker_url="redis://127.0.0.1:1/0")
    wake_up("distill")  # imports the transport
    begin = time.monotonic()
    assert not wake_up("distill")
    assert time.monotonic() - begin < 2


def test_a_folder_that_cannot_be_written_raises_nothing(configure: Configure, tmp_path: Path) -> None:
    configure(data=tmp_path)
    assert wake_up("distill")
    messages = tmp_path / "queue" / "messages"
    for message in messages.iterdir():
        message.unlink()
    messages.rmdir()
    messages.write_text("not a folder")
    assert not wake_up("distill")


def test_the_embedded_queue_is_in_the_data_folder(configure: Configure, tmp_path: Path) -> None:
    configure(data=tmp_path)
    wake_up("inspect")
    [message] = (tmp_path / "queue" / "messages").iterdir()
    assert json.loads(message.read_text())["headers"]["task"] == WAKE_UP
    assert message.name.endswith(".inspect.msg")


def test_a_worker_acknowledges_early_and_holds_one_message(broker: str) -> None:
    conf = app().conf
    assert conf.task_acks_late is False
    assert conf.worker_prefetch_multiplier == 1
    assert conf.worker_disable_prefetch is (broker == "redis")
    assert conf.broker_connection_max_retries is None
    assert conf.accept_content == ["json"]
    assert conf.result_backend is None


def test_there_are_two_queues() -> None:
    assert KINDS == ("distill", "inspect")


def send_many(times: int) -> bool:
    return all(wake_up("distill") for _ in range(times))


def receive_many(wanted: int) -> int:
    """Read messages until none arrives for a while; raises the errors of reading an incomplete message."""
    count, silent = 0, 0
    with app().connection_for_read() as connection:
        waiting = connection.SimpleQueue("distill", no_ack=True)
        while count < wanted and silent < 100:
            try:
                waiting.get(timeout=0.1)
                count, silent = count + 1, 0
            except Empty:
                silent += 1
        waiting.close()
    return count


def test_readers_of_the_embedded_queue_never_see_an_incomplete_message(configure: Configure, tmp_path: Path) -> None:
    configure(data=tmp_path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ringing = pool.starmap_async(send_many, [(300,), (300,)])
        assert receive_many(600) == 600
        assert ringing.get(30) == [True, True]
    assert [path for path in (tmp_path / "queue").rglob("*") if path.suffix in (".msg", ".part")] == []


def test_the_embedded_queue_answers_inspection(configure: Configure, tmp_path: Path) -> None:
    configure(data=tmp_path)
    code = "from models.queue.wake_up import app; app().worker_main(['worker', '-Q', 'inspect', '-n', 'one@here', '-l', 'WARNING'])"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 60
        while not (answer := app().control.ping(timeout=1.0)) and time.monotonic() < give_up:
            assert worker.poll() is None
        assert answer == [{"one@here": {"ok": "pong"}}]
    finally:
        worker.kill()
        worker.wait()
