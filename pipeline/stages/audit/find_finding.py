"""Find the one finding that a person names: by its number, or by the beginning of its study's pseudonym."""

from __future__ import annotations

from sqlalchemy import select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.errors import CatalogueError

SHORTEST = 6  # digits of a pseudonym that are taken as one, and not as a number of a finding
LONGEST_NUMBER = 9


def find_finding(catalogue: Catalogue, name: str) -> FindingRow:
    """Return the finding that `name` means.

    Args:
        catalogue: where the findings are.
        name: a finding's number, or the beginning of its study's pseudonym, as `nightread flagged` prints it; where
            several detectors read the study, followed by `/` and the route.

    Raises:
        CatalogueError: no finding has that name, or several do; the message lists their numbers.
    """
    study, _, route = name.strip().partition("/")
    with catalogue.reading() as session:
        row = session.get(FindingRow, int(study)) if not route and _is_number(study) else None
        if row is not None:
            return row
        query = select(FindingRow).where(FindingRow.study_id.startswith(study, autoescape=True))
        query = query.where(FindingRow.route == route) if route else query
        rows = list(session.scalars(query.order_by(FindingRow.id))) if len(study) >= SHORTEST else []
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise CatalogueError(
            f"No finding has the name {name[:40]!r}. Give its number, or at least {SHORTEST} digits of its study's "
            "pseudonym, as nightread flagged --all prints it."
        )
    listed = ", ".join(f"{row.id} ({row.route}, detector {row.model_sha256[:8]})" for row in rows[:10])
    raise CatalogueError(f"{len(rows)} findings have the name {name[:40]!r}: {listed}. Give the number of one.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER
