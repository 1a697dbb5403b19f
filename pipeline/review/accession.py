"""Search by accession number: allowed for some roles, done through the crosswalk, recorded in the audit log."""

from __future__ import annotations

from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.review_schema import ReadingEntry
from pipeline.data.catalogue.schema import FindingRow
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.review.audit import Audit
from pipeline.review.permissions import Actor
from pipeline.review.text import clean_text

LONGEST = 64  # DICOM allows 16 (VR SH); some senders ignore the limit


class Accession:
    """Finds rows of the list by the hospital's accession number of a study; the number itself is never stored."""

    def __init__(self, catalogue: Catalogue, settings: Settings, audit: Audit) -> None:
        self._catalogue, self._settings, self._audit = catalogue, settings, audit

    def find(self, number: str, actor: Actor) -> tuple[int, ...]:
        """Return the findings of the list whose study has an accession number.

        Raises:
            NotAllowed: the actor may not search; the attempt is recorded too.
            BadText: the number is not text, or is too long.
        """
        if not actor.may("search_accession"):
            self._audit.record("accession-search", actor, detail={"refused": True})
            actor.require("search_accession")
        accession = clean_text(number, "accession number", LONGEST)
        with Crosswalk.open(self._settings) as crosswalk:
            studies = crosswalk.find_studies(accession=accession)
        finding_ids: list[int] = []
        with self._catalogue.reading() as session:
            for part in chunks(studies):
                query = select(FindingRow.id).join(ReadingEntry, ReadingEntry.finding_id == FindingRow.id)
                finding_ids += session.scalars(query.where(FindingRow.study_id.in_(part)))
        self._audit.record("accession-search", actor, detail={"found": len(finding_ids)})
        return tuple(sorted(finding_ids))
