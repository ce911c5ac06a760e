"""Signing in and out."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.access import auth, sessions
from api.dashboard.rendering import HEADERS, render
from api.dashboard.visitors import (
    SIGN_IN,
    CurrentVisitor,
    PageRoute,
    cookie_name,
    form_of,
    new_token,
    require_form_token,
    set_cookie,
)
from api.http.errors import TooMany, Unauthorised

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(SIGN_IN)
async def ask(request: Request, token: str = "", next: str = "/") -> Response:
    """The form; a link that works once brings its token, so that the reader only confirms."""
    return _form(request, next, token)


def _form(request: Request, target: str, link: str = "", problem: str = "", status: int = 200) -> Response:
    known = request.cookies.get(cookie_name(request)) or new_token()
    request.state.form_token = sessions.form_token(known)
    page = render(request, "sign_in.html", status, target=local(target), link=link[:200], problem=problem)
    set_cookie(request, page, known)
    return page


@router.post(SIGN_IN)
async def sign_in(request: Request) -> Response:
    """Open a session for the key, or for the link that works once."""
    await require_form_token(request, request.cookies.get(cookie_name(request), ""))
    form = await form_of(request)
    address = request.client.host if request.client else ""
    target = local(form.get("next", "/"))
    try:
        if form.get("link"):
            caller = await run_in_threadpool(sessions.caller_of_link, form["link"], address)
        else:
            caller = await run_in_threadpool(auth.authenticate, f"Bearer {form.get('key', '').strip()}", address)
    except (Unauthorised, TooMany) as error:
        return _form(request, target, "", error.detail.replace("The Authorization header", "The key"), error.status)
    token = await run_in_threadpool(sessions.open_session, caller)
    response = RedirectResponse(target, 303, HEADERS)
    set_cookie(request, response, token)
    return response


@router.post("/sign-out")
async def sign_out(request: Request, visitor: CurrentVisitor) -> Response:
    """End the session."""
    await run_in_threadpool(sessions.close_session, request.cookies.get(cookie_name(request), ""))
    response = RedirectResponse(SIGN_IN, 303, HEADERS)
    response.delete_cookie(cookie_name(request), path="/")
    return response


def local(target: str) -> str:
    """A path of the dashboard; `/` for anything else, such as an address on another server."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and not target.startswith(SIGN_IN) else "/"
