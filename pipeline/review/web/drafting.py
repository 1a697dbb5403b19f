"""Drafts over HTTP: the page sends what a reader types a moment after they pause, and asks what other windows hold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import JSONResponse

from pipeline.data.catalogue.schema import now
from pipeline.errors import NightreadError
from pipeline.review.drafts import WINDOW, Kept, Typed
from pipeline.review.refusals import Overtaken
from pipeline.review.web.access import CheckedForm, Decider, FindingId, Reader, RoomHere
from pipeline.review.web.app_state import Room
from pipeline.review.web.drawn_region import read_region
from pipeline.review.web.words import age

router = APIRouter(prefix="/scan/{finding_id}/draft")
FORMER = 20  # names of one window, at most
DIGITS = 9  # of a version, at most


@router.get("")
def drafts(finding_id: FindingId, room: RoomHere, reader: Decider) -> JSONResponse:
    """Send what this reader has typed in this scan, in any window, and not signed."""
    return JSONResponse({"drafts": list_drafts(room, finding_id, reader)})


@router.post("")
async def save(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> JSONResponse:
    """Save what is typed and not signed; the answer has its version, and what other windows hold.

    A save that a newer one of its window has overtaken changes nothing: the answer has the newer one's version, and
    a window that is still open sends its text again.
    """
    overtaken = {}
    try:
        version = await run_in_threadpool(_save, room, finding_id, form, str(form.get("token", ""))[:64], reader)
    except Overtaken as error:
        version, overtaken = error.version, {"overtaken": True}
    held = await run_in_threadpool(list_drafts, room, finding_id, reader)
    return JSONResponse({"version": version, "drafts": held, **overtaken})


@router.post("/discard")
async def discard(finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> JSONResponse:
    """Delete one version of a draft, as its reader asked; 409 if it was changed since."""
    if not await run_in_threadpool(room.review.drafts.discard, finding_id, _number(form, "version"), reader.actor):
        raise HTTPException(409, "This draft was changed or signed in another window. Load the page again.")
    return JSONResponse({"drafts": await run_in_threadpool(list_drafts, room, finding_id, reader)})


def typed(form: FormData) -> Typed:
    """Return the fields of a form as they were typed: what is longer than any draft is refused later, and not cut."""
    return Typed(**{name: str(form.get(name, "")) for name in ("outcome", "code", "text", "comment", "region")})


def window_of(form: FormData) -> str:
    """Return the name of the window that sent a form; "" in forms of old pages."""
    return str(form.get("window", ""))[:WINDOW]


def windows_of(form: FormData) -> tuple[str, ...]:
    """Return the names of the window that sent a form: today's, and those under which it sent it without an answer."""
    former = str(form.get("former", ""))[: FORMER * (WINDOW + 1)].split()
    return (window_of(form), *(name[:WINDOW] for name in former[:FORMER]))


def _save(room: Room, finding_id: int, form: FormData, token: str, reader: Reader) -> int:
    fields = typed(form)
    try:
        drawn = read_region(fields.region, room.stacks.read(room.read_finding(finding_id).study_id))
    except NightreadError:
        drawn = None  # it is kept as it was typed all the same, and refused when it is signed
    after = _number(form, "after") if "after" in form else None
    return room.review.drafts.save(finding_id, fields, token, reader.actor, window_of(form), drawn, after)


def keep_refused(room: Room, finding_id: int, form: FormData, reader: Reader) -> tuple[Typed, int, str]:
    """Save a form that was not accepted as a draft; return it for the page, with its version and what became of it.

    A text that cannot be stored is returned all the same.
    """
    fields = typed(form)
    try:
        version = _save(room, finding_id, form, "", reader)
    except NightreadError as error:
        return fields, _number(form, "base"), f"What you typed is on this page only: {error}"
    return fields, version, "What you typed is kept as a draft." if version else ""


def list_kept(room: Room, finding_id: int, reader: Reader) -> list[Kept]:
    """Return this reader's drafts of a scan, the latest first; none for users who may not decide."""
    return room.review.drafts.list_kept(finding_id, reader.actor) if reader.may("decide") else []


def list_drafts(room: Room, finding_id: int, reader: Reader) -> list[dict[str, Any]]:
    """Return this reader's drafts of a scan as the page shows them, the latest first."""
    return [shown_draft(one) for one in list_kept(room, finding_id, reader)]


def shown_draft(one: Kept) -> dict[str, Any]:
    """Return one draft with how long ago it was typed, in words and in seconds."""
    about = {"version": one.version, "age": age(one.saved_at), "seconds": (now() - one.saved_at).total_seconds()}
    return {**asdict(one.typed), **about}


def _number(form: FormData, name: str) -> int:
    text = str(form.get(name, ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS else 0
