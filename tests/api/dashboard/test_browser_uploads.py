"""Sending a large file from the page, through a connection that breaks."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from models.records import Dataset
from tests.api.dashboard.tabs import Watched, until
from tests.api.service import Service, User
from tests.chaos.proxy import Proxy

RANGE_BYTES, SIZE = 1 << 18, 4 * 2**20
FORM = 'form[data-create="/uploads/datasets"]'


@pytest.fixture
def proxy(embedded: Service) -> Iterator[Proxy]:
    """A way to the service that can break."""
    with Proxy("127.0.0.1", urlsplit(embedded.url).port or 0, latency=0.05) as proxy:
        yield proxy


def choose(page: Any, url: str, path: Path) -> None:
    """Open the page, with small ranges, and choose a file."""
    page.goto(f"{url}/uploads")
    page.eval_on_selector(FORM, f"form => form.setAttribute('data-range', {RANGE_BYTES})")
    page.locator(f"{FORM} input[type=file]").set_input_files(path)


def sent(user: User) -> Dataset | None:
    with user.service.rows() as session:
        found: Dataset | None = session.scalars(select(Dataset).where(Dataset.key_id == user.key_id)).one_or_none()
        return found


def received(user: User) -> int:
    row = sent(user)
    return sum(part["size"] for part in row.upload_parts or []) if row else 0


@pytest.mark.slow
def test_a_file_goes_on_after_a_broken_connection_and_after_a_reload(
    chromium: Any, owner: User, proxy: Proxy, tmp_path: Path
) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(os.urandom(SIZE))
    watched = Watched(chromium, f"http://127.0.0.1:{proxy.port}")
    watched.sign_in(owner.key)
    page = watched.page
    choose(page, watched.url, path)
    page.fill(f"{FORM} [name=name]", "in parts")
    proxy.set("slow")
    page.click(f"{FORM} button")
    until(lambda: received(owner) >= 2 * RANGE_BYTES, "nothing is sent")
    proxy.set("refusing")
    page.wait_for_selector("text=The connection broke. Going on in")
    before = received(owner)
    assert before < SIZE
    proxy.set("slow")
    until(lambda: received(owner) > before, "it does not go on by itself")
    proxy.set("open")

    choose(page, watched.url, path)
    before = received(owner)
    assert before < SIZE
    page.wait_for_selector("text=This file was not sent to its end")
    assert page.input_value(f"{FORM} [name=name]") == "in parts"
    page.click(f"{FORM} button")
    page.wait_for_url(f"{watched.url}/uploads/dts_*")
    row = sent(owner)
    assert row is not None and (row.name, row.size, row.status) == ("in parts", SIZE, "inspecting")
    parts = [b"".join(owner.service.storage.get(part["key"])) for part in row.upload_parts or []]
    assert b"".join(parts) == path.read_bytes() and len(parts) == SIZE // RANGE_BYTES
    assert page.evaluate("localStorage.getItem('distillery-uploads')") == "{}"
    watched.problems = [problem for problem in watched.problems if "net::ERR" not in problem]
    watched.close()
