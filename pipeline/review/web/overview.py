"""Overview pages: the night, the models, the audit log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import Response, StreamingResponse

from pipeline.data.catalogue.schema import now
from pipeline.review.hidden_studies import list_hidden_codes
from pipeline.review.night_charts import EVIDENCE, describe_trends, draw_trends, draw_watch, fold_reasons
from pipeline.review.night_document import name_report, write_night_document
from pipeline.review.night_facts import read_night_facts
from pipeline.review.night_pdf import write_pdf
from pipeline.review.web.access import Reader, RoomHere, require_permission
from pipeline.review.web.pages import page
from pipeline.stages.operations.drift import find_nights_beside, list_nights, read_drift, read_night
from pipeline.stages.operations.drift_watch import read_policy, recall_watch
from pipeline.stages.operations.model_card import list_scored_models, read_model_card
from pipeline.stages.operations.trends import read_trends

SHOWN = 100  # entries of the audit log on a page
MEDIA = {"html": "text/html; charset=utf-8", "pdf": "application/pdf"}

router = APIRouter()
NightReader = Annotated[Reader, Depends(require_permission("night"))]
ModelReader = Annotated[Reader, Depends(require_permission("model"))]
Auditor = Annotated[Reader, Depends(require_permission("audit"))]
Exporter = Annotated[Reader, Depends(require_permission("export_audit"))]


@router.get("/night")
def night_page(
    request: Request, room: RoomHere, reader: NightReader, day: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    """Show a night: counts of received, scored, flagged and rejected scans, and the drift of scores.

    `day` is any day (YYYY-MM-DD), without one the latest with a night; a day without events says so.
    """
    # Whoever decides must not learn from counts what the list hides: in a run of one study the count is the answer,
    # and an object of ours that came back belongs to a flagged scan.
    hidden = room.review.worklist.list_blind_runs() if reader.may("decide") else frozenset[str]()
    codes = list_hidden_codes(bool(hidden)) if reader.may("decide") else ()
    days = list_nights(room.catalogue, codes) or [now().date()]
    chosen = _day(day) or days[0]
    before, after = find_nights_beside(room.catalogue, chosen, codes)
    night, trends = (
        read_night(room.catalogue, chosen, hidden, codes),
        read_trends(room.catalogue, chosen, hidden, codes),
    )
    watch = recall_watch(room.catalogue, read_policy(room.settings), hidden)
    context: dict[str, Any] = {
        "found": night,
        "days": sorted({*days, chosen}, reverse=True),
        "before": before,
        "after": after,
        "empty": not (night["files"] or night["new"] or night["rejected"] or night["runs"]),
        "charts": draw_trends(trends),
        "legend": describe_trends(bool(trends.p_values), bool(hidden)),
        "evidence_legend": EVIDENCE,
        "refusals": fold_reasons(night["refusals"], trends.refusals),
        "unscored": fold_reasons(night["unscored"], {}),
        "drifts": sorted(read_drift(room.catalogue, hidden).items()),
        "evidence": draw_watch(watch),
        "changes": watch.sentences(),
    }
    return page(request, room, reader, "night.html", "night", **context)


@router.get("/night/report.{kind}")
def night_report(
    room: RoomHere, reader: NightReader, kind: Literal["html", "pdf"], day: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    """Send the report of a night as one file to save or print; it says what a reader may see, to everybody."""
    facts = read_night_facts(room.catalogue, room.settings, _day(day))
    document = write_night_document(facts)
    content: str | bytes = document if kind == "html" else write_pdf(document)
    headers = {"Content-Disposition": f'attachment; filename="{name_report(facts.day)}.{kind}"'}
    return Response(content, media_type=MEDIA[kind], headers=headers)


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise HTTPException(422, "The day is not a date of the form YYYY-MM-DD. Choose one on the page of the night.")


@router.get("/models")
def models_page(request: Request, room: RoomHere, reader: ModelReader) -> Response:
    """List the models that have scored."""
    return page(request, room, reader, "models.html", "models", found=list_scored_models(room.catalogue))


@router.get("/model/{sha256}")
def model_page(request: Request, room: RoomHere, reader: ModelReader, sha256: str) -> Response:
    """Show a model's card."""
    card = read_model_card(room.catalogue, room.settings, sha256)
    if card is None:
        raise HTTPException(404, "No model has this SHA-256. The Models page lists the models that have scored.")
    return page(request, room, reader, "model.html", "models", card=card)


@router.get("/audit")
def audit_page(
    request: Request, room: RoomHere, reader: Auditor, before: Annotated[int | None, Query(ge=1)] = None, who: str = ""
) -> Response:
    """Show who looked at what, newest first."""
    matches = room.review.audit.list_entries(limit=SHOWN + 1, before=before, user=who[:64])
    entries = [{**asdict(entry), "detail": _detail(entry.detail)} for entry in matches[:SHOWN]]
    older = matches[SHOWN - 1].id if len(matches) > SHOWN else None
    context: dict[str, Any] = {
        "entries": entries,
        "older": older,
        "who": who[:64],
        "may_export": reader.may("export_audit"),
    }
    return page(request, room, reader, "audit.html", "audit", **context)


@router.get("/audit.jsonl")
def audit_export(room: RoomHere, reader: Exporter) -> Response:
    """Send the whole audit log as JSON lines, oldest first; the export itself is recorded in it."""
    room.review.audit.record("export", reader.actor)
    lines = (f"{line}\n" for line in room.review.audit.write_lines())
    headers = {"Content-Disposition": 'attachment; filename="nightread-audit.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
