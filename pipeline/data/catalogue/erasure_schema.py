"""Tables of erasures: whose data was removed, as a journal that survives a kill, and texts that were taken out.

`redactions` is append-only. Its `seal` is a keyed hash over the row as it remains (`pipeline.data.catalogue.chain`), so
that the chain of decisions is still valid afterwards, and nobody with access to the database alone can empty a text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.data.catalogue.schema import Base, now


class Erasure(Base):
    """The erasure of one patient. Their pseudonym stays, so that findings and decisions are still somebody's.

    `steps` lists what is done; `record` holds what is left to do while it is unfinished, and counts afterwards.
    """

    __tablename__ = "erasures"
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.patient_id", onupdate="CASCADE"), primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    readmitted_at: Mapped[datetime | None]
    steps: Mapped[list[Any]] = mapped_column(default=list)
    record: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Redaction(Base):
    """A decision whose free text was taken out."""

    __tablename__ = "redactions"
    decision_id: Mapped[int] = mapped_column(ForeignKey("decisions.id"), primary_key=True)
    seal: Mapped[str] = mapped_column(String(64))
    redacted_at: Mapped[datetime] = mapped_column(default=now)
