"""The outages of the embedded set have the effects that they claim."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.queue.wake_up import KINDS, app, wake_up
from models.settings import Settings
from models.storage.blobs import Storage
from models.storage.errors import Unavailable
from models.storage.opening import open_storage
from tests.chaos.sets import Embedded


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can exchange two names atomically")
def test_a_folder_that_refuses_is_unavailable_not_empty(tmp_path: Path) -> None:
    parts = Embedded(tmp_path)
    with parts:
        settings = Settings(_env_file=None, data=parts.data("api"))
        storage = open_storage(settings)
        storage.put("jobs/a/student", b"weights")
        parts.set_mode("storage", "refusing")
        for act in _uses(storage, tmp_path):
            with pytest.raises(Unavailable):
                act()
        parts.set_mode("storage", "open")
        assert storage.size("jobs/a/student") == 7
        parts.set_mode("storage", "open")
        assert storage.size("jobs/a/student") == 7


def _uses(storage: Storage, folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: storage.size("jobs/a/student"),
        lambda: storage.put("jobs/a/report", b"{}"),
        lambda: storage.put("jobs/a/report", b"{}", create_only=True),
        lambda: storage.download("jobs/a/student", folder / "student"),
        lambda: list(storage.list("jobs")),
    ]


def test_messages_of_the_folder_are_tripled_and_deleted(tmp_path: Path, configure: Callable[..., Any]) -> None:
    parts = Embedded(tmp_path)
    with parts:
        configure(data=parts.data("api"))
        assert wake_up("distill") and wake_up("inspect")
        assert parts.triple_messages() == 2
        with app().connection_for_read() as connection:
            for kind in KINDS:
                with connection.SimpleQueue(kind) as queue:
                    for _ in range(3):
                        queue.get(timeout=5).ack()
        assert parts.delete_messages() == 0
        wake_up("distill", 3)
        assert parts.delete_messages() == 3 and parts.triple_messages() == 0
