"""Two patients who turn out to be one: their studies, labels and findings are joined, and test membership wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.schema import FindingRow, LabelRow, MergedPatient, Patient, Study
from pipeline.errors import CatalogueError

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.dicom.identity.crosswalk import Crosswalk

# Which set stands when two meet. Held-out sets first, so that no later model sees what they hold; among the normal
# sets the one that was trained on, so that nobody who was trained on ever calibrates.
_PRECEDENCE = ("test", "gate", "develop", "train", "validate", "calibrate")


def merge_patients(catalogue: Catalogue, keep: str, absorb: str) -> str | None:
    """Join the patient `absorb` to `keep` (pseudonyms; former ones of earlier merges too); return the set that stands.

    Files that still carry the absorbed identifier go to `keep` from now on. The draw of `keep` stays. A model that was
    trained on a patient who is now in test keeps its weights: train it again before its test figures are believed.

    Raises:
        CatalogueError: one of the two is not in the catalogue, or they are one already.
    """
    with catalogue.session() as session:
        kept, absorbed = _patient(session, keep), _patient(session, absorb)
        if kept.patient_id == absorbed.patient_id:
            raise CatalogueError(f"The two are one patient already ({kept.patient_id[:12]}); nothing to merge.")
        _move(session, kept.patient_id, absorbed.patient_id)
        _join_sets(kept, absorbed)
        kept.identified = kept.identified or absorbed.identified
        kept.image_is_subject = kept.image_is_subject and absorbed.image_is_subject
        session.delete(absorbed)
        session.flush()
        session.add(MergedPatient(absorbed_id=absorbed.patient_id, patient_id=kept.patient_id))
        return kept.set_name


def find_patient(catalogue: Catalogue, crosswalk: Crosswalk, who: str) -> str:
    """Return the pseudonym of the catalogue's patient whom `who` names.

    Args:
        who: a pseudonym (also one that a rotation retired or a merge absorbed), a Patient ID, or `ID^^^ISSUER` as HL7
            writes it, where several issuers gave the same Patient ID out.

    Raises:
        CatalogueError: nobody, or more than one patient, goes by that name; the sentence does not repeat it.
    """
    number, _, issuer = who.strip().partition("^^^")
    with catalogue.session() as session:
        candidates = [crosswalk.current_id(number), *crosswalk.find_patients(number, issuer)]
        named = {merged_into(session, candidate) for candidate in candidates}
        found = sorted(name for name in named if session.get(Patient, name) is not None)
    if len(found) == 1:
        return found[0]
    if found:
        short = ", ".join(name[:12] for name in found)
        raise CatalogueError(
            f"{len(found)} patients go by that Patient ID ({short}). Name the issuer, ID^^^ISSUER, or give a pseudonym."
        )
    raise CatalogueError(
        "No patient of the catalogue goes by that name. Give a Patient ID as in the scans' headers, ID^^^ISSUER, or a "
        "pseudonym: nightread flagged shows studies, nightread identity reveal what stands behind a pseudonym."
    )


def _patient(session: Session, pseudonym: str) -> Patient:
    merged = session.get(MergedPatient, pseudonym)
    found = session.get(Patient, merged.patient_id if merged else pseudonym)
    if found is None:
        raise CatalogueError(f"The catalogue has no patient {pseudonym[:12]}. Give the pseudonym of one that it has.")
    return found


def _move(session: Session, keep: str, absorb: str) -> None:
    for table in (Study, FindingRow, MergedPatient):
        session.execute(update(table).where(table.patient_id == absorb).values(patient_id=keep))
    labels = update(LabelRow).where(LabelRow.level == "patient", LabelRow.subject == absorb)
    session.execute(labels.values(subject=keep))


def _join_sets(kept: Patient, absorbed: Patient) -> None:
    before = (kept.set_name, absorbed.set_name)
    stands = next((name for name in _PRECEDENCE if name in before), None)
    if stands != kept.set_name:
        kept.set_name = stands
        kept.set_reason = f"merge: {stands} before {before[0] or 'no set'}"


def merged_into(session: Session, pseudonym: str) -> str:
    """Return the patient that a pseudonym stands for after merges; one that was never absorbed comes back unchanged."""
    query = select(MergedPatient.patient_id).where(MergedPatient.absorbed_id == pseudonym)
    return session.scalar(query) or pseudonym
