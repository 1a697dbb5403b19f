"""The reading list: filters, search, pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from pipeline.errors import ReviewError
from pipeline.review.web.access import CheckedForm, Lister, Reader, ReaderHere, RoomHere
from pipeline.review.web.app_state import Room
from pipeline.review.web.assigning import readers
from pipeline.review.web.listing import TO_READ, ListQuery, shown_row
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
WHOSE = {"": "anybody's", "held": "held by me", "decided": "decided by me"}

router = APIRouter()


@router.get("/")
def worklist(request: Request, room: RoomHere, reader: ReaderHere, asked: Annotated[ListQuery, Query()]) -> Response:
    """Show a page of the list; htmx gets the rows alone. Whoever does not read scans begins at another page."""
    if not reader.may("list"):
        return RedirectResponse(first_page(reader), 303)
    problem, query = "", asked.of(reader)
    try:
        found = room.review.worklist.page(query)
    except ReviewError as error:
        found, problem = Page(rows=(), has_next=False, has_previous=False), str(error)
    counts = room.review.worklist.counts(query)
    shown = _rows(room, found, asked, counts, problem)
    if request.headers.get("hx-target") == "list":
        return room.templates.TemplateResponse(request, "worklist_rows.html", shown)
    return _list_page(request, room, reader, asked, shown)


@router.post("/accession")
async def by_accession(request: Request, room: RoomHere, reader: Lister, form: CheckedForm) -> Response:
    """Show the scans of an accession number, which comes in a form: addresses are remembered and logged."""
    return await run_in_threadpool(_by_accession, request, room, reader, str(form.get("accession", ""))[:64])


def _by_accession(request: Request, room: Room, reader: Reader, accession: str) -> Response:
    found, problem = Page(rows=(), has_next=False, has_previous=False), ""
    try:
        ids = room.review.worklist.by_accession(accession, reader.actor)
        if ids:
            found = room.review.worklist.page(WorklistQuery(accession_ids=ids))
        else:
            problem = "No scan on the list has this accession number."
    except ReviewError as error:
        problem = str(error)
    asked = ListQuery(state="all")
    counts = room.review.worklist.counts(asked.of(reader))
    shown = {**_rows(room, found, asked, {"all": len(found.rows)}, problem), "tabs": _tabs(counts)}
    return _list_page(request, room, reader, asked, shown)


def _list_page(request: Request, room: Room, reader: Reader, asked: ListQuery, shown: dict[str, Any]) -> Response:
    shown |= {
        "query": asked,
        "selects": [*_selects(room, asked, room.review.worklist.facets()), *_fixed(asked)],
        "readers": readers(room, reader),
        "may_reveal": reader.may("search_accession"),
    }
    return page(request, room, reader, "worklist.html", "list", **shown)


def _rows(room: Room, found: Page, asked: ListQuery, counts: Mapping[str, int], problem: str) -> dict[str, Any]:
    total = _total(asked, counts)
    return {
        "rows": [shown_row(room, row) for row in found.rows],
        "tabs": _tabs(counts),
        "held_back": any(not row.revealed for row in found.rows),
        "tail": f"?{urlencode(asked.filters())}" if asked.filters() else "",
        "words": f"{thousands(total)} scan{'' if total == 1 else 's'} in order of priority",
        "previous": _link(asked, before=found.rows[0].finding_id) if found.has_previous and found.rows else None,
        "next": _link(asked, after=found.rows[-1].finding_id) if found.has_next and found.rows else None,
        "empty": problem or _empty(asked),
    }


def _total(asked: ListQuery, counts: Mapping[str, int]) -> int:
    states = asked.states()
    return sum(counts.get(state, 0) for state in states) if states else counts.get("all", 0)


def _link(asked: ListQuery, **place: int) -> str:
    return "/?" + urlencode({**asked.filters(), **place})


def _tabs(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """One tab a state, after what still needs somebody and everything."""
    numbers = {"open": sum(counts.get(state, 0) for state in TO_READ), "all": counts.get("all", 0)}
    numbers |= {state: counts.get(state, 0) for state in STATES}
    names = {"open": "to read"}
    return [
        {"value": value, "name": names.get(value, state_words(value)), "count": thousands(count)}
        for value, count in numbers.items()
    ]


def _selects(room: Room, asked: ListQuery, facets: Facets) -> list[dict[str, Any]]:
    """Return the filters that choose among what is on the list."""
    names = room.model_names() if len(facets.model) > 1 else {}
    return [
        _select(name, words, getattr(asked, name), {"": every} | {one: names.get(one, one[:64]) for one in found})
        for name, (words, every) in SELECTS.items()
        if (found := getattr(facets, name)) and (name != "model" or len(found) > 1)
    ]


def _fixed(asked: ListQuery) -> list[dict[str, Any]]:
    return [_select("age", "Age", asked.age, AGE_WORDS), _select("whose", "Whose", asked.whose, WHOSE)]


def _select(name: str, words: str, chosen: str, options: Mapping[str, str]) -> dict[str, Any]:
    return {"name": name, "words": words, "chosen": chosen, "options": list(options.items())}


def _empty(asked: ListQuery) -> str:
    if set(asked.filters()) - {"state"}:
        return "No scan fits these filters."
    return "Nothing is left to read." if asked.state == "open" else "There is no such scan."
