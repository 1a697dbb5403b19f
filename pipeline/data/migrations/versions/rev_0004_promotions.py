"""Promotions, which are append-only; notices; measures of scored scans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from pipeline.data.migrations.versions.rev_0001_first_tables import _guard_postgresql, _guard_sqlite

revision = "1.0004"
down_revision = "1.0003"
branch_labels = None
depends_on = None

TEXTS = {
    "route": 64, "action": 16, "run": 128, "version": 16, "detector_sha256": 64, "replaced_run": 128,
    "replaced_version": 16, "replaced_sha256": 64, "who": 64, "why": None, "report_sha256": 64, "chain_hash": 64,
}  # fmt: skip


def upgrade(op: Operations) -> None:
    """Create the tables and their indices, and guard the promotions."""
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        *(sa.Column(name, sa.String(size), nullable=False) for name, size in TEXTS.items()),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), primary_key=True),
        *(sa.Column(name, sa.String(size), nullable=False) for name, size in (("key", 96), ("severity", 16))),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("raised_at", sa.DateTime(), nullable=False),
        sa.Column("cleared_at", sa.DateTime(), nullable=True),
    )
    study = sa.ForeignKey("studies.study_id", name="fk_scan_measures_study_id_studies", onupdate="CASCADE")
    op.create_table(
        "scan_measures",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("study_id", sa.String(64), study, nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("model_sha256", sa.String(64), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("measured_at", sa.DateTime(), nullable=False),
        sa.UniqueConstraint("study_id", "route", "model_sha256", name="uq_scan_measures_study_id_route_model_sha256"),
    )
    for table, name in (("promotions", "route"), ("notices", "key"), ("scan_measures", "route")):
        op.create_index(f"ix_{table}_{name}", table, [name])
    guard = _guard_postgresql if op.get_bind().dialect.name == "postgresql" else _guard_sqlite
    guard(op, "promotions", ", ".join(["id", "at", *TEXTS]), "id = NEW.id")


def downgrade(op: Operations) -> None:
    """Drop the tables."""
    for table in ("scan_measures", "notices", "promotions"):
        op.drop_table(table)
