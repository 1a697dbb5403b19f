"""Filters of the reading list as the address holds them, and the texts of one row."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.data.catalogue.review_schema import CLOSED
from pipeline.data.catalogue.schema import now
from pipeline.review.permissions import may_identify
from pipeline.review.study_dates import coarse_age
from pipeline.review.web.access import Reader
from pipeline.review.web.app_state import Room
from pipeline.review.web.words import age, state_words, thousands
from pipeline.review.worklist import STATES, Row, WorklistQuery
from pipeline.review.worklist_query import Order

PAGE_SIZE = 50
TO_READ = frozenset({"new", "in-review", "second-opinion"})
Whose = Literal["", "held", "decided"]
Density = Literal["", "compact"]
Age = Literal["", "day", "three-days", "week", "older"]
# Lower and upper bounds of the hours since a scan arrived.
AGES: dict[str, tuple[float | None, float | None]] = {
    "": (None, None),
    "day": (None, 24.0),
    "three-days": (None, 72.0),
    "week": (None, 168.0),
    "older": (168.0, None),
}


class ListQuery(BaseModel):
    """Filters of the list, as the address holds them; values that are not valid are rejected."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: str = Field("open", max_length=32, description="open (scans that still need a decision), all, or a state")
    search: str = Field("", max_length=64)
    modality: str = Field("", max_length=16)
    body_part: str = Field("", max_length=64)
    route: str = Field("", max_length=64)
    model: str = Field("", max_length=64, pattern="^[0-9a-f]*$", description="SHA-256 of the detector")
    age: Age = ""
    whose: Whose = ""
    order: Order = "priority"
    density: Density = ""
    after: int | None = Field(None, ge=1)
    before: int | None = Field(None, ge=1)

    def states(self) -> frozenset[str]:
        """Return the states to show; an unknown one matches no rows."""
        if self.state in ("open", "all", ""):
            return TO_READ if self.state == "open" else frozenset()
        return frozenset({self.state}) & frozenset(STATES)

    def of(self, reader: Reader) -> WorklistQuery:
        """Return the query for the list."""
        return WorklistQuery(
            states=self.states(),
            search=self.search.strip().lower(),
            modality=self.modality,
            body_part=self.body_part,
            route=self.route,
            model=self.model,
            min_age_hours=AGES[self.age][0],
            max_age_hours=AGES[self.age][1],
            holder=reader.name if self.whose == "held" else "",
            reader=reader.name if self.whose == "decided" else "",
            after=self.after,
            limit=PAGE_SIZE,
            before=self.before,
            order=self.order,
            viewer=reader.name,
        )

    def filters(self) -> dict[str, str]:
        """Return the filters that are not at their defaults, without the position in the list, for links."""
        plain = self.model_dump(exclude={"after", "before"}, exclude_defaults=True)
        return {name: str(value) for name, value in plain.items()}


def unusual_words(words: str, route: str) -> str:
    """Name the route of the normals and separate thousands: `... 99.6 % of 1 240 normal ct-chest scans`."""
    kind = words.replace(" normal ", f" normal {route} ")
    return re.sub(r"\d{4,}(?= normal)", lambda digits: thousands(int(digits[0])), kind)


def _reader(row: Row) -> str:
    if not row.holder:
        return row.decided_by
    return f"assigned to {row.holder}" if row.assigned else f"{row.holder} is reading"


def shown_row(room: Room, row: Row) -> dict[str, Any]:
    """Return the values of a row that pages show; none of them distinguishes a sampled scan from a flagged one."""
    version = room.versions.of(row.model_sha256, row.run_id)
    return {
        "id": row.finding_id,
        "study": row.study_id[:12],
        "modality": row.modality,
        "body_part": row.body_part,
        "route": row.route,
        "arrived": row.arrived_at.isoformat(),
        "age": age(row.arrived_at),
        "model": row.model,
        "model_sha256": row.model_sha256,
        "version": version,
        "state": row.state,
        "state_words": state_words(row.state),
        "holder": row.holder,
        "reader": _reader(row),
        "kept_for": row.holder if row.assigned else "",
        "decided_by": row.decided_by,
        "revealed": row.revealed,
        "closed": row.state in CLOSED,
        "words": unusual_words(row.words or "", row.route),
    }


def taken_words(room: Room, study_ids: Collection[str], reader: Reader) -> dict[str, str]:
    """Return when each study was made: its date for those who may see it, else its age in coarse words."""
    today, identify = now().date(), may_identify(reader.actor, room.review.policy)
    dates = room.review.dates.read(study_ids)
    return {one: f"{day:%d %b %Y}" if identify else coarse_age((today - day).days) for one, day in dates.items()}
