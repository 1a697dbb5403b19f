"""Schedules, nights with their heartbeats, beats of processes, and alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0005"
down_revision = "1.0004"
branch_labels = None
depends_on = None

TABLES = ("alert_messages", "alerts", "beats", "nights", "schedules")


def upgrade(op: Operations) -> None:
    """Create the tables and their indices."""
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "nights",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("schedule", sa.String(64), nullable=False),
        *(sa.Column(name, sa.DateTime(), nullable=False) for name in ("due_at", "started_at", "beat_at")),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
    )
    op.create_table(
        "beats",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("beat_at", sa.DateTime(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("key", sa.String(96), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *(sa.Column(name, sa.DateTime(), nullable=False) for name in ("opened_at", "seen_at")),
        sa.Column("recovered_at", sa.DateTime(), nullable=True),
    )
    op.create_table(
        "alert_messages",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "alert_id",
            sa.Integer(),
            sa.ForeignKey("alerts.id", name="fk_alert_messages_alert_id_alerts"),
            nullable=False,
        ),
        *(sa.Column(name, sa.String(size), nullable=False) for name, size in (("event", 16), ("receiver", 64))),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("try_at", sa.DateTime(), nullable=False),
        sa.Column("reason", sa.String(200), nullable=False),
    )
    for table, columns in {
        "nights": ("schedule", "due_at"),
        "alerts": ("key", "state"),
        "alert_messages": ("alert_id", "state"),
    }.items():
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade(op: Operations) -> None:
    """Drop the tables."""
    for table in TABLES:
        op.drop_table(table)
