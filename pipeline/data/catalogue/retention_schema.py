"""Tables of retention: patients whose data must not be removed, and series whose pixels were."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.data.catalogue.schema import Base, now


class LegalHold(Base):
    """A patient whose data is on legal hold: neither retention nor an erasure removes it before `released_at`."""

    __tablename__ = "legal_holds"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.patient_id", onupdate="CASCADE"), index=True)
    why: Mapped[str]
    placed_at: Mapped[datetime] = mapped_column(default=now)
    released_at: Mapped[datetime | None]


class RemovedSeries(Base):
    """A series whose pixels were removed by retention; its rows, findings and decisions stay."""

    __tablename__ = "removed_series"
    series_id: Mapped[str] = mapped_column(ForeignKey("series.series_id", onupdate="CASCADE"), primary_key=True)
    removed_at: Mapped[datetime] = mapped_column(default=now)
    run: Mapped[str] = mapped_column(String(64))
