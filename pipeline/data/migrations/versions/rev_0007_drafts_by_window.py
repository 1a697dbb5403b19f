"""Drafts of each window by itself: two windows on one scan overwrite nothing of each other."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations

revision = "1.0007"
down_revision = "1.0006"
branch_labels = None
depends_on = None

TEXTS = ("outcome", "code", "text", "comment", "region")
COLUMNS = ("finding_id", "reader", *TEXTS, "saved_at")


def upgrade(op: Operations) -> None:
    """Make the table again with a version as its key; what was typed is carried over, as of a window without a name."""
    rows = _read(op, "saved_at")
    op.drop_table("drafts")
    op.create_table(
        "drafts",
        sa.Column("version", sa.Integer(), nullable=False),
        *_shared(nullable=False),
        sa.Column("window_name", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_drafts"),
        sa.UniqueConstraint("finding_id", "reader", "window_name", name="uq_drafts_finding_id_reader_window_name"),
        sqlite_autoincrement=True,
    )
    _write(op, [{**row, "window_name": ""} for row in rows], (*COLUMNS, "window_name"))


def downgrade(op: Operations) -> None:
    """Make the table of before, with the latest draft of each reader and scan."""
    latest = {(row["finding_id"], row["reader"]): row for row in _read(op, "version")}
    op.drop_table("drafts")
    op.create_table(
        "drafts", *_shared(nullable=True), sa.PrimaryKeyConstraint("finding_id", "reader", name="pk_drafts")
    )
    _write(op, list(latest.values()), COLUMNS)


def _shared(nullable: bool) -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "finding_id",
            sa.Integer(),
            sa.ForeignKey("findings.id", name="fk_drafts_finding_id_findings"),
            nullable=nullable,
        ),
        sa.Column("reader", sa.String(64), nullable=nullable),
        *(sa.Column(name, sa.String(64), nullable=False) for name in TEXTS[:2]),
        *(sa.Column(name, sa.String(), nullable=False) for name in TEXTS[2:]),
        sa.Column("saved_at", sa.DateTime(), nullable=False),
    ]


def _table(names: tuple[str, ...]) -> sa.TableClause:
    types: dict[str, Any] = {"finding_id": sa.Integer(), "saved_at": sa.DateTime()}
    return sa.table("drafts", *(sa.column(name, types.get(name, sa.String())) for name in names))


def _read(op: Operations, order: str) -> list[dict[str, object]]:
    query = sa.select(_table(COLUMNS)).order_by(sa.column(order))
    return [dict(row) for row in op.get_bind().execute(query).mappings()]


def _write(op: Operations, rows: list[dict[str, object]], names: tuple[str, ...]) -> None:
    if rows:
        op.get_bind().execute(sa.insert(_table(names)), rows)
