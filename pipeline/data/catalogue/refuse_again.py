"""Refusals of files that come again after their patient was erased, or their pixels were removed by retention."""

from __future__ import annotations

from datetime import datetime

from pipeline.errors import Rejected, RejectionCode


def refuse_erased(patient_id: str) -> Rejected:
    """Return the refusal of a file of a patient whose data was erased."""
    return Rejected(
        RejectionCode.FORGOTTEN,
        f"The data of the patient {patient_id[:12]} was erased, so their files are not taken in again. To take "
        f"them in on purpose, run nightread forget {patient_id} --readmit first.",
    )


def refuse_removed(at: datetime) -> Rejected:
    """Return the refusal of a file, or of a series, whose pixels were removed at a time."""
    return Rejected(
        RejectionCode.REMOVED,
        f"The pixels of this series were removed by retention on {at:%Y-%m-%d}. To take its files in again, run "
        "nightread retention readmit STUDY, and ingest them.",
    )
