"""Refusals of files by what the catalogue holds, each with its remedy, and what has them judged again after it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.schema import SourceFile
from pipeline.errors import Rejected, RejectionCode


def judge_again(session: Session, code: RejectionCode) -> None:
    """Have the next ingest read the files again that were refused for a reason, as what refused them has changed."""
    session.execute(update(SourceFile).where(SourceFile.outcome == code.value).values(rules=""))


def refuse_erased(patient_id: str) -> Rejected:
    """Return the refusal of a file of a patient whose data was erased."""
    return Rejected(
        RejectionCode.FORGOTTEN,
        f"The data of the patient {patient_id[:12]} was erased, so their files are not taken in again. To take "
        f"them in on purpose, run nightread forget {patient_id} --readmit first.",
    )


def refuse_removed(at: datetime, study_id: str) -> Rejected:
    """Return the refusal of a file, or of a series, of a study whose pixels were removed at a time."""
    return Rejected(
        RejectionCode.REMOVED,
        f"The pixels of this series were removed by retention on {at:%Y-%m-%d}. To take its files in again, run "
        f"nightread retention readmit {study_id}, and ingest them.",
    )


def refuse_other_owner(what: str, owner: str, claimed: str) -> Rejected:
    """Return the refusal of a file whose study, series or SOP instance (`what`) belongs to another owner than it says.

    Args:
        what: "study", which a patient owns, "series" or "SOP instance".
        owner: pseudonym of who has it.
        claimed: pseudonym of who the file says has it.
    """
    remedy = "Correct the sender: new objects need new UIDs."
    if what == "study":
        remedy = f"If the two patients are one person, run `nightread identity merge {owner} {claimed}` and ingest the "
        remedy += "file again; otherwise correct the sender."
    return Rejected(
        RejectionCode.CONFLICTING_DUPLICATE,
        f"The {what} already belongs to {owner[:12]}, but this file claims {claimed[:12]}. The first one is kept and "
        f"nothing was overwritten. {remedy}",
    )
