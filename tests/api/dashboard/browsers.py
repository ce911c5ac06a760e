"""A browser without scripts: an HTTP client that signs in, keeps its cookie and fills in forms."""

import re
from typing import Any, ClassVar

import httpx

from tests.api.service import Service, User


class Browser:
    """A visitor of the dashboard. Every test ends by closing its browsers."""

    opened: ClassVar[list["Browser"]] = []

    def __init__(self, service: Service):
        self.opened.append(self)
        self.service = service
        self.http = httpx.Client(base_url=service.url, timeout=60, trust_env=False, headers={"Origin": service.url})

    def sign_in(self, key: str) -> httpx.Response:
        """Fill in the form with a key."""
        page = self.http.get("/sign-in")
        return self.http.post("/sign-in", data={"form_token": token_of(page.text), "key": key, "next": "/"})

    def get(self, path: str, **values: Any) -> httpx.Response:
        return self.http.get(path, **values)

    def post(self, path: str, data: dict[str, str] | None = None, **values: Any) -> httpx.Response:
        """Send a form with the token of the session."""
        return self.http.post(path, data={"form_token": self.token} | (data or {}), **values)

    @property
    def token(self) -> str:
        return token_of(self.http.get("/keys").text)


def token_of(page: str) -> str:
    """The form token of a page."""
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert found, page
    return found[1]


def visitor_of(user: User) -> Browser:
    """A browser that has signed in with a user's key."""
    browser = Browser(user.service)
    assert browser.sign_in(user.key).status_code == 303
    return browser
