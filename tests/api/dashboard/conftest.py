import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from api.access.scopes import SCOPES
from tests.api.dashboard.browsers import Browser, visitor_of
from tests.api.dashboard.tabs import FOLDER, PATIENCE_MILLISECONDS, Watched
from tests.api.service import Service, User


@pytest.fixture
def owner(embedded: Service) -> Iterator[User]:
    """A user whose key has all scopes."""
    with embedded.user(scopes=list(SCOPES)) as user:
        yield user


@pytest.fixture
def other_user(embedded: Service) -> Iterator[User]:
    """A user with another key."""
    with embedded.user() as user:
        yield user


@pytest.fixture
def visitor(owner: User) -> Browser:
    """A browser in which the owner has signed in."""
    return visitor_of(owner)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while Browser.opened:
        Browser.opened.pop().http.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    if not (FOLDER / "static" / "vendor" / "htmx.min.js").exists():
        pytest.skip("the dashboard's scripts are not installed: make setup")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE_MILLISECONDS)
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium: Any, embedded: Service, owner: User) -> Iterator[Watched]:
    """A tab in which the owner has signed in."""
    watched = Watched(chromium, embedded.url)
    watched.sign_in(owner.key)
    yield watched
    watched.close()
