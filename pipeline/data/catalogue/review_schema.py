"""Tables of the reading list: entries, decisions, reservations, users, and the audit trail.

`reading_frame`, `decisions`, `heatmap_views` and `audit_log` are append-only: triggers refuse UPDATE and DELETE (except
for a decision's `region_instance_id`, which follows its instance through a key rotation). `reading_list` holds nothing
that distinguishes a flagged finding from a sampled one; only `reading_frame` does. No other column here holds a
pseudonym.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.data.catalogue.schema import Base, now

NEW = "new"
OUTCOMES = ("confirmed", "dismissed", "unsure", "second-opinion")
CLOSED = ("confirmed", "dismissed", "unsure")  # after these the reader is shown the model's result


class ReadingDraw(Base):
    """One draw of unflagged findings at the end of a scoring run: its policy and its result."""

    __tablename__ = "reading_draws"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), primary_key=True)
    share: Mapped[float]
    least: Mapped[int]
    flagged: Mapped[int]
    unflagged: Mapped[int]
    sampled: Mapped[int]
    drawn_at: Mapped[datetime] = mapped_column(default=now)


class ReadingFrame(Base):
    """A finding as of the end of its run: flagged or not, and its probability of entering the list.

    Append-only: a finding that is scored again keeps its first row, because its probability belongs to that draw.
    """

    __tablename__ = "reading_frame"
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("reading_draws.run_id"), index=True)
    flagged: Mapped[bool]
    probability: Mapped[float]  # of inclusion; 1 for flagged findings
    selected: Mapped[bool]


class ReadingEntry(Base):
    """A finding on the reading list. `place` and `tie` order the list; `blinded` is the same for a whole run.

    Modality, body part, route and model are copied from the finding's scan, so that filters read one table.
    """

    __tablename__ = "reading_list"
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), primary_key=True)
    place: Mapped[float]
    tie: Mapped[float]
    modality: Mapped[str] = mapped_column(String(16))
    body_part: Mapped[str] = mapped_column(String(64))
    route: Mapped[str] = mapped_column(String(64))
    model_sha256: Mapped[str] = mapped_column(String(64))
    arrived_at: Mapped[datetime]
    blinded: Mapped[bool]
    listed_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index(None, "place", "tie", "finding_id"),)


class Decision(Base):
    """A reader's decision on a finding; append-only. `outcome` is the outcome in effect after this row.

    A row that `withdraws` another repeats the outcome that was in effect before it. `number` counts the rows of one
    finding; `token` makes a double click one decision. Run, model, score and p-value are copied, because a later run
    may score the study again. `region` is `{"pixel_key", "frame", "points": [[x, y], ...]}` in stored pixels;
    `region_instance_id` is the pseudonym of the image that holds them, and not part of `chain_hash`.
    """

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"))
    number: Mapped[int]
    token: Mapped[str] = mapped_column(String(64), unique=True)
    outcome: Mapped[str] = mapped_column(String(16))
    withdraws: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"))
    reader: Mapped[str] = mapped_column(String(64), index=True)
    code: Mapped[str] = mapped_column(String(64), default="")
    scheme: Mapped[str] = mapped_column(String(16), default="")
    meaning: Mapped[str] = mapped_column(String(255), default="")
    free_text: Mapped[str] = mapped_column(default="")
    comment: Mapped[str] = mapped_column(default="")
    region: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    region_instance_id: Mapped[str | None] = mapped_column(
        ForeignKey("instances.instance_id", onupdate="CASCADE"), index=True
    )
    run_id: Mapped[str] = mapped_column(String(64))
    model_sha256: Mapped[str] = mapped_column(String(64))
    score: Mapped[float]
    p_value: Mapped[float | None]
    blind: Mapped[bool]  # the reader did not know whether it was flagged
    decided_at: Mapped[datetime] = mapped_column(default=now)
    chain_hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (UniqueConstraint("finding_id", "number"), Index(None, "outcome", "finding_id", "number"))


class Draft(Base):
    """A decision as its reader typed it in one window and has not signed; signing there, or its words, deletes it.

    `region` is the drawn region as the page sent it. The texts may name a patient, and appear nowhere else.
    """

    __tablename__ = "drafts"
    version: Mapped[int] = mapped_column(primary_key=True)  # grows with every save, and is never used again
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"))
    reader: Mapped[str] = mapped_column(String(64))
    window_name: Mapped[str] = mapped_column(String(64), default="")
    outcome: Mapped[str] = mapped_column(String(64), default="")
    code: Mapped[str] = mapped_column(String(64), default="")
    text: Mapped[str] = mapped_column(default="")
    comment: Mapped[str] = mapped_column(default="")
    region: Mapped[str] = mapped_column(default="")
    saved_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("finding_id", "reader", "window_name"), {"sqlite_autoincrement": True})


class HeatmapView(Base):
    """When a reader was first shown what the model found in a scan; append-only.

    `first_look` is the outcome that they had chosen until then, "" if none: beside their decision it says whether
    heatmaps help.
    """

    __tablename__ = "heatmap_views"
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), primary_key=True)
    reader: Mapped[str] = mapped_column(String(64), primary_key=True)
    first_look: Mapped[str] = mapped_column(String(16), default="")
    seen_at: Mapped[datetime] = mapped_column(default=now)


class Lease(Base):
    """The reader of a finding, and until when it is reserved. `assigned`: reserved in advance, opened or not."""

    __tablename__ = "leases"
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64), index=True)
    taken_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    assigned: Mapped[bool] = mapped_column(default=False, server_default=false())


class User(Base):
    """A person who may log in. An empty `password_hash` matches no password: such users log in through a proxy."""

    __tablename__ = "users"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(255), default="")
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)


class UserSession(Base):
    """One log-in. Only the SHA-256 of its token is stored."""

    __tablename__ = "user_sessions"
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_name: Mapped[str] = mapped_column(ForeignKey("users.name"), index=True)
    address: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class LoginFailure(Base):
    """A failed log-in, under hashes of the name and of the address: people type passwords into the name field."""

    __tablename__ = "login_failures"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    failed_at: Mapped[datetime] = mapped_column(index=True)
    __table_args__ = (Index(None, "key", "failed_at"),)


class AuditEntry(Base):
    """Who did what, when, from where; append-only and chained. Subjects are row numbers and run ids."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    user_name: Mapped[str] = mapped_column(String(64), index=True)
    role: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32), index=True)
    subject: Mapped[str] = mapped_column(String(80))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    chain_hash: Mapped[str] = mapped_column(String(64))
