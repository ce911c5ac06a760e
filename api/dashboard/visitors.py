"""Who visits: the checks of host, origin, session and form that come before every page."""

import ipaddress
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from api.access import auth, sessions
from api.access.auth import Caller
from api.dashboard.rendering import HEADERS, render
from api.http.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    NotFound,
    SignInNeeded,
    TooLarge,
    TooMany,
    WrongHost,
)
from api.http.links import current_base
from api.http.problem_documents import error_of, respond
from models.settings import settings

SAFE = ("GET", "HEAD")
FORM_TYPE = "application/x-www-form-urlencoded"
FORM_BYTES = 256 * 1024
"""Largest form."""
TOKEN_FIELD, TOKEN_HEADER = "form_token", "x-form-token"
SIGN_IN = "/sign-in"


@dataclass(frozen=True)
class Visitor:
    """A browser that has signed in: its caller, and the name of its key."""

    caller: Caller
    name: str

    @property
    def key_id(self) -> str:
        return self.caller.key_id

    def may(self, scope: str) -> bool:
        """Whether the key has a scope."""
        return scope in self.caller.scopes


def cookie_name(request: Request) -> str:
    """The name of the cookie; cookies are shared by all ports of a host, so it contains the port."""
    return f"distillery_{request.url.port or ('https' if request.url.scheme == 'https' else 'http')}"


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(request), token, max_age=sessions.LIFETIME_SECONDS, httponly=True, samesite="strict",
        secure=request.url.scheme == "https", path="/",
    )  # fmt: skip


