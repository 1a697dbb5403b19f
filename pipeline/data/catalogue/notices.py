"""Notices: conditions that a person should hear of, such as a champion that cannot be loaded.

A notice is raised once, stays raised however often it is seen, and is cleared when it has passed. Whoever sends alerts
reads `list_notices`: one that is raised opens an alert, one that is gone recovers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import NoticeRow
from pipeline.data.catalogue.schema import now

Severity = Literal["warning", "critical"]
CHARACTERS = 96  # of a key


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that is raised: its key (`champion:ROUTE`, `drift:ROUTE`), severity, sentence, and since when (UTC)."""

    key: str
    severity: str
    sentence: str
    raised_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"raised_at": f"{self.raised_at.isoformat()}Z"}


def update_notices(catalogue: Catalogue, prefix: str, present: Mapping[str, tuple[Severity, str]]) -> None:
    """Raise what is present and not raised yet, and clear what is raised and no longer present.

    Args:
        catalogue: where the notices are.
        prefix: of the keys that the caller looks after, such as `champion:`; others are left as they are.
        present: severity and sentence by key; a sentence that has changed replaces the earlier one.
    """
    with catalogue.session() as session:
        rows = session.scalars(select(NoticeRow).where(NoticeRow.cleared_at.is_(None)))
        raised = {row.key: row for row in rows if row.key.startswith(prefix)}
        for key, row in raised.items():
            if key not in present:
                row.cleared_at = now()
        for key, (severity, sentence) in present.items():
            short = key[:CHARACTERS]
            row = raised.get(short) or NoticeRow(key=short, severity=severity, sentence=sentence)
            row.severity, row.sentence = severity, sentence
            session.add(row)


def list_notices(catalogue: Catalogue) -> list[Notice]:
    """Return the notices that are raised now, oldest first."""
    query = select(NoticeRow).where(NoticeRow.cleared_at.is_(None)).order_by(NoticeRow.id)
    with catalogue.reading() as session:
        return [Notice(row.key, row.severity, row.sentence, row.raised_at) for row in session.scalars(query)]
