"""The scan page: look at a scan, decide, withdraw a decision."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import JSONResponse, RedirectResponse, Response

from pipeline.data.catalogue.removed_pixels import read_removed_on, say_removed
from pipeline.errors import NightreadError
from pipeline.review.decisions import Form, Told
from pipeline.review.drafts import Typed
from pipeline.review.finding_trail import find_closed_reason
from pipeline.review.locks import Claim
from pipeline.review.refusals import BadInput
from pipeline.review.row_facts import NOTHING, read_scan_facts
from pipeline.review.scan_data import scan_data, worst_places
from pipeline.review.web.access import CheckedForm, Decider, FindingId, Reader, RoomHere, Viewer, new_token
from pipeline.review.web.app_state import Room
from pipeline.review.web.drafting import keep_refused, list_kept, shown_draft, typed, window_of, windows_of
from pipeline.review.web.drawn_region import read_region
from pipeline.review.web.earlier import earlier_words
from pipeline.review.web.listing import ListQuery, shown_row, taken_words
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


@router.get("")
def scan_page(
    request: Request, finding_id: FindingId, room: RoomHere, viewer: Viewer, filters: Annotated[ListQuery, Query()]
) -> Response:
    """Show a scan. Opening it leases it to this reader, unless somebody else has it; the view is recorded first."""
    finding, row = room.read_finding(finding_id), room.review.worklist.read_row(finding_id, viewer.name)
    room.note_look(viewer.name, finding_id)
    room.review.audit.record("view", viewer.actor, f"finding:{finding_id}")
    stacks = room.stacks.read(finding.study_id)
    previous, following = room.review.worklist.find_neighbours(finding_id, filters.of(viewer))
    history = room.review.decisions.read_history(finding_id, viewer.actor)
    if not room.review.policy.first_look:
        room.review.first_looks.end(finding_id, "", viewer.actor)
    heatmap = room.review.first_looks.has_ended(finding_id, viewer.actor)
    hanging, most_points = room.review.hangings.of(finding.route), room.review.policy.region_points
    context = {
        "scan": {
            **scan_data(finding, stacks, row.revealed, history, heatmap, hanging, most_points),
            "earlier": earlier_words(room, finding.study_id, viewer),
        },
        "patient": read_scan_facts(room.catalogue, [finding.study_id]).get(finding.study_id, NOTHING).patient,
        "taken": taken_words(room, [finding.study_id], viewer).get(finding.study_id, ""),
        "site_viewer": room.review.viewer.may_offer(viewer.actor),
        "site_viewer_open": room.review.viewer.is_open(row),
        "other_rows": room.review.worklist.list_other_rows(finding_id),
        "left_out": "; ".join(series.sentence for series in stacks.left_out),
        "left_out_count": len(stacks.left_out),
        "trail_closed": find_closed_reason(room.catalogue, finding_id, viewer.actor) if viewer.may("trace") else "",
        "previous": previous,
        "following": following,
        "around": filters.filters(),
        **_decision(room, finding_id, viewer, taking=True),
    }
    if not stacks.stacks:
        with room.catalogue.reading() as session:
            day = read_removed_on(session, finding.study_id)
        missing = "The images of this scan are no longer in the catalogue. Ingest the scan again to see it."
        context["problem"] = say_removed(day) if day else missing
    return page(request, room, viewer, "scan.html", "list", **context)


@router.post("/decision")
async def decide(
    request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm
) -> Response:
    """Save a decision; a form older than the latest decision is returned with an explanation."""
    return await run_in_threadpool(_decide, request, finding_id, room, reader, form)


@router.post("/undo")
async def undo(request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Withdraw the latest decision; the decision and its withdrawal both stay on record."""
    return await run_in_threadpool(_undo, request, finding_id, room, reader, form)


@router.post("/heatmap")
async def heatmap(finding_id: FindingId, room: RoomHere, viewer: Viewer, form: CheckedForm) -> JSONResponse:
    """End the first look: from now on this reader is sent what the model saw. Returns the most unusual images."""
    await run_in_threadpool(room.review.first_looks.end, finding_id, _text(form, "first_look", 32), viewer.actor)
    finding = await run_in_threadpool(room.read_finding, finding_id)
    stacks = await run_in_threadpool(room.stacks.read, finding.study_id)
    return JSONResponse({"worst": worst_places(finding, stacks)})


@router.post("/hold")
async def hold(request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm) -> Response:
    """Renew this reader's lease while the page is open; 409 if somebody else has the scan by now."""
    _, reason = await run_in_threadpool(_taken, room, finding_id, reader, _text(form, "opening", 64))
    return Response(reason, 409 if reason else 200, media_type="text/plain")


@router.post("/release")
async def release(
    request: Request, finding_id: FindingId, room: RoomHere, reader: Decider, form: CheckedForm
) -> Response:
    """Release an undecided scan whose page was left, unless another page of this reader still shows it."""
    if room.note_left(reader.name, finding_id, _text(form, "opening", 64)):
        await run_in_threadpool(room.review.locks.release, finding_id, reader.actor)
    return Response(status_code=204)


