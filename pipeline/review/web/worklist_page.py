"""Page of the reading list: filters, search, paging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.permissions import may_identify
from pipeline.review.row_facts import NOTHING, read_scan_facts
from pipeline.review.web.access import CheckedForm, Lister, Reader, ReaderHere, RoomHere
from pipeline.review.web.app_state import Room
from pipeline.review.web.assigning import readers
from pipeline.review.web.listing import TO_READ, ListQuery, shown_row, taken_words
from pipeline.review.web.pages import first_page, page
from pipeline.review.web.words import state_words, thousands
from pipeline.review.worklist import STATES, Facets, Page, WorklistQuery

SELECTS = {
    "modality": ("Modality", "any modality"),
    "body_part": ("Body part", "any body part"),
    "route": ("Route", "any route"),
    "model": ("Model", "any model"),
}
AGE_WORDS = {
    "": "of any age",
    "day": "of the last 24 hours",
    "three-days": "of the last 3 days",
    "week": "of the last week",
    "older": "older than a week",
}
ORDER_WORDS = {"priority": "in order of priority", "newest": "newest first", "oldest": "oldest first"}
DENSITIES = {"": "with pictures", "compact": "compact"}
WHOSE = {"": "anybody's", "held": "held by me", "decided": "decided by me"}

router = APIRouter()


@router.get("/")
def worklist(request: Request, room: RoomHere, reader: ReaderHere, filters: Annotated[ListQuery, Query()]) -> Response:
    """Show a page of the list; htmx gets the rows alone. Users who may not list scans are sent to their first page."""
    if not reader.may("list"):
        return RedirectResponse(first_page(reader), 303)
    problem, query = "", filters.of(reader)
    try:
        rows = room.review.worklist.read_page(query)
    except ReviewError as error:
        rows, problem = Page(rows=(), has_next=False, has_previous=False), str(error)
    counts = room.review.worklist.count_states(query)
    context = _rows(room, reader, rows, filters, counts, problem)
    if request.headers.get("hx-target") == "list":
        return room.templates.TemplateResponse(request, "worklist_rows.html", context)
    return _list_page(request, room, reader, filters, context)


@router.post("/accession")
async def by_accession(request: Request, room: RoomHere, reader: Lister, form: CheckedForm) -> Response:
    """Show the scans of an accession number, sent in a form, since browsers and proxies store and log addresses."""
    return await run_in_threadpool(_by_accession, request, room, reader, str(form.get("accession", ""))[:64])


def _by_accession(request: Request, room: Room, reader: Reader, accession: str) -> Response:
    matches, problem = Page(rows=(), has_next=False, has_previous=False), ""
    try:
        ids = room.review.worklist.by_accession(accession, reader.actor)
        if ids:
            matches = room.review.worklist.read_page(WorklistQuery(accession_ids=ids, viewer=reader.name))
        else:
            problem = "No scan on the list has this accession number."
    except ReviewError as error:
        problem = str(error)
    filters = ListQuery(state="all")
    counts = room.review.worklist.count_states(filters.of(reader))
    context = {**_rows(room, reader, matches, filters, {"all": len(matches.rows)}, problem), "tabs": _tabs(counts)}
    return _list_page(request, room, reader, filters, context)


def _list_page(request: Request, room: Room, reader: Reader, filters: ListQuery, context: dict[str, Any]) -> Response:
    context |= {
        "query": filters,
        "selects": [*_selects(room, filters, room.review.worklist.facets()), *_fixed(filters)],
        "readers": readers(room, reader),
        "unsigned": [(number, study[:12]) for number, study in room.review.drafts.list_unsigned(reader.actor)],
        "may_reveal": reader.may("search_accession"),
    }
    return page(request, room, reader, "worklist.html", "list", **context)


def _rows(
    room: Room, reader: Reader, matches: Page, filters: ListQuery, counts: Mapping[str, int], problem: str
) -> dict[str, Any]:
    total, studies = _total(filters, counts), {row.study_id for row in matches.rows}
    facts, taken = read_scan_facts(room.catalogue, studies), taken_words(room, studies, reader)
    return {
        "rows": [
            {**shown_row(room, row), "facts": facts.get(row.study_id, NOTHING), "taken": taken.get(row.study_id, "")}
            for row in matches.rows
        ],
        "dated": bool(taken),
        "identify": may_identify(reader.actor, room.review.policy),
        "compact": filters.density == "compact",
        "tabs": _tabs(counts),
        "held_back": any(not row.revealed for row in matches.rows),
        "tail": f"?{urlencode(filters.filters())}" if filters.filters() else "",
        "words": f"{thousands(total)} scan{'' if total == 1 else 's'} {ORDER_WORDS[filters.order]}",
        "previous": _link(filters, before=matches.rows[0].finding_id)
        if matches.has_previous and matches.rows
        else None,
        "next": _link(filters, after=matches.rows[-1].finding_id) if matches.has_next and matches.rows else None,
        "empty": problem or _empty(filters),
    }


def _total(filters: ListQuery, counts: Mapping[str, int]) -> int:
    states = filters.states()
    return sum(counts.get(state, 0) for state in states) if states else counts.get("all", 0)


def _link(filters: ListQuery, **place: int) -> str:
    return "/?" + urlencode({**filters.filters(), **place})


def _tabs(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the tabs: scans to read, all scans, then one tab per state."""
    numbers = {"open": sum(counts.get(state, 0) for state in TO_READ), "all": counts.get("all", 0)}
    numbers |= {state: counts.get(state, 0) for state in STATES}
    names = {"open": "to read"}
    return [
        {"value": value, "name": names.get(value, state_words(value)), "count": thousands(count)}
        for value, count in numbers.items()
    ]


def _selects(room: Room, filters: ListQuery, facets: Facets) -> list[dict[str, Any]]:
    """Return the filters whose choices come from the list."""
    names = room.model_names() if len(facets.model) > 1 else {}
    return [
        _select(name, words, getattr(filters, name), {"": every} | {one: names.get(one, one[:64]) for one in values})
        for name, (words, every) in SELECTS.items()
        if (values := getattr(facets, name)) and (name != "model" or len(values) > 1)
    ]


def _fixed(filters: ListQuery) -> list[dict[str, Any]]:
    fixed = [_select("age", "Age", filters.age, AGE_WORDS), _select("whose", "Whose", filters.whose, WHOSE)]
    fixed.append(_select("order", "Order", filters.order, ORDER_WORDS))
    return [*fixed, _select("density", "Density", filters.density, DENSITIES)]


def _select(name: str, words: str, chosen: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "words": words, "chosen": chosen, "options": list(options.items())}


def _empty(filters: ListQuery) -> str:
    if set(filters.filters()) - {"state", "order", "density"}:
        return "No scan matches these filters."
    return "Nothing is left to read." if filters.state == "open" else "No scan is in this state."
