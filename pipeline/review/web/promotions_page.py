"""The page of promotions: champions, the challengers that wait with their gate reports, and the forms that decide.

Gate reports count flags of recent nights. Whoever reads scans blind sees that count only while no scan is read blind;
the role that promotes does not read scans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from pipeline.data.catalogue.promotion_forms import SeenState
from pipeline.data.catalogue.promotion_records import list_promotions
from pipeline.errors import NightreadError, PromotionRefused
from pipeline.review.web.access import CheckedForm, Reader, RoomHere, new_token, require_permission
from pipeline.review.web.app_state import Room
from pipeline.review.web.pages import page
from pipeline.stages.operations.approvals import Challenger, RouteModels, approve, list_route_models, refuse
from pipeline.stages.operations.promotion import read_gates, rollback
from pipeline.stages.operations.promotion_move import REASON_CHARACTERS, Approval, list_outside_moves

HIDDEN = "Hidden while scans of these nights are being read blind, because it counts flags."

router = APIRouter()
ModelReader = Annotated[Reader, Depends(require_permission("model"))]
Promoter = Annotated[Reader, Depends(require_permission("promote"))]


@router.get("/promotions")
def promotions_page(request: Request, room: RoomHere, reader: ModelReader) -> Response:
    """Show champions, waiting challengers with their gate reports, and what was decided before."""
    return _page(request, room, reader)


@router.post("/promotions")
async def decide(request: Request, room: RoomHere, reader: Promoter, form: CheckedForm) -> Response:
    """Promote, refuse or roll back; a form that cannot be obeyed comes back with its reason as it was typed."""
    return await run_in_threadpool(_decide, request, room, reader, form)


def _decide(request: Request, room: Room, reader: Reader, form: FormData) -> Response:
    texts = {name: str(form.get(name, "")) for name in ("action", "run", "route", "token", "champion", "basis", "last")}
    why = " ".join(str(form.get("why", "")).split())
    is_script = bool(request.headers.get("hx-request"))
    try:
        _obey(room, reader, texts, why)
    except NightreadError as error:
        problem = f"NOT RECORDED. {error}"
        if is_script:
            raise HTTPException(409, problem) from None
        typed = {texts["run"] or texts["route"]: str(form.get("why", ""))}
        return _page(request, room, reader, problem, typed, 409)
    return PlainTextResponse("Recorded.") if is_script else RedirectResponse("/promotions", 303)


def _obey(room: Room, reader: Reader, texts: dict[str, str], why: str) -> None:
    """Record what a form asks for, and note it in the audit log."""
    if not texts["last"].isascii() or not texts["last"].isdigit() or len(texts["last"]) > 9:
        raise PromotionRefused("The form is incomplete. Load the page again.")
    seen = SeenState(texts["token"], int(texts["last"]), texts["champion"], texts["basis"])
    approval = Approval(reader.name, why)
    actions: dict[str, Callable[[], object]] = {
        "promote": lambda: approve(room.settings, room.catalogue, texts["run"], approval, seen),
        "refuse": lambda: refuse(room.settings, room.catalogue, texts["run"], approval, seen),
        "rollback": lambda: rollback(room.settings, texts["route"], approval, seen),
    }
    if texts["action"] not in actions:
        raise PromotionRefused(f"{texts['action'][:20]!r} is not among {', '.join(actions)}. Load the page again.")
    actions[texts["action"]]()
    record = list_promotions(room.catalogue)[0]
    room.review.audit.record(texts["action"], reader.actor, f"promotion:{record.id}", {"route": record.route})


def _page(
    request: Request,
    room: Room,
    reader: Reader,
    problem: str = "",
    typed: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    blind = reader.may("decide") and bool(room.review.worklist.list_blind_runs())
    routes = list_route_models(room.settings, room.catalogue)
    context: dict[str, Any] = {
        "routes": [_show_route(one, blind) for one in routes],
        "problem": problem,
        "typed": typed or {},
        "outside": list_outside_moves(room.settings, room.catalogue),
        "new_token": new_token,
        "longest": REASON_CHARACTERS,
        "may_promote": reader.may("promote"),
    }
    return page(request, room, reader, "promotions.html", "models", status, **context)


def _show_route(one: RouteModels, blind: bool) -> dict[str, Any]:
    return {
        "route": one.route,
        "champion": one.champion,
        "since": next((record for record in one.records if record.is_move), None),
        "waiting": [_show_challenger(challenger, blind) for challenger in one.waiting],
        "back": one.back,
        "records": one.records,
        "last": one.last,
    }


def _show_challenger(one: Challenger, blind: bool) -> dict[str, Any]:
    values: dict[str, Any] = {"run": one.run, "version": one.version, "obstacle": one.obstacle, "report": None}
    if one.report is None:
        return values
    lines = [asdict(line) for line in one.report.lines]
    for line in lines:
        if blind and line["gate"] == "shadow":
            line["sentence"] = HIDDEN
    limits, site = one.report.gates, read_gates().model_dump(mode="json")
    report = {
        "sha256": one.report_sha256,
        "measured_at": one.report.measured_at[:16].replace("T", " "),
        "champion": one.report.champion,
        "passed": one.report.passed,
        "lines": lines,
        "data": one.report.data,
        "limits": limits,
        "other_limits": [name for name, value in site.items() if limits.get(name) != value],
    }
    return {**values, "report": report}