class PageRoute(APIRoute):
    """A route of the dashboard. Errors become pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                _require_host(request)
                if request.method not in SAFE:
                    _require_origin(request)
                return await original(request)
            except RequestValidationError:
                return _error_page(request, NotFound("There is no such page."))
            except Exception as error:
                known = error_of(error)
                if known is None:
                    raise
                return _error_page(request, known)

        return handler


def _error_page(request: Request, error: ApiError) -> Response:
    if isinstance(error, SignInNeeded):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        address = f"{SIGN_IN}?next={quote(target, safe='')}" if request.method == "GET" else SIGN_IN
        if "hx-request" in request.headers:
            return Response(status_code=401, headers=HEADERS | {"HX-Redirect": SIGN_IN})
        return RedirectResponse(address, 303, HEADERS)
    if request.headers.get("accept", "").startswith("application/json"):
        return respond(request, error)
    template = "part_error.html" if "hx-request" in request.headers else "error.html"
    page = render(request, template, error.status, error=error, request_id=getattr(request.state, "request_id", ""))
    page.headers.update({name: value for name, value in error.headers.items() if name == "Retry-After"})
    return page


def _require_host(request: Request) -> None:
    """Require that the browser meant this service: another site's name may resolve to its address."""
    name = urlsplit(current_base()).hostname or ""
    configured = settings()
    allowed = {"localhost", configured.host.lower(), *configured.dashboard_hosts.lower().replace(",", " ").split()}
    if name.lower().rstrip(".") not in allowed and not _is_loopback(name):
        detail = (
            "The dashboard is not served under this host name. Its operator adds names with DISTILL_DASHBOARD_HOSTS."
        )
        raise WrongHost(detail)


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _require_origin(request: Request) -> None:
    """Require that the form is one of ours: browsers name the origin of every request that is not a GET.

    Its scheme may differ from ours if a proxy ends TLS.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc != urlsplit(current_base()).netloc:
        raise Forbidden("The request comes from another site. Open the dashboard itself and try again.")


async def current_visitor(request: Request) -> Visitor:
    """The visitor of a page.

    Raises:
        SignInNeeded: the browser has no valid session.
        TooMany: the key has sent too many requests.
        Forbidden: the form lacks the token of the session.
    """
    token = request.cookies.get(cookie_name(request), "")
    visitor = _admitted(request, await _visitor_of(token), token)
    if request.method not in SAFE:
        await require_form_token(request, token)
    return visitor


async def _visitor_of(token: str) -> Visitor:
    found = await run_in_threadpool(sessions.session_caller, token) if token else None
    if found is None:
        raise SignInNeeded("Sign in with a key.")
    return Visitor(*found)


def _admitted(request: Request, visitor: Visitor, token: str) -> Visitor:
    """Note the visitor of a request, and count the request."""
    request.state.key_id = visitor.key_id
    request.state.visitor = visitor
    request.state.form_token = sessions.form_token(token)
    usage = auth.counted(visitor.caller, request.scope["state"])
    if usage is not None and usage.exceeded:
        detail = f"This key may send {usage.quota} requests a minute, and has sent more. Try again in {usage.reset_seconds} s."
        raise TooMany(detail, headers={"Retry-After": str(usage.reset_seconds)})
    return visitor


@dataclass(frozen=True)
class Poll:
    """A request for a part of a page that many browsers ask for again and again.

    The session of `visitor` was valid some seconds ago. It is read again together with the part, so the answer is sent only
    after `confirm`.
    """

    visitor: Visitor
    token: str
    known: bool

    async def confirm(self, *scopes: str) -> None:
        """Require that the session is still valid and its key has the scopes; asks the database if no shared statement has.

        Raises:
            SignInNeeded, Forbidden: it is not, or the key lacks a scope.
        """
        if not self.known:
            require(await _visitor_of(self.token), *scopes)


async def current_poll(request: Request) -> Poll:
    """The poll of a request, which must be a GET.

    Raises:
        SignInNeeded: the browser has no session.
        TooMany: the key has sent too many requests.
    """
    token = request.cookies.get(cookie_name(request), "")
    found, known = sessions.recent_caller(token)
    if found is None:
        return Poll(await current_visitor(request), token, True)
    return Poll(_admitted(request, Visitor(*found), token), token, known)


async def require_form_token(request: Request, token: str) -> None:
    """Require the token of a session, in a header or as a field of the form.

    Raises:
        Forbidden: it is missing or that of another session.
    """
    given = request.headers.get(TOKEN_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(FORM_TYPE):
        given = (await form_of(request)).get(TOKEN_FIELD)
    if not token or not given or not sessions.is_form_token(token, given):
        raise Forbidden("The form has expired, or is not one of this dashboard. Reload the page and send it again.")


class Form(dict[str, str]):
    """The fields of a form; of a name that appears several times, the last value. `pairs` has all of them, in order."""

    def __init__(self, pairs: list[tuple[str, str]]):
        super().__init__(pairs)
        self.pairs = pairs


async def form_of(request: Request) -> Form:
    """The fields of a request's form, read once.

    Raises:
        TooLarge, BadRequest: the form is too large, or is not one.
    """
    known: Form | None = getattr(request.state, "form", None)
    if known is not None:
        return known
    if not request.headers.get("content-type", "").startswith(FORM_TYPE):
        raise BadRequest("The body is not a form.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise TooLarge(f"The form is too large. At most {FORM_BYTES} bytes are allowed.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2000, errors="strict")
    except ValueError as error:
        raise BadRequest("The form cannot be read.") from error
    if any("\0" in text for pair in pairs for text in pair):
        raise BadRequest("The form contains a NUL character.")
    request.state.form = Form(pairs)
    return request.state.form  # type: ignore[no-any-return]


def require(visitor: Visitor, *scopes: str) -> None:
    """Require scopes of a visitor's key.

    Raises:
        Forbidden: the key lacks one.
    """
    missing = [scope for scope in scopes if not visitor.may(scope)]
    if missing:
        raise Forbidden(f"This page needs a key with the scope {' and '.join(missing)}.")


def new_token() -> str:
    """A token for the form of a browser that has not signed in."""
    return secrets.token_urlsafe(32)


CurrentVisitor = Annotated[Visitor, Depends(current_visitor)]
CurrentPoll = Annotated[Poll, Depends(current_poll)]
