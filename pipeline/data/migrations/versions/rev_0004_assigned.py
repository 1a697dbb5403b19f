"""Scans that are kept for a reader beforehand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Let a lease be an assignment."""
    op.add_column("leases", sa.Column("assigned", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade(op: Operations) -> None:
    """Forget which are."""
    op.drop_column("leases", "assigned")
