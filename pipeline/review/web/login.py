"""Login and logout."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.refusals import TooManyFailures
from pipeline.review.users import User
from pipeline.review.web.access import (
    DEVICE_COOKIE,
    LOGIN_COOKIE,
    SESSION_COOKIE,
    CheckedForm,
    ReaderHere,
    RoomHere,
    address_of,
    devices_of,
    drop_cookie,
    new_token,
    own_path,
    proxy_user,
    set_cookie,
)
from pipeline.review.web.app_state import Room

LOGIN_S = 3600
DEVICE_S = 180 * 24 * 3600
DEVICES = 8  # users of one browser

router = APIRouter()


@router.get("/login")
def login_page(request: Request, room: RoomHere, next: str = "/") -> Response:
    """Show the login page; a user that a listed proxy names is logged in at once."""
    name = proxy_user(request)
    if name is None:
        return _page(request, room, "", own_path(next), "")
    try:
        user = room.review.logins.log_in_by_proxy(name, address_of(request))
    except ReviewError as error:
        return _page(request, room, str(error), own_path(next), "", 403)
    return _let_in(request, room, user, own_path(next))


@router.post("/login")
def login(
    request: Request,
    room: RoomHere,
    name: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
    csrf: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Check a name and a password; after some failures the user has to wait."""
    expected = request.cookies.get(LOGIN_COOKIE, "")
    if not expected or not hmac.compare_digest(expected.encode(), csrf.encode()):
        return _page(request, room, "The login page had expired. Try again.", own_path(next), name, 403)
    try:
        user = room.review.logins.log_in(name, password, address_of(request), devices_of(request))
    except TooManyFailures as error:
        response = _page(request, room, str(error), own_path(next), name, 429)
        response.headers["Retry-After"] = str(int(error.wait_s) + 1)
        return response
    except ReviewError as error:
        return _page(request, room, str(error), own_path(next), name, 401)
    return _let_in(request, room, user, own_path(next))


@router.post("/logout")
async def logout(request: Request, room: RoomHere, reader: ReaderHere, form: CheckedForm) -> Response:
    """End the session."""
    await run_in_threadpool(room.review.sessions.end, reader.token, address_of(request))
    response = RedirectResponse("/login", 303)
    drop_cookie(response, SESSION_COOKIE)
    return response


def _let_in(request: Request, room: Room, user: User, path: str) -> Response:
    """Begin a session under a new token, whatever token the browser sent (prevents session fixation)."""
    old = request.cookies.get(SESSION_COOKIE, "")
    token = room.review.sessions.create(user, address_of(request), old_token=old)
    response = RedirectResponse(path, 303)
    set_cookie(response, SESSION_COOKIE, token, int(room.review.policy.session_hours * 3600))
    own = room.review.logins.device_token(user.name)
    devices = [own, *(one for one in devices_of(request) if one != own)][:DEVICES]
    set_cookie(response, DEVICE_COOKIE, ".".join(devices), DEVICE_S)
    drop_cookie(response, LOGIN_COOKIE)
    return response


def _page(request: Request, room: Room, problem: str, path: str, name: str, status: int = 200) -> Response:
    token = new_token()
    context = {"problem": problem, "csrf": token, "next": path, "name": name, "user": None}
    response = room.templates.TemplateResponse(request, "login.html", context, status)
    set_cookie(response, LOGIN_COOKIE, token, LOGIN_S)
    return response
