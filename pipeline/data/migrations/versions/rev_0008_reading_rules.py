"""The rules by which each file was read: a file that older rules refused is read again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0008"
down_revision = "1.0007"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Add the column; what was read before has none, so that refused files are read again."""
    op.add_column("source_files", sa.Column("rules", sa.String(16), nullable=False, server_default=sa.text("''")))


def downgrade(op: Operations) -> None:
    """Drop the column."""
    op.drop_column("source_files", "rules")
