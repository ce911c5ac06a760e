"""Tabs of a real browser, and waiting for what they show."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "api" / "dashboard"
PATIENCE_MILLISECONDS = 90_000


class Watched:
    """A tab whose console errors, failed scripts and requests to other hosts are collected."""

    def __init__(self, browser: Any, url: str, **options: Any):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MILLISECONDS)
        self.url = url
        self.problems: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.on("request", self._on_request)

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.problems.append(f"request to {request.url}")

    def sign_in(self, key: str) -> None:
        self.page.goto(f"{self.url}/sign-in")
        self.page.fill("#key", key)
        self.page.click("main button")
        self.page.wait_for_url(f"{self.url}/")

    def close(self) -> None:
        """Close the tab.

        Raises:
            AssertionError: a page logged an error, or asked another host for something.
        """
        self.context.close()
        assert self.problems == []


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
