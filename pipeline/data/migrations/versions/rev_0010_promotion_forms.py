"""Forms that have recorded a promotion: a form that is sent twice writes once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0010"
down_revision = "1.0009"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Create the table."""
    op.create_table(
        "promotion_forms",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column(
            "promotion_id",
            sa.Integer(),
            sa.ForeignKey("promotions.id", name="fk_promotion_forms_promotion_id_promotions"),
            nullable=False,
        ),
    )


def downgrade(op: Operations) -> None:
    """Drop the table."""
    op.drop_table("promotion_forms")
