"""Drafts of decisions, and when a reader was first shown a scan's heatmap."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from pipeline.data.migrations.versions.rev_0001_first_tables import _guard_postgresql, _guard_sqlite

revision = "1.0002"
down_revision = "1.0001"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Create both tables, and guard the second, which is append-only."""
    op.create_table(
        "drafts",
        sa.Column("finding_id", sa.Integer(), sa.ForeignKey("findings.id", name="fk_drafts_finding_id_findings")),
        sa.Column("reader", sa.String(64)),
        *(sa.Column(name, sa.String(64), nullable=False) for name in ("outcome", "code")),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("text", "comment", "region")),
        sa.Column("saved_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("finding_id", "reader", name="pk_drafts"),
    )
    op.create_table(
        "heatmap_views",
        sa.Column(
            "finding_id", sa.Integer(), sa.ForeignKey("findings.id", name="fk_heatmap_views_finding_id_findings")
        ),
        sa.Column("reader", sa.String(64)),
        sa.Column("first_look", sa.String(16), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("finding_id", "reader", name="pk_heatmap_views"),
    )
    guard = _guard_postgresql if op.get_bind().dialect.name == "postgresql" else _guard_sqlite
    fixed = "finding_id, reader, first_look, seen_at"
    guard(op, "heatmap_views", fixed, "finding_id = NEW.finding_id AND reader = NEW.reader")


def downgrade(op: Operations) -> None:
    """Drop both tables."""
    op.drop_table("heatmap_views")
    op.drop_table("drafts")
