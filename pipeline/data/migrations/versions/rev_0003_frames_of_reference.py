"""The frame of reference of each instance: positions can be compared only within one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0003"
down_revision = "1.0002"
branch_labels = None
depends_on = None

TABLES = ("instances", "instance_versions")


def upgrade(op: Operations) -> None:
    """Add the column; what was ingested before has none."""
    for table in TABLES:
        column = sa.Column("frame_of_reference_id", sa.String(64), nullable=False, server_default=sa.text("''"))
        op.add_column(table, column)


def downgrade(op: Operations) -> None:
    """Drop the column."""
    for table in TABLES:
        op.drop_column(table, "frame_of_reference_id")
