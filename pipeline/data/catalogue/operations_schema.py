"""Tables of operations: promotions, notices for whoever watches the nights, measures of scans, claims of studies.

`promotions` is append-only and chained (`pipeline.data.catalogue.chain`). Only `scan_measures` and `scoring_claims`
hold pseudonyms, which follow their study through a key rotation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.data.catalogue.schema import Base, now


class PromotionRow(Base):
    """One move of a route's alias `champion`, or the refusal of a challenger: who, when, why, on which gate report.

    `action` is promote, override (against the gates), rollback or refuse. `run` and `version` are the new champion's,
    or the refused challenger's; the columns `replaced_*` those of the champion before, "" for the first and for a
    refusal.
    `report_sha256` is the gate report's, "" for a rollback.
    """

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now)
    route: Mapped[str] = mapped_column(String(64), index=True)
    action: Mapped[str] = mapped_column(String(16))
    run: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(16))
    detector_sha256: Mapped[str] = mapped_column(String(64))
    replaced_run: Mapped[str] = mapped_column(String(128), default="")
    replaced_version: Mapped[str] = mapped_column(String(16), default="")
    replaced_sha256: Mapped[str] = mapped_column(String(64), default="")
    who: Mapped[str] = mapped_column(String(64))
    why: Mapped[str]
    report_sha256: Mapped[str] = mapped_column(String(64), default="")
    chain_hash: Mapped[str] = mapped_column(String(64))


class PromotionForm(Base):
    """The token of a browser's form that has written a record, so that a form sent twice writes once."""

    __tablename__ = "promotion_forms"
    token: Mapped[str] = mapped_column(String(64), primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"))


class NoticeRow(Base):
    """Something that a person should know: raised once per `key`, and cleared when it has passed."""

    __tablename__ = "notices"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(96), index=True)  # champion:ROUTE | drift:ROUTE
    severity: Mapped[str] = mapped_column(String(16))  # warning | critical
    sentence: Mapped[str]
    raised_at: Mapped[datetime] = mapped_column(default=now)
    cleared_at: Mapped[datetime | None]


class ScanMeasures(Base):
    """Statistics of one study's images as a route's model sees them, measured before it is scored."""

    __tablename__ = "scan_measures"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.study_id", onupdate="CASCADE"))
    route: Mapped[str] = mapped_column(String(64))
    model_sha256: Mapped[str] = mapped_column(String(64))
    measures: Mapped[dict[str, Any]]
    measured_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("study_id", "route", "model_sha256"), Index(None, "route"))


class ScoringClaim(Base):
    """A study of a scoring run that has not ended; the claims of a run go when it ends.

    `state` is open, taken (by `worker`, until `expires_at`), done, or left to a later run. `result` is what became of
    a study that is done: {} without a finding. `deaths` counts the workers that died with nothing else in hand.
    """

    __tablename__ = "scoring_claims"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"))
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.study_id", onupdate="CASCADE"))
    model_sha256: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16), default="open")
    worker: Mapped[str] = mapped_column(String(64), default="")
    expires_at: Mapped[datetime | None]
    deaths: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    __table_args__ = (UniqueConstraint("study_id", "model_sha256"), Index(None, "run_id", "state"))
