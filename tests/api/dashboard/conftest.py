from collections.abc import Iterator

import pytest

from api.access.scopes import SCOPES
from tests.api.dashboard.browsers import Browser, visitor_of
from tests.api.service import Service, User


@pytest.fixture
def owner(embedded: Service) -> Iterator[User]:
    """A user whose key has all scopes."""
    with embedded.user(scopes=list(SCOPES)) as user:
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