def _decide(request: Request, finding_id: int, room: Room, reader: Reader, form: FormData) -> Response:
    try:
        stacks = room.stacks.read(room.read_finding(finding_id).study_id)
        filled = Form(
            finding_id=finding_id,
            outcome=_text(form, "outcome", 32),
            seen=_number(form, "seen"),
            token=_text(form, "token", 64),
            code=_text(form, "code", 200),
            text=str(form.get("text", "")),
            comment=str(form.get("comment", "")),
            region=read_region(str(form.get("region", "")), stacks),
            windows=windows_of(form),
            typed=typed(form),
        )
        room.review.decisions.decide(filled, reader.actor)
    except NightreadError as error:
        refused, version, words = keep_refused(room, finding_id, form, reader)
        form_again = {"draft": refused, "base": version, "window": window_of(form) or new_token()}
        problem = f"NOT SIGNED. {error} {words}"
        return _answer(request, finding_id, room, reader, problem=problem, form_again=form_again)
    return _answer(request, finding_id, room, reader, notice="Signed.")


def _undo(request: Request, finding_id: int, room: Room, reader: Reader, form: FormData) -> Response:
    try:
        room.review.decisions.undo(finding_id, _number(form, "seen"), _text(form, "token", 64), reader.actor)
    except NightreadError as error:
        return _answer(request, finding_id, room, reader, problem=f"NOT WITHDRAWN. {error}")
    return _answer(request, finding_id, room, reader, notice="Withdrawn. The scan is open again.")


def _answer(
    request: Request,
    finding_id: int,
    room: Room,
    reader: Reader,
    problem: str = "",
    notice: str = "",
    form_again: dict[str, Any] | None = None,
) -> Response:
    """Answer a script with a part of the page, and a browser without scripts with the page."""
    if not request.headers.get("hx-request") and notice:
        return RedirectResponse(f"/scan/{finding_id}", 303)
    context = {"user": reader, "csrf": reader.csrf, **_decision(room, finding_id, reader, taking=False)}
    context |= {"problem": problem or context["problem"], "notice": notice, **(form_again or {})}
    context["others"] = [one for one in context["drafts"] if one["version"] != context["base"]]
    response = room.templates.TemplateResponse(request, "decision.html", context)
    if notice:
        response.headers["X-Decided"] = "1"
    return response


def _decision(room: Room, finding_id: int, reader: Reader, taking: bool) -> dict[str, Any]:
    """Return the values of the decision part of the page."""
    opening = new_token()
    mine, held = _taken(room, finding_id, reader, opening) if taking else _free(room, finding_id, reader)
    row = room.review.worklist.read_row(finding_id, reader.name)
    history = room.review.decisions.read_history(finding_id, reader.actor)
    typed_so_far = list_kept(room, finding_id, reader)
    draft = typed_so_far[0] if typed_so_far else None
    return {
        "row": shown_row(room, row),
        "draft": draft.typed if draft else Typed(),
        "draft_age": age(draft.saved_at) if draft else "",
        "base": draft.version if draft else 0,
        "window": new_token(),
        "drafts": [shown_draft(one) for one in typed_so_far],
        "others": [shown_draft(one) for one in typed_so_far if draft and one.typed != draft.typed],
        "problem": "",
        "notice": "",
        "held_by": held,
        "may_decide": mine,
        "opening": opening,
        "outcomes": OUTCOMES,
        "codes": room.review.decisions.coded(),
        "history": [_told(entry) for entry in reversed(history)],
        "seen": row.decision_id,
        "token": new_token(),
        "longest": room.review.policy.comment_characters,
        "may_undo": _may_undo(row, reader),
    }


def _taken(room: Room, finding_id: int, reader: Reader, opening: str) -> tuple[bool, str]:
    """Take a scan or renew its lease for a page; return whether this reader may decide, and if not, why."""
    if not reader.may("decide"):
        return False, ""
    try:
        claim = room.review.locks.take(finding_id, reader.actor)
    except NightreadError as error:
        return False, str(error)
    if claim.mine and opening:
        room.note_open(reader.name, finding_id, opening)
    return claim.mine, "" if claim.mine else _reads(claim)


def _free(room: Room, finding_id: int, reader: Reader) -> tuple[bool, str]:
    claim = room.review.locks.find_holder(finding_id)
    other = claim is not None and claim.holder != reader.name
    return reader.may("decide") and not other, _reads(claim) if claim is not None and other else ""


def _reads(claim: Claim) -> str:
    if claim.assigned:
        return f"This scan is assigned to {claim.holder} until {claim.until:%H:%M} UTC. You can view it but not decide."
    return f"{claim.holder} is reading this scan. You can view it, and decide once it is free."


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
        "heatmap": entry.heatmap,
        "withdrawn": entry.withdrawn,
        "withdraws": entry.withdraws is not None,
    }


def _text(form: FormData, name: str, longest: int) -> str:
    """Return a field that a page fills by itself, cut just above any valid length; never a text that people type."""
    return str(form.get(name, "")).strip()[:longest]


def _number(form: FormData, name: str) -> int:
    text = _text(form, name, 20)
    if not text.isascii() or not text.isdigit():
        raise BadInput("The form is incomplete. Load the page again.")
    return int(text)
