"""The first revision's tables of the reading list, decisions, users and audit log, frozen like the others."""

from __future__ import annotations

import sqlalchemy as sa

from pipeline.data.migrations.first_tables import TABLES, column, finding, json, key, number, text, time

sa.Table(
    "reading_draws",
    TABLES,
    column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), primary_key=True),
    number("share", sa.Float),
    *(number(name) for name in ("least", "flagged", "unflagged", "sampled")),
    time("drawn_at"),
)
sa.Table(
    "reading_frame",
    TABLES,
    finding(primary_key=True),
    column("run_id", sa.String(64), sa.ForeignKey("reading_draws.run_id"), index=True),
    number("flagged", sa.Boolean),
    number("probability", sa.Float),
    number("selected", sa.Boolean),
)
sa.Table(
    "reading_list",
    TABLES,
    finding(primary_key=True),
    number("place", sa.Float),
    number("tie", sa.Float),
    text("modality", 16),
    text("body_part", 64),
    text("route", 64),
    text("model_sha256", 64),
    time("arrived_at"),
    number("blinded", sa.Boolean),
    time("listed_at"),
    sa.Index(None, "place", "tie", "finding_id"),
)
sa.Table(
    "decisions",
    TABLES,
    key(),
    finding(),
    number("number", sa.Integer),
    text("token", 64, unique=True),
    text("outcome", 16),
    column("withdraws", sa.Integer(), sa.ForeignKey("decisions.id"), null=True),
    text("reader", 64, index=True),
    text("code", 64),
    text("scheme", 16),
    text("meaning", 255),
    text("free_text"),
    text("comment"),
    column("region", sa.JSON(none_as_null=True), null=True),
    column(
        "region_instance_id",
        sa.String(64),
        sa.ForeignKey("instances.instance_id", onupdate="CASCADE"),
        null=True,
        index=True,
    ),
    text("run_id", 64),
    text("model_sha256", 64),
    number("score", sa.Float),
    number("p_value", sa.Float, null=True),
    number("blind", sa.Boolean),
    time("decided_at"),
    text("chain_hash", 64),
    sa.UniqueConstraint("finding_id", "number"),
    sa.Index(None, "outcome", "finding_id", "number"),
)
sa.Table(
    "leases",
    TABLES,
    finding(primary_key=True),
    text("holder", 64, index=True),
    time("taken_at"),
    time("expires_at", index=True),
    sa.Column("assigned", sa.Boolean, nullable=False, server_default=sa.false()),
)
sa.Table(
    "users",
    TABLES,
    text("name", 64, primary_key=True),
    text("role", 16),
    text("password_hash", 255),
    number("disabled", sa.Boolean),
    time("created_at"),
)
sa.Table(
    "user_sessions",
    TABLES,
    text("token_hash", 64, primary_key=True),
    column("user_name", sa.String(64), sa.ForeignKey("users.name"), index=True),
    text("address", 64),
    time("created_at"),
    time("seen_at"),
    time("expires_at", index=True),
)
sa.Table(
    "login_failures",
    TABLES,
    key(),
    text("key", 64),
    time("failed_at", index=True),
    sa.Index(None, "key", "failed_at"),
)
sa.Table(
    "audit_log",
    TABLES,
    key(),
    time("at", index=True),
    text("user_name", 64, index=True),
    text("role", 16),
    text("address", 64),
    text("action", 32, index=True),
    text("subject", 80),
    json("detail"),
    text("chain_hash", 64),
)
