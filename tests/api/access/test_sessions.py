"""Sessions of browsers, in one process."""

import pytest
from sqlalchemy import update

import api.access.sessions as sessions
from api.access.auth import Caller, hash_key
from api.access.known_keys import KNOWN_SECONDS, KnownKeys
from api.dashboard.shared_pages import FRESH_SECONDS
from api.health.metrics import QUERIES
from api.http.paging import Window
from api.http.row_watch import token_of
from api.jobs.overview import job_now, lines
from models.database import transaction
from models.records import BrowserSession, Job, Key

CALLER = Caller("key_1", frozenset({"jobs:read"}), None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, migrated_sqlite: str) -> list[float]:
    """A clock that the test moves; a database with one key."""
    at = [0.0]
    monkeypatch.setattr(sessions, "_known", KnownKeys(lambda: at[0]))
    monkeypatch.setattr(sessions, "_used", {})
    with transaction() as session:
        session.add(Key(id="key_1", name="mine", hash=hash_key("dsk_x"), scopes=["jobs:read"]))
    return at


def statements() -> float:
    return float(QUERIES._value.get())


def test_many_browsers_that_poll_cost_one_statement_a_second(clock: list[float]) -> None:
    tokens = [sessions.open_session(CALLER) for _ in range(50)]
    for token in tokens:
        assert sessions.session_caller(token)
    for _ in range(3):
        clock[0] += KNOWN_SECONDS + 0.01
        before = statements()
        found = [sessions.session_caller(token) for token in tokens]
        assert all(one is not None and one[1] == "mine" and one[0].key_id == "key_1" for one in found)
        assert statements() - before == 2  # SQLite counts BEGIN as well


def test_an_unknown_cookie_is_not_read_again_with_others(clock: list[float]) -> None:
    token = sessions.open_session(CALLER)
    for number in range(20):
        assert sessions.session_caller(f"unknown {number}") is None
    assert sessions.session_caller(token)
    assert list(sessions._used) == [sessions._hash(token)]


def test_a_session_read_with_others_ends_all_the_same(clock: list[float]) -> None:
    gone, kept = sessions.open_session(CALLER), sessions.open_session(CALLER)
    assert sessions.session_caller(gone) and sessions.session_caller(kept)
    with transaction() as session:
        row = update(BrowserSession).where(BrowserSession.hash == sessions._hash(gone))
        session.execute(row.values(expires_at=1.0))
    clock[0] += KNOWN_SECONDS + 0.01
    assert sessions.session_caller(kept)
    assert sessions.session_caller(gone) is None
    sessions.close_session(kept)
    assert sessions.session_caller(kept) is None


def test_a_list_renews_the_sessions_that_poll_it(clock: list[float]) -> None:
    with transaction() as session:
        session.add(Job(id="job_1", key_id="key_1", name="one", spec={}, resolved={}))
    tokens = [sessions.open_session(CALLER) for _ in range(50)]
    for token in tokens:
        assert sessions.session_caller(token)
    assert FRESH_SECONDS < KNOWN_SECONDS
    for _ in range(60):  # much longer than a session is remembered without a poll
        clock[0] += FRESH_SECONDS
        before = statements()
        found = [sessions.session_caller(token) for token in tokens]
        assert all(one is not None and one[1] == "mine" and one[0].scopes == {"jobs:read"} for one in found)
        shown, _ = lines("key_1", Window(50, None), [], along=sessions.Renewal())
        assert len(shown) == 1 and statements() - before == 2  # SQLite counts BEGIN as well
    with transaction() as session:
        session.execute(update(Key).values(revoked_at=1.0))
    clock[0] += FRESH_SECONDS
    lines("key_1", Window(50, None), [], along=sessions.Renewal())
    clock[0] += KNOWN_SECONDS - FRESH_SECONDS + 0.01
    assert sessions.session_caller(tokens[0]) is None


def test_polls_whose_sessions_are_due_are_renewed_by_the_statement_that_answers_them(clock: list[float]) -> None:
    with transaction() as session:
        session.add(Job(id="job_1", key_id="key_1", name="one", spec={}, resolved={}))
    gone, kept = sessions.open_session(CALLER), sessions.open_session(CALLER)
    assert sessions.recent_caller(kept) == (None, False)
    assert sessions.session_caller(gone) and sessions.session_caller(kept)
    found, known = sessions.recent_caller(kept)
    assert known and found is not None and found[1] == "mine"
    with transaction() as session:
        row = update(BrowserSession).where(BrowserSession.hash == sessions._hash(gone))
        session.execute(row.values(expires_at=1.0))
    clock[0] += KNOWN_SECONDS + 0.01
    for token in (gone, kept):
        assert sessions.recent_caller(token) == (found, False)
    before = statements()
    assert token_of(job_now("key_1", "job_1", sessions.Renewal())) == (1, 0)
    assert sessions.session_caller(kept)
    assert statements() - before == 2  # SQLite counts BEGIN as well
    assert sessions.session_caller(gone) is None
    clock[0] += sessions.RECENT_SECONDS
    assert sessions.recent_caller(kept) == (None, False)
