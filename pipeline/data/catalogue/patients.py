"""Merges of two patients who are one person: their studies, labels and findings are joined; test membership wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.refuse_again import judge_again
from pipeline.data.catalogue.schema import FindingRow, LabelRow, MergedPatient, Patient, Study
from pipeline.errors import CatalogueError, RejectionCode

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.dicom.identity.crosswalk import Crosswalk

# Which set is used when two meet. Held-out sets come first, so that no later model sees what they hold. Among the
# normal sets the training set does, so that nobody who was trained on is used for calibration.
_PRECEDENCE = ("test", "gate", "develop", "train", "validate", "calibrate")


def merge_patients(catalogue: Catalogue, keep: str, absorb: str, or_refused: bool = False) -> str | None:
    """Join the patient `absorb` to `keep` (pseudonyms, or ones absorbed before); return the set of the joint patient.

    Files that still carry the absorbed identifier go to `keep` from now on. The draw of `keep` stays. A model trained
    on a patient who is now in test keeps its weights: train it again before you trust its test figures. Files that were
    refused because both claim them are read again by the next ingest.

    Args:
        catalogue: of the patients.
        keep: who remains.
        absorb: who is joined to `keep`.
        or_refused: `absorb` may be a patient whose every file was refused, so that the catalogue has nothing of theirs.

    Raises:
        CatalogueError: one of the two is not in the catalogue, or both are the same patient already.
    """
    with catalogue.session() as session:
        survivor = _patient(session, keep)
        judge_again(session, RejectionCode.CONFLICTING_DUPLICATE)
        if or_refused and find_merged(session, absorb) == absorb and session.get(Patient, absorb) is None:
            session.add(MergedPatient(absorbed_id=absorb, patient_id=survivor.patient_id))
            return survivor.set_name
        absorbed = _patient(session, absorb)
        if survivor.patient_id == absorbed.patient_id:
            raise CatalogueError(
                f"Both names are the same patient already ({survivor.patient_id[:12]}). No action is needed."
            )
        _move(session, survivor.patient_id, absorbed.patient_id)
        _join_sets(survivor, absorbed)
        survivor.identified = survivor.identified or absorbed.identified
        survivor.image_is_subject = survivor.image_is_subject and absorbed.image_is_subject
        session.delete(absorbed)
        session.flush()
        session.add(MergedPatient(absorbed_id=absorbed.patient_id, patient_id=survivor.patient_id))
        return survivor.set_name


def find_patient(catalogue: Catalogue, crosswalk: Crosswalk, who: str, or_refused: bool = False) -> str:
    """Return the pseudonym of the patient named by `who`.

    Args:
        who: a pseudonym (also one retired by a rotation or absorbed by a merge), a Patient ID, or `ID^^^ISSUER` as in
            HL7, where several issuers use the same Patient ID.
        or_refused: it may be a patient whose every file was refused, so that only the crosswalk has them.

    Raises:
        CatalogueError: no patient, or more than one, has that name; the message does not repeat it.
    """
    number, _, issuer = who.strip().partition("^^^")
    with catalogue.session() as session:
        candidates = [crosswalk.current_id(number), *crosswalk.find_patients(number, issuer)]
        named = {find_merged(session, candidate) for candidate in candidates}
        matches = sorted(name for name in named if session.get(Patient, name) is not None)
    refused = [] if matches else sorted(name for name in named if crosswalk.has_patient(name))
    matches = refused if or_refused and not matches else matches
    if len(matches) == 1:
        return matches[0]
    if matches:
        short = ", ".join(name[:12] for name in matches)
        raise CatalogueError(
            f"{len(matches)} patients have that Patient ID ({short}). Name the issuer as in ID^^^ISSUER, or give a "
            "pseudonym."
        )
    if refused:
        raise CatalogueError(
            "Every file of that patient was refused, so nothing of theirs is in the catalogue. To merge them with "
            "another patient, give the other one first: `nightread identity merge OTHER THIS`."
        )
    raise CatalogueError(
        "No patient in the catalogue has that name. Give a Patient ID as in the scans' headers, ID^^^ISSUER, or a "
        "pseudonym: `nightread flagged` lists studies, `nightread identity reveal` shows who is behind a pseudonym."
    )


def _patient(session: Session, pseudonym: str) -> Patient:
    merged = session.get(MergedPatient, pseudonym)
    patient = session.get(Patient, merged.patient_id if merged else pseudonym)
    if patient is None:
        raise CatalogueError(f"The catalogue has no patient {pseudonym[:12]}. Check the pseudonym and the workspace.")
    return patient


def _move(session: Session, keep: str, absorb: str) -> None:
    for table in (Study, FindingRow, MergedPatient):
        session.execute(update(table).where(table.patient_id == absorb).values(patient_id=keep))
    labels = update(LabelRow).where(LabelRow.level == "patient", LabelRow.subject == absorb)
    session.execute(labels.values(subject=keep))


def _join_sets(survivor: Patient, absorbed: Patient) -> None:
    before = (survivor.set_name, absorbed.set_name)
    winner = next((name for name in _PRECEDENCE if name in before), None)
    if winner != survivor.set_name:
        survivor.set_name = winner
        survivor.set_reason = f"merge: {winner} before {before[0] or 'no set'}"


def find_merged(session: Session, pseudonym: str) -> str:
    """Return the patient that a pseudonym was merged into; one that was never absorbed is returned unchanged."""
    query = select(MergedPatient.patient_id).where(MergedPatient.absorbed_id == pseudonym)
    return session.scalar(query) or pseudonym
