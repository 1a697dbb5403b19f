"""Authentication of requests by a cookie or a trusted proxy's header, and authorisation by role."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, HTTPException, Path, Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.permissions import Actor
from pipeline.review.users import name_of
from pipeline.review.web.app_state import Room
from pipeline.review.web.security import LARGEST_TEXTS

# The prefix makes browsers require Secure, this host only, and the whole path. Browsers accept Secure cookies over
# plain
# HTTP from the loopback interface too (Chromium and Firefox do).
SESSION_COOKIE = "__Host-nightread"
LOGIN_COOKIE = "__Host-nightread-login"
DEVICE_COOKIE = "__Host-nightread-device"
FIELDS = 40  # most fields of a form


FindingId = Annotated[int, Path(ge=1, lt=2**31)]  # the range of a database id


class LogInFirst(Exception):
    """Nobody is logged in, or the session has ended."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The user of a request, with the address and the token that this session's forms carry; `repr` hides
    both tokens.
    """

    actor: Actor
    csrf: str
    token: str

    def __repr__(self) -> str:
        return f"Reader({self.name})"

    @property
    def name(self) -> str:
        """The user's name."""
        return self.actor.name

    @property
    def role(self) -> str:
        """The user's role."""
        return self.actor.role

    def may(self, action: str) -> bool:
        """Return whether the role allows an action."""
        return self.actor.may(action)


def room_of(request: Request) -> Room:
    """Return the open workspace."""
    return request.app.state.room


RoomHere = Annotated[Room, Depends(room_of)]


def address_of(request: Request) -> str:
    """Return the client's address: for a request from a listed proxy, the address that the proxy reports."""
    peer = request.client.host if request.client else ""
    room: Room = request.app.state.room
    if peer in room.config.proxies:
        return request.headers.get("x-forwarded-for", peer).rpartition(",")[2].strip()[:64] or peer
    return peer


def devices_of(request: Request) -> list[str]:
    """Return the tokens of users who have logged in from this browser before."""
    return [one for one in request.cookies.get(DEVICE_COOKIE, "")[:1000].split(".") if one.isascii()]


def require_reader(request: Request, room: RoomHere) -> Reader:
    """Return the user of a request.

    Raises:
        LogInFirst: there is no session, or a listed proxy names another user or nobody, which ends the session.
    """
    token = request.cookies.get(SESSION_COOKIE, "")
    session = room.review.sessions.find(token) if token else None
    if session is None:
        raise LogInFirst
    vouched = proxy_user(request)
    if vouched is None and _speaks_for_users(request):
        room.review.sessions.end(token, address_of(request))
        raise LogInFirst
    if not _same(vouched, session.user.name):
        raise LogInFirst
    return Reader(Actor(session.user.name, session.user.role, address_of(request)), session.csrf, token)


def _same(vouched: str | None, name: str) -> bool:
    """Return whether the session belongs to the user that the proxy names, since another person may use the browser by
    now.
    """
    try:
        return vouched is None or name_of(vouched) == name
    except ReviewError:
        return False


ReaderHere = Annotated[Reader, Depends(require_reader)]


def require_permission(action: str) -> Callable[[Reader], Reader]:
    """Return a dependency that lets only roles with a permission pass."""

    def check(reader: ReaderHere) -> Reader:
        if not reader.may(action):
            raise HTTPException(403, f"Your role, {reader.role}, does not allow this. Ask an admin.")
        return reader

    return check


Lister = Annotated[Reader, Depends(require_permission("list"))]
Viewer = Annotated[Reader, Depends(require_permission("view"))]
Decider = Annotated[Reader, Depends(require_permission("decide"))]


async def read_form(request: Request, reader: ReaderHere) -> FormData:
    """Return a form whose token is the session's own (403 otherwise)."""
    form = await request.form(max_files=0, max_fields=FIELDS, max_part_size=LARGEST_TEXTS)
    if not hmac.compare_digest(str(form.get("csrf", "")).encode(), reader.csrf.encode()):
        raise HTTPException(403, "This form does not belong to your session. Load the page again.")
    return form


CheckedForm = Annotated[FormData, Depends(read_form)]


def proxy_user(request: Request) -> str | None:
    """Return the user that a listed proxy names, or None; the header is ignored from any other client.

    Raises:
        HTTPException: 400, the header came twice: a client sent its own, and the proxy did not remove it.
    """
    room: Room = request.app.state.room
    if not _speaks_for_users(request):
        return None
    names = request.headers.getlist(room.config.user_header or "")
    if len(names) > 1:
        raise HTTPException(400, f"The header {room.config.user_header} came {len(names)} times. Let the proxy set it.")
    return names[0][:64] if names and names[0] else None


def _speaks_for_users(request: Request) -> bool:
    """Return whether the request comes from a listed proxy that names its users."""
    room: Room = request.app.state.room
    peer = request.client.host if request.client else ""
    return bool(room.config.user_header) and peer in room.config.proxies


def send_to_login(request: Request) -> Response:
    """Redirect a page to the login; a script gets 401 and reloads its page.

    Similar cases load by themselves: they must not take the page from somebody who is typing.
    """
    if request.url.path.endswith("/similar") and request.headers.get("hx-request"):
        return Response(status_code=401)
    if "text/html" not in request.headers.get("accept", "") or request.headers.get("hx-request"):
        page = urlsplit(request.headers.get("hx-current-url", "/"))
        back = own_path(page.path + (f"?{page.query}" if page.query else ""))
        return Response(status_code=401, headers={"HX-Redirect": f"/login?next={quote(back, safe='')}"})
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(path, safe='')}" if request.method == "GET" else "/login", 303)


def own_path(text: str) -> str:
    """Return a path of this site to redirect to; "/" for anything that could lead elsewhere (open redirects)."""
    local = text.startswith("/") and not text.startswith("//") and text.isprintable()
    return text if local and "\\" not in text else "/"


def set_cookie(response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that is sent to this host only, over TLS (or the loopback) only, and hidden from scripts."""
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")


def drop_cookie(response: Response, name: str) -> None:
    """Make a browser forget such a cookie."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")


def new_token() -> str:
    """Return an unguessable token."""
    return secrets.token_urlsafe(32)
