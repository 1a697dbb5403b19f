"""Claims of studies on an open scoring run, so that several processes can share it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0009"
down_revision = "1.0008"
branch_labels = None
depends_on = None

TABLE = "scoring_claims"


def upgrade(op: Operations) -> None:
    """Create the table and its indices."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "run_id", sa.String(64), sa.ForeignKey("runs.run_id", name=f"fk_{TABLE}_run_id_runs"), nullable=False
        ),
        sa.Column(
            "study_id",
            sa.String(64),
            sa.ForeignKey("studies.study_id", onupdate="CASCADE", name=f"fk_{TABLE}_study_id_studies"),
            nullable=False,
        ),
        *(sa.Column(name, sa.String(size), nullable=False) for name, size in (("model_sha256", 64), ("state", 16))),
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.UniqueConstraint("study_id", "model_sha256", name=f"uq_{TABLE}_study_id_model_sha256"),
    )
    op.create_index(f"ix_{TABLE}_run_id_state", TABLE, ["run_id", "state"])
    op.create_index(f"ix_{TABLE}_model_sha256", TABLE, ["model_sha256"])


def downgrade(op: Operations) -> None:
    """Drop the table; runs that it held open are scored again."""
    op.drop_table(TABLE)
