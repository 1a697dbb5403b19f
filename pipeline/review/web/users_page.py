"""Pages to manage users, for admins, and to change one's own password."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.permissions import ROLES
from pipeline.review.web.access import (
    CheckedForm,
    Reader,
    ReaderHere,
    RoomHere,
    address_of,
    devices_of,
    require_permission,
)
from pipeline.review.web.app_state import Room
from pipeline.review.web.pages import page

router = APIRouter()
Admin = Annotated[Reader, Depends(require_permission("users"))]
UNEQUAL = "The two new passwords differ. Nothing was changed. Type them again."
OWN = "You cannot change your own account here, since you could lock yourself out. Ask another admin."


@router.get("/users")
def users_page(request: Request, room: RoomHere, reader: Admin) -> Response:
    """List all users, including disabled ones."""
    return _users(request, room, reader)


@router.post("/users")
async def add(request: Request, room: RoomHere, reader: Admin, form: CheckedForm) -> Response:
    """Add a user; without a password, only a proxy can authenticate them."""
    name, role, password = (str(form.get(field, "")) for field in ("name", "role", "password"))
    return await run_in_threadpool(
        _done, request, room, reader, lambda: room.review.users.add(name, role, password or None, reader.actor)
    )


@router.post("/users/{name}/{what}")
async def change(request: Request, room: RoomHere, reader: Admin, form: CheckedForm, name: str, what: str) -> Response:
    """Disable or enable a user, or set their password; their sessions end."""
    users, actor, password = room.review.users, reader.actor, str(form.get("password", ""))
    changes: dict[str, Callable[[], None]] = {
        "disable": lambda: users.disable(name, actor),
        "enable": lambda: users.enable(name, actor),
        "password": lambda: users.set_password(name, password, actor),
    }
    if name.casefold() == reader.name or what not in changes:
        return await run_in_threadpool(_users, request, room, reader, OWN, 409)
    return await run_in_threadpool(_done, request, room, reader, changes[what])


@router.get("/password")
def password_page(request: Request, room: RoomHere, reader: ReaderHere) -> Response:
    """Show the form that changes one's own password."""
    return _password(request, room, reader)


@router.post("/password")
async def change_password(request: Request, room: RoomHere, reader: ReaderHere, form: CheckedForm) -> Response:
    """Change one's own password; all of one's own sessions end."""
    typed = [str(form.get(field, ""))[:1025] for field in ("old", "new", "again")]
    return await run_in_threadpool(_change_own, request, room, reader, *typed)


def _change_own(request: Request, room: Room, reader: Reader, old: str, new: str, again: str) -> Response:
    if new != again:
        return _password(request, room, reader, UNEQUAL, 409)
    try:
        # Counts wrong passwords, as the login does.
        room.review.logins.log_in(reader.name, old, address_of(request), devices_of(request))
        room.review.users.set_password(reader.name, new, reader.actor)
    except ReviewError as error:
        return _password(request, room, reader, str(error), 409)
    return RedirectResponse("/login", 303)


def _done(request: Request, room: Room, reader: Reader, change: Callable[[], object]) -> Response:
    try:
        change()
    except ReviewError as error:
        return _users(request, room, reader, str(error), 409)
    return RedirectResponse("/users", 303)


def _users(request: Request, room: Room, reader: Reader, problem: str = "", status: int = 200) -> Response:
    context = {"users": room.review.users.list(), "roles": ROLES, "least": room.review.policy.password_characters}
    return page(request, room, reader, "users.html", "users", status, problem=problem, **context)


def _password(request: Request, room: Room, reader: Reader, problem: str = "", status: int = 200) -> Response:
    context = {
        "has_one": bool(room.review.users.read_password_hash(reader.name)),
        "least": room.review.policy.password_characters,
    }
    return page(request, room, reader, "password.html", "", status, problem=problem, **context)
