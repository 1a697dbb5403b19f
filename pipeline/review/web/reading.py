"""The scan page: look, decide, take back."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from pipeline.errors import NightreadError
from pipeline.review.decisions import Form, Told
from pipeline.review.locks import Claim
from pipeline.review.refusals import BadInput
from pipeline.review.scan_data import scan_data
from pipeline.review.stacks import CHANGED, Stacks
from pipeline.review.web.access import CheckedForm, Decider, FindingId, Reader, RoomHere, Viewer, new_token
from pipeline.review.web.app_state import Room
from pipeline.review.web.listing import ListQuery, shown_row
from pipeline.review.web.pages import page
from pipeline.review.web.words import age, state_words
from pipeline.review.worklist import Row

OUTCOMES = (
    {"value": "confirmed", "words": "Confirm", "key": "c"},
    {"value": "dismissed", "words": "Dismiss", "key": "d"},
    {"value": "unsure", "words": "Unsure", "key": "u"},
    {"value": "second-opinion", "words": "Second opinion", "key": "s"},
)

router = APIRouter(prefix="/scan/{finding_id}")


class Region(BaseModel):
    """A drawn line as the browser tells it: which image, and points (column, row); 0 is the middle of a first pixel."""

    model_config = ConfigDict(extra="ignore")

    stack: int = Field(ge=0)
    index: int = Field(ge=0)
    layout: str = ""
    points: list[tuple[float, float]] = Field(min_length=3, max_length=2000)


@router.get("")
def scan_page(
    request: Request, finding_id: FindingId, room: RoomHere, viewer: Viewer, asked: Annotated[ListQuery, Query()]
) -> Response:
    """Show a scan. Opening it takes it for this reader, unless somebody has it; the view is written down first."""
    finding, row = room.finding(finding_id), room.review.worklist.row(finding_id)
    room.looks.is_new(viewer.name, finding_id)
    room.review.audit.record("view", viewer.actor, f"finding:{finding_id}")
    stacks = room.stacks.of(finding.study_id)
    previous, following = room.review.worklist.neighbours(finding_id, asked.of(viewer))
    history = room.review.decisions.history(finding_id, viewer.actor)
    shown = {
        "scan": scan_data(finding, stacks, row.revealed, history),
        "left_out": "; ".join(series.sentence for series in stacks.left_out),
        "left_out_count": len(stacks.left_out),
        "previous": previous,
        "following": following,
        "around": asked.filters(),
        **_decision(room, finding_id, viewer, taking=True),
    }
    if not stacks.stacks:
        shown["problem"] = "The images of this scan are not in the catalogue any more: it cannot be looked at."
    return page(request, room, viewer, "scan.html", "list", **shown)


@router.post("/decision")
async def decide(
    request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm
) -> Response:
    """Take a decision; a form that is older than the latest decision is shown again with what happened."""
    return await run_in_threadpool(_decide, request, finding_id, room, reader, form)


@router.post("/undo")
async def undo(request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Take the latest decision back; both stay written down."""
    return await run_in_threadpool(_undo, request, finding_id, room, reader, form)


