"""Signing in, and the checks before every page: session, host, origin, form token, scopes."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.dashboard.sign_in import local
from models.records import BrowserSession, Key
from models.settings import Settings
from models.sign_in_link import make_link
from tests.api.dashboard.browsers import Browser, token_of, visitor_of
from tests.api.service import PLAIN, Service, User

FORMS = ("/sign-in", "/sign-out", "/jobs/new", "/jobs/new/validate", "/experiments/new", "/uploads/datasets", "/keys", "/keys/webhook-secret")  # fmt: skip


def test_pages_ask_to_sign_in_and_then_lead_to_where_one_wanted(embedded: Service, owner: User) -> None:
    browser = Browser(embedded)
    asked = browser.get("/jobs/new?template=kd")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Fjobs%2Fnew%3Ftemplate%3Dkd")
    page = browser.get(asked.headers["location"])
    form = {"form_token": token_of(page.text), "key": owner.key, "next": "/jobs/new?template=kd"}
    done = browser.http.post("/sign-in", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/jobs/new?template=kd")
    cookie = done.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and owner.key.lower() not in cookie
    assert browser.get("/").status_code == 200


def test_the_cookie_is_secure_behind_tls(embedded: Service) -> None:
    with httpx.Client(base_url=embedded.url, trust_env=False) as client:
        behind = client.get("/sign-in", headers={"X-Forwarded-Proto": "https"})
        plain = client.get("/sign-in")
    assert "secure" in behind.headers["set-cookie"].lower() and "secure" not in plain.headers["set-cookie"].lower()


def test_a_wrong_key_opens_no_session(embedded: Service) -> None:
    browser = Browser(embedded)
    refused = browser.sign_in("dsk_" + "x" * 43)
    assert refused.status_code == 401 and "unknown, expired or revoked" in refused.text
    assert browser.get("/").status_code == 303


def test_signing_out_ends_the_session_on_the_server(visitor: Browser) -> None:
    cookies = dict(visitor.http.cookies)
    assert visitor.post("/sign-out").status_code == 303
    with httpx.Client(base_url=visitor.service.url, cookies=cookies, trust_env=False) as stolen:
        assert stolen.get("/").status_code == 303


def test_a_session_ends_with_its_key_and_with_time(embedded: Service) -> None:
    for end in ("key", "time"):
        with embedded.user() as user:
            browser = visitor_of(user)
            assert browser.get("/").status_code == 200
            with embedded.rows() as session:
                if end == "key":
                    session.get_one(Key, user.key_id).revoked_at = 1.0
                else:
                    session.query(BrowserSession).filter_by(key_id=user.key_id).update({"expires_at": 1.0})
            deadline = time.monotonic() + 60
            while [browser.get(path).status_code for path in ("/parts/jobs", "/")] != [303, 303]:
                assert time.monotonic() < deadline, f"the session outlives its {end}"
                time.sleep(0.1)


def test_the_database_holds_no_cookie(visitor: Browser, owner: User) -> None:
    values = set(visitor.http.cookies.values())
    with visitor.service.rows() as session:
        rows = session.query(BrowserSession).filter_by(key_id=owner.key_id).all()
    assert len(rows) == 1 and rows[0].hash not in values


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_another_host_is_refused(visitor: Browser, host: str) -> None:
    for path in ("/", "/sign-in", "/jobs/new"):
        assert visitor.get(path, headers={"Host": host}).status_code == 421
    port = visitor.service.url.rpartition(":")[2]
    headers = {"Host": f"localhost:{port}", "Cookie": "; ".join(f"{name}={value}" for name, value in visitor.http.cookies.items())}  # fmt: skip
    assert visitor.get("/", headers=headers).status_code == 200


def test_the_operator_may_allow_a_host(tmp_path_factory: pytest.TempPathFactory, configure: object) -> None:
    from starlette.requests import Request

    from api.dashboard.visitors import _require_host
    from api.http.errors import WrongHost
    from api.http.links import set_base

    configure(dashboard_hosts="a.example, b.example", host="0.0.0.0")  # type: ignore[operator]
    request = Request({"type": "http", "headers": []})
    for name, allowed in (("a.example", True), ("b.example:1", True), ("c.example", False), ("[::1]:80", True)):
        set_base(f"http://{name}/")
        if allowed:
            _require_host(request)
        else:
            with pytest.raises(WrongHost):
                _require_host(request)


@pytest.mark.parametrize("path", FORMS)
def test_a_form_of_another_site_or_without_its_token_is_refused(visitor: Browser, path: str) -> None:
    token = visitor.token
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}):
        refused = visitor.http.post(path, data={"form_token": token}, headers=headers)
        assert refused.status_code == 403 and "another site" in refused.text
    request = visitor.http.build_request("POST", path, data={"form_token": token})
    del request.headers["origin"]
    assert visitor.http.send(request).status_code == 403
    for data in ({}, {"form_token": "0" * 64}):
        refused = visitor.http.post(path, data=data)
        assert refused.status_code == 403, refused.text
        assert "Reload the page" in refused.text


def test_bytes_need_a_form_token_too(visitor: Browser, owner: User) -> None:
    dataset = owner.dataset("waiting")
    assert visitor.http.put(f"/uploads/{dataset}/content", content=b"x").status_code == 403
    wrong = visitor.http.put(f"/uploads/{dataset}/content", content=b"x", headers={"X-Form-Token": "0" * 64})
    assert wrong.status_code == 403


def test_a_key_without_a_scope_sees_a_page_that_names_it(embedded: Service) -> None:
    with embedded.user(scopes=["uploads:read"]) as user:
        browser = visitor_of(user)
        refused = browser.get("/")
        assert refused.status_code == 403 and "jobs:read" in refused.text
        assert browser.get("/uploads").status_code == 200
        assert browser.post("/keys", {"name": "more", "scope": "admin"}).status_code == 403
    with embedded.user(scopes=list(PLAIN)) as user:
        assert visitor_of(user).get("/operator").status_code == 403


def test_a_link_signs_in_once(embedded: Service) -> None:
    config = Settings(_env_file=None, data=embedded.data)
    link = make_link(config, embedded.url)
    path = link.removeprefix(embedded.url)
    assert config.sign_in_file.stat().st_mode & 0o077 == 0
    assert path.partition("token=")[2] not in config.sign_in_file.read_text()
    browsers = [Browser(embedded) for _ in range(4)]
    forms = []
    for browser in browsers:  # looking at the page uses nothing up
        page = browser.get(path)
        assert "signs you in once" in page.text
        forms.append({"form_token": token_of(page.text), "link": path.partition("token=")[2], "next": "/"})
    with ThreadPoolExecutor(4) as pool:
        pairs = zip(browsers, forms, strict=True)
        codes = list(pool.map(lambda pair: pair[0].http.post("/sign-in", data=pair[1]).status_code, pairs))
    assert sorted(codes) == [303, 401, 401, 401]
    assert not config.sign_in_file.exists()
    [winner] = [browser for browser, code in zip(browsers, codes, strict=True) if code == 303]
    assert winner.get("/operator").status_code == 200


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "/x\n", "javascript:alert(1)"])  # fmt: skip
def test_signing_in_leads_to_no_other_server(target: str) -> None:
    assert local(target) == "/"


def test_every_page_has_a_strict_policy(visitor: Browser) -> None:
    for path in ("/", "/sign-in", "/nothing-here/jobs", "/jobs/job_x"):
        response = visitor.get(path)
        if response.headers["content-type"].startswith("text/html"):
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert response.headers["cache-control"] == "no-store"
