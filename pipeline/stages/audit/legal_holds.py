"""Legal holds, and studies that are let in again after retention: each with a line in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.removed_pixels import find_patient_of, list_holds, place_hold, readmit_study, release_hold
from pipeline.data.catalogue.review_schema import AuditEntry
from pipeline.data.catalogue.schema import now


@contextmanager
def _recorded(settings: Settings, action: str) -> Iterator[Session]:
    """Yield a writing transaction that ends with a line in the audit log, whose lines never name a patient."""
    with Catalogue.open(settings) as catalogue:
        chain = Chain.open(settings, catalogue)
        row: dict[str, Any] = {"at": now(), "user_name": "command-line", "role": "command-line", "address": "local"}
        with catalogue.session() as session:
            yield session
            chain.append(session, AuditEntry, {**row, "action": action, "subject": "", "detail": {}})


def hold_patient(settings: Settings, name: str, why: str) -> str:
    """Keep a patient's data from now on, and return the pseudonym.

    Args:
        settings: the workspace.
        name: the patient's pseudonym, or the number of one of the patient's findings.
        why: the reason, which is printed.

    Raises:
        CatalogueError: nobody has that name, the reason is missing, or the patient is on hold already.
    """
    with _recorded(settings, "hold") as session:
        patient_id = find_patient_of(session, name)
        place_hold(session, patient_id, why)
        return patient_id


def release_patient(settings: Settings, name: str) -> str:
    """End the hold on a patient's data, and return the pseudonym; see `hold_patient`.

    Raises:
        CatalogueError: nobody has that name, or the patient is not on hold.
    """
    with _recorded(settings, "release") as session:
        patient_id = find_patient_of(session, name)
        release_hold(session, patient_id)
        return patient_id


def readmit(settings: Settings, study_id: str) -> int:
    """Let the files of a study in again, and return of how many series the pixels had been removed.

    Raises:
        CatalogueError: none had.
    """
    with _recorded(settings, "readmit") as session:
        return readmit_study(session, study_id)


def describe_holds(settings: Settings) -> list[dict[str, str]]:
    """Return the holds that are in effect, oldest first."""
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return [
            {"patient": one.patient_id, "since": f"{one.placed_at:%Y-%m-%d}", "why": one.why}
            for one in list_holds(session)
        ]
