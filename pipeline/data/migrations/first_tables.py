"""The first revision's tables of imaging data, runs and findings, frozen: a later change is a later revision."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

TABLES = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def column(name: str, kind: sa.types.TypeEngine, *more: sa.ForeignKey, null: bool = False, **how: Any) -> sa.Column:
    return sa.Column(name, kind, *more, nullable=null, **how)


def key() -> sa.Column:
    return sa.Column("id", sa.Integer, primary_key=True)


def text(name: str, length: int | None = None, **how: bool) -> sa.Column:
    return column(name, sa.String(length), **how)


def time(name: str, **how: bool) -> sa.Column:
    return column(name, sa.DateTime(), **how)


def json(name: str) -> sa.Column:
    return column(name, sa.JSON())


def number(name: str, kind: type = sa.Integer, **how: bool) -> sa.Column:
    return column(name, kind(), **how)


def pseudonym_of(target: str) -> sa.Column:
    name = target.partition(".")[2]
    return column(name, sa.String(64), sa.ForeignKey(target, onupdate="CASCADE"), index=True)


def run() -> sa.Column:
    return column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), index=True)


def finding(**how: bool) -> sa.Column:
    return column("finding_id", sa.Integer(), sa.ForeignKey("findings.id"), **how)


sa.Table(
    "patients",
    TABLES,
    sa.Column("patient_id", sa.String(64), primary_key=True),
    number("draw", sa.Float),
    text("set_name", 16, index=True, null=True),
    text("set_reason"),
    number("identified", sa.Boolean),
    number("image_is_subject", sa.Boolean),
    time("first_seen_at"),
)
sa.Table(
    "merged_patients",
    TABLES,
    sa.Column("absorbed_id", sa.String(64), primary_key=True),
    pseudonym_of("patients.patient_id"),
    time("merged_at"),
)
sa.Table(
    "studies",
    TABLES,
    sa.Column("study_id", sa.String(64), primary_key=True),
    pseudonym_of("patients.patient_id"),
    time("first_seen_at"),
)
sa.Table(
    "series",
    TABLES,
    sa.Column("series_id", sa.String(64), primary_key=True),
    pseudonym_of("studies.study_id"),
    text("modality", 16, index=True),
    json("attributes"),
    time("first_seen_at"),
)
sa.Table(
    "instances",
    TABLES,
    sa.Column("instance_id", sa.String(64), primary_key=True),
    pseudonym_of("series.series_id"),
    text("content_hash", 64),
    text("attributes_hash", 64),
    text("pixel_key", 128, index=True),
    number("frames"),
    json("attributes"),
    number("version"),
    time("ingested_at"),
)
sa.Table(
    "instance_versions",
    TABLES,
    key(),
    pseudonym_of("instances.instance_id"),
    number("version"),
    text("attributes_hash", 64),
    json("attributes"),
    time("replaced_at"),
    sa.UniqueConstraint("instance_id", "version"),
)
sa.Table(
    "source_files",
    TABLES,
    sa.Column("path_id", sa.String(64), primary_key=True),
    number("size_bytes", sa.BigInteger),
    number("modified_ns", sa.BigInteger),
    text("outcome", 40, index=True),
    text("instance_id", 64, index=True, null=True),
    time("seen_at"),
)
sa.Table(
    "rejections",
    TABLES,
    key(),
    text("subject", 64),
    text("level", 16),
    text("code", 40, index=True),
    text("sentence"),
    time("first_seen_at"),
    time("last_seen_at"),
    sa.UniqueConstraint("subject", "code"),
)
sa.Table(
    "labels",
    TABLES,
    key(),
    text("level", 16),
    text("subject", 64),
    text("label", 16),
    text("source", 64),
    text("reader", 64),
    text("labelled_on", 10),
    text("official_set", 16),
    text("mask_key", 128, null=True),
    number("relative_position", sa.Float, null=True),
    time("imported_at"),
    sa.Index(None, "level", "subject"),
)
sa.Table(
    "runs",
    TABLES,
    sa.Column("run_id", sa.String(64), primary_key=True),
    text("kind", 16, index=True),
    text("route", 64),
    text("folder"),
    text("sha256", 64),
    json("summary"),
    text("state", 16),
    time("started_at"),
    time("ended_at", null=True),
)
sa.Table(
    "findings",
    TABLES,
    key(),
    pseudonym_of("studies.study_id"),
    pseudonym_of("patients.patient_id"),
    text("route", 64),
    text("model_sha256", 64),
    run(),
    number("score", sa.Float),
    number("p_value", sa.Float, null=True),
    number("n_calibration"),
    text("guarantee"),
    sa.Column("flagged", sa.Boolean, nullable=True, index=True),
    text("rule", 64),
    json("evidence"),
    time("scored_at"),
    sa.UniqueConstraint("study_id", "route", "model_sha256"),
)
sa.Table("not_scored", TABLES, key(), pseudonym_of("series.series_id"), run(), text("code", 40), text("sentence"))
sa.Table("test_openings", TABLES, key(), run(), text("purpose"), time("opened_at"))
sa.Table(
    "exports",
    TABLES,
    key(),
    finding(index=True),
    run(),
    text("kind", 8),
    text("object_uid", 64),
    text("destination", 255),
    text("state", 16),
    number("attempts"),
    text("reason"),
    time("changed_at"),
    sa.UniqueConstraint("object_uid", "destination"),
)