@router.post("/hold")
async def hold(request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Keep the scan for this reader while its page is open; 409 where somebody else has it by now."""
    _, told = await run_in_threadpool(_taken, room, finding_id, reader)
    return Response(told, 409 if told else 200, media_type="text/plain")


@router.post("/release")
async def release(
    request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm
) -> Response:
    """Give the scan back undecided: its page was left."""
    await run_in_threadpool(room.review.locks.release, finding_id, reader.actor)
    return Response(status_code=204)


def _decide(request: Request, finding_id: int, room: Room, reader: Reader, form: FormData) -> Response:
    try:
        stacks = room.stacks.of(room.finding(finding_id).study_id)
        filled = Form(
            finding_id=finding_id,
            outcome=_text(form, "outcome", 32),
            seen=_number(form, "seen"),
            token=_text(form, "token", 64),
            code=_text(form, "code", 200),
            text=_text(form, "text", 10_000),
            comment=_text(form, "comment", 100_000),
            region=_region(_text(form, "region", 200_000), stacks),
        )
        room.review.decisions.decide(filled, reader.actor)
    except NightreadError as error:
        return _answer(request, finding_id, room, reader, problem=str(error))
    return _answer(request, finding_id, room, reader, told="Signed.")


def _undo(request: Request, finding_id: int, room: Room, reader: Reader, form: FormData) -> Response:
    try:
        room.review.decisions.undo(finding_id, _number(form, "seen"), _text(form, "token", 64), reader.actor)
    except NightreadError as error:
        return _answer(request, finding_id, room, reader, problem=str(error))
    return _answer(request, finding_id, room, reader, told="Taken back. The scan is open again.")


def _answer(
    request: Request, finding_id: int, room: Room, reader: Reader, problem: str = "", told: str = ""
) -> Response:
    """Answer htmx with a part of the page, and a form without scripts with the page."""
    if not request.headers.get("hx-request") and told:
        return RedirectResponse(f"/scan/{finding_id}", 303)
    shown = {"user": reader, "csrf": reader.csrf, **_decision(room, finding_id, reader, taking=False)}
    shown |= {"problem": problem or shown["problem"], "told": told}
    response = room.templates.TemplateResponse(request, "decision.html", shown)
    if told:
        response.headers["X-Decided"] = "1"
    return response


def _decision(room: Room, finding_id: int, reader: Reader, taking: bool) -> dict[str, Any]:
    """Return what the part of the page about the decision shows."""
    mine, held = _taken(room, finding_id, reader) if taking else _free(room, finding_id, reader)
    row = room.review.worklist.row(finding_id)
    history = room.review.decisions.history(finding_id, reader.actor)
    return {
        "row": shown_row(room, row),
        "problem": "",
        "told": "",
        "held_by": held,
        "may_decide": mine,
        "outcomes": OUTCOMES,
        "codes": room.review.decisions.coded(),
        "history": [_told(entry) for entry in reversed(history)],
        "seen": row.decision_id,
        "token": new_token(),
        "longest": room.review.policy.comment_characters,
        "may_undo": _may_undo(row, reader),
    }


def _taken(room: Room, finding_id: int, reader: Reader) -> tuple[bool, str]:
    """Take a scan, or keep it; return whether it is this reader's to decide, and why not in words."""
    if not reader.may("decide"):
        return False, ""
    try:
        claim = room.review.locks.take(finding_id, reader.actor)
    except NightreadError as error:
        return False, str(error)
    return claim.mine, "" if claim.mine else _reads(claim)


def _free(room: Room, finding_id: int, reader: Reader) -> tuple[bool, str]:
    claim = room.review.locks.holder(finding_id)
    other = claim is not None and claim.holder != reader.name
    return reader.may("decide") and not other, _reads(claim) if claim is not None and other else ""


def _reads(claim: Claim) -> str:
    if claim.assigned:
        return f"This scan is kept for {claim.holder} until {claim.until:%H:%M} UTC. You can look, and not decide."
    return f"{claim.holder} reads this scan at the moment. You can look, and decide when it is free."


def _may_undo(row: Row, reader: Reader) -> bool:
    return bool(row.decision_id) and (row.decided_by == reader.name or reader.may("undo_any"))


def _told(entry: Told) -> dict[str, Any]:
    return {
        "outcome": entry.outcome,
        "words": state_words(entry.outcome),
        "by": entry.by,
        "at": entry.at.isoformat(),
        "when": age(entry.at),
        "finding": " · ".join(word for word in (entry.meaning, entry.text) if word),
        "comment": entry.comment,
        "has_region": entry.region is not None,
        "withdrawn": entry.withdrawn,
        "withdraws": entry.withdraws is not None,
    }


def _text(form: FormData, name: str, longest: int) -> str:
    """Return a field; what is longer than any honest one is cut so that it is refused as too long, not carried on."""
    return str(form.get(name, "")).strip()[:longest]


def _number(form: FormData, name: str) -> int:
    text = _text(form, name, 20)
    if not text.isascii() or not text.isdigit():
        raise BadInput("The form lacks what it was made from. Load the page again.")
    return int(text)


def _region(text: str, stacks: Stacks) -> dict[str, Any] | None:
    """Return a drawn region with the image that it lies on; None where none was drawn.

    Raises:
        BadInput: it is no region, or of an image that the scan does not have.
    """
    if not text:
        return None
    try:
        region = Region.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        raise BadInput("The drawn region cannot be read. Draw it again.") from None
    if region.layout not in ("", stacks.layout):
        raise BadInput(CHANGED)
    ref = stacks.ref(region.stack, region.index)
    if ref is None:
        raise BadInput("The region lies on an image that this scan does not have. Draw it again.")
    return {"instance_id": ref.instance_id, "frame": ref.frame, "points": [list(point) for point in region.points]}
