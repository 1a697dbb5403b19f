"""The first tables, frozen as they were: a later change of the schema is a later revision, never an edit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _key() -> sa.Column:
    return sa.Column("id", sa.Integer, primary_key=True)


def _text(name: str, length: int | None = None, *, index: bool = False, null: bool = False) -> sa.Column:
    return sa.Column(name, sa.String(length), nullable=null, index=index)


def _time(name: str, *, null: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime, nullable=null)


def _json(name: str) -> sa.Column:
    return sa.Column(name, sa.JSON, nullable=False)


def _number(name: str, kind: type = sa.Integer, *, null: bool = False) -> sa.Column:
    return sa.Column(name, kind, nullable=null)


def _pseudonym_of(target: str) -> sa.Column:
    name = target.partition(".")[2]
    return sa.Column(name, sa.String(64), sa.ForeignKey(target, onupdate="CASCADE"), nullable=False, index=True)


def _run() -> sa.Column:
    return sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), nullable=False, index=True)


sa.Table(
    "patients",
    TABLES,
    sa.Column("patient_id", sa.String(64), primary_key=True),
    _number("draw", sa.Float),
    _text("set_name", 16, index=True, null=True),
    _text("set_reason"),
    _number("identified", sa.Boolean),
    _number("image_is_subject", sa.Boolean),
    _time("first_seen_at"),
)
sa.Table(
    "merged_patients",
    TABLES,
    sa.Column("absorbed_id", sa.String(64), primary_key=True),
    _pseudonym_of("patients.patient_id"),
    _time("merged_at"),
)
sa.Table(
    "studies",
    TABLES,
    sa.Column("study_id", sa.String(64), primary_key=True),
    _pseudonym_of("patients.patient_id"),
    _time("first_seen_at"),
)
sa.Table(
    "series",
    TABLES,
    sa.Column("series_id", sa.String(64), primary_key=True),
    _pseudonym_of("studies.study_id"),
    _text("modality", 16, index=True),
    _json("attributes"),
    _time("first_seen_at"),
)
sa.Table(
    "instances",
    TABLES,
    sa.Column("instance_id", sa.String(64), primary_key=True),
    _pseudonym_of("series.series_id"),
    _text("content_hash", 64),
    _text("attributes_hash", 64),
    _text("pixel_key", 128, index=True),
    _number("frames"),
    _json("attributes"),
    _number("version"),
    _time("ingested_at"),
)
sa.Table(
    "instance_versions",
    TABLES,
    _key(),
    _pseudonym_of("instances.instance_id"),
    _number("version"),
    _text("attributes_hash", 64),
    _json("attributes"),
    _time("replaced_at"),
    sa.UniqueConstraint("instance_id", "version"),
)
sa.Table(
    "source_files",
    TABLES,
    sa.Column("path_id", sa.String(64), primary_key=True),
    _number("size_bytes", sa.BigInteger),
    _number("modified_ns", sa.BigInteger),
    _text("outcome", 40, index=True),
    _text("instance_id", 64, index=True, null=True),
    _time("seen_at"),
)
sa.Table(
    "rejections",
    TABLES,
    _key(),
    _text("subject", 64),
    _text("level", 16),
    _text("code", 40, index=True),
    _text("sentence"),
    _time("first_seen_at"),
    _time("last_seen_at"),
    sa.UniqueConstraint("subject", "code"),
)
sa.Table(
    "labels",
    TABLES,
    _key(),
    _text("level", 16),
    _text("subject", 64),
    _text("label", 16),
    _text("source", 64),
    _text("reader", 64),
    _text("labelled_on", 10),
    _text("official_set", 16),
    _text("mask_key", 128, null=True),
    _number("relative_position", sa.Float, null=True),
    _time("imported_at"),
    sa.Index(None, "level", "subject"),
)
sa.Table(
    "runs",
    TABLES,
    sa.Column("run_id", sa.String(64), primary_key=True),
    _text("kind", 16, index=True),
    _text("route", 64),
    _text("folder"),
    _text("sha256", 64),
    _json("summary"),
    _text("state", 16),
    _time("started_at"),
    _time("ended_at", null=True),
)
sa.Table(
    "findings",
    TABLES,
    _key(),
    _pseudonym_of("studies.study_id"),
    _pseudonym_of("patients.patient_id"),
    _text("route", 64),
    _text("model_sha256", 64),
    _run(),
    _number("score", sa.Float),
    _number("p_value", sa.Float, null=True),
    _number("n_calibration"),
    _text("guarantee"),
    sa.Column("flagged", sa.Boolean, nullable=True, index=True),
    _text("rule", 64),
    _json("evidence"),
    _time("scored_at"),
    sa.UniqueConstraint("study_id", "route", "model_sha256"),
)
sa.Table("not_scored", TABLES, _key(), _pseudonym_of("series.series_id"), _run(), _text("code", 40), _text("sentence"))
sa.Table(
    "decisions",
    TABLES,
    _key(),
    sa.Column("finding_id", sa.Integer, sa.ForeignKey("findings.id"), nullable=False, index=True),
    _text("outcome", 16),
    _text("reader", 64),
    _text("comment"),
    _time("decided_at"),
)
sa.Table("test_openings", TABLES, _key(), _run(), _text("purpose"), _time("opened_at"))


def upgrade(op: Operations) -> None:
    """Create every table."""
    TABLES.create_all(op.get_bind(), checkfirst=False)


def downgrade(op: Operations) -> None:
    """Drop every table."""
    TABLES.drop_all(op.get_bind(), checkfirst=False)
