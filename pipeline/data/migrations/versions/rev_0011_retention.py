"""Retention: legal holds, and series whose pixels were removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0011"
down_revision = "1.0010"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Create the tables."""
    patient = sa.ForeignKey("patients.patient_id", name="fk_legal_holds_patient_id_patients", onupdate="CASCADE")
    op.create_table(
        "legal_holds",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("patient_id", sa.String(64), patient, nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("placed_at", sa.DateTime(), nullable=False),
        sa.Column("released_at", sa.DateTime(), nullable=True),
    )
    op.create_index("ix_legal_holds_patient_id", "legal_holds", ["patient_id"])
    series = sa.ForeignKey("series.series_id", name="fk_removed_series_series_id_series", onupdate="CASCADE")
    op.create_table(
        "removed_series",
        sa.Column("series_id", sa.String(64), series, primary_key=True),
        sa.Column("removed_at", sa.DateTime(), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
    )


def downgrade(op: Operations) -> None:
    """Drop the tables."""
    op.drop_table("removed_series")
    op.drop_index("ix_legal_holds_patient_id", "legal_holds")
    op.drop_table("legal_holds")
