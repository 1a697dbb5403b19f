"""What was made of findings and sent, frozen as it was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Create the table of exports."""
    op.create_table(
        "exports",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("finding_id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("object_uid", sa.String(64), nullable=False),
        sa.Column("destination", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_exports"),
        sa.ForeignKeyConstraint(["finding_id"], ["findings.id"], name="fk_exports_finding_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_exports_run_id"),
        sa.UniqueConstraint("object_uid", "destination", name="uq_exports_object_uid_destination"),
    )
    op.create_index("ix_exports_finding_id", "exports", ["finding_id"])
    op.create_index("ix_exports_run_id", "exports", ["run_id"])


def downgrade(op: Operations) -> None:
    """Drop it."""
    op.drop_table("exports")
