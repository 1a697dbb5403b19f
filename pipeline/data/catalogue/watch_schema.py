"""Tables of the watch over the nights: schedules, nights with their heartbeats, beats of processes, and alerts.

No column here holds a pseudonym, a path or anything else about a patient: names of schedules, counts, codes and times.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.data.catalogue.schema import Base, now


class ScheduleRow(Base):
    """A schedule that is being served or watched; a firing before `since` is not missed."""

    __tablename__ = "schedules"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    definition: Mapped[dict[str, Any]]  # the fields that say when it runs, without its folders
    active: Mapped[bool] = mapped_column(default=True)
    since: Mapped[datetime] = mapped_column(default=now)


class NightRow(Base):
    """One run of a schedule, whoever started it. `beat_at` moves every minute while its process lives."""

    __tablename__ = "nights"
    id: Mapped[int] = mapped_column(primary_key=True)
    schedule: Mapped[str] = mapped_column(String(64), index=True)
    due_at: Mapped[datetime] = mapped_column(index=True)
    started_at: Mapped[datetime] = mapped_column(default=now)
    beat_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(16), default="running")  # running | done | failed | crashed
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)  # counts, codes and names of errors


class BeatRow(Base):
    """The last sign of life of a process that serves no address: the scheduler, and the watch itself."""

    __tablename__ = "beats"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    beat_at: Mapped[datetime] = mapped_column(default=now)
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class AlertRow(Base):
    """One alert: opened (nobody has received it yet), open, recovered. At most one per key is not recovered."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(96), index=True)
    severity: Mapped[str] = mapped_column(String(16))  # warning | critical
    sentence: Mapped[str]
    state: Mapped[str] = mapped_column(String(16), default="opened", index=True)
    opened_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    recovered_at: Mapped[datetime | None]


class AlertMessageRow(Base):
    """One message of an alert to one receiver; it is sent once, and tried again while the receiver does not answer."""

    __tablename__ = "alert_messages"
    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id"), index=True)
    event: Mapped[str] = mapped_column(String(16))  # opened | recovered
    receiver: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default="pending", index=True)  # pending | sent | given up
    attempts: Mapped[int] = mapped_column(default=0)
    try_at: Mapped[datetime] = mapped_column(default=now)
    reason: Mapped[str] = mapped_column(String(200), default="")
