"""The reading list, its decisions, users and audit log, frozen as they were."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# Named, so that keys may point at them; made by earlier revisions.
sa.Table("runs", TABLES, sa.Column("run_id", sa.String(64), primary_key=True))
sa.Table("findings", TABLES, sa.Column("id", sa.Integer, primary_key=True))
sa.Table("instances", TABLES, sa.Column("instance_id", sa.String(64), primary_key=True))
EARLIER = set(TABLES.tables)


def _column(name: str, kind: sa.types.TypeEngine, *more: sa.ForeignKey, null: bool = False, **how: bool) -> sa.Column:
    return sa.Column(name, kind, *more, nullable=null, **how)


def _text(name: str, length: int | None = None, **how: bool) -> sa.Column:
    return _column(name, sa.String(length), **how)


def _finding(**how: bool) -> sa.Column:
    return _column("finding_id", sa.Integer(), sa.ForeignKey("findings.id"), **how)


sa.Table(
    "reading_draws",
    TABLES,
    _column("run_id", sa.String(64), sa.ForeignKey("runs.run_id"), primary_key=True),
    _column("share", sa.Float()),
    *(_column(name, sa.Integer()) for name in ("least", "flagged", "unflagged", "sampled")),
    _column("drawn_at", sa.DateTime()),
)
sa.Table(
    "reading_frame",
    TABLES,
    _finding(primary_key=True),
    _column("run_id", sa.String(64), sa.ForeignKey("reading_draws.run_id"), index=True),
    _column("flagged", sa.Boolean()),
    _column("probability", sa.Float()),
    _column("selected", sa.Boolean()),
)
sa.Table(
    "reading_list",
    TABLES,
    _finding(primary_key=True),
    _column("place", sa.Float()),
    _column("tie", sa.Float()),
    _text("modality", 16),
    _text("body_part", 64),
    _text("route", 64),
    _text("model_sha256", 64),
    _column("arrived_at", sa.DateTime()),
    _column("blinded", sa.Boolean()),
    _column("listed_at", sa.DateTime()),
    sa.Index(None, "place", "tie", "finding_id"),
)
sa.Table(
    "decisions",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    _finding(),
    _column("number", sa.Integer()),
    _text("token", 64, unique=True),
    _text("outcome", 16),
    _column("withdraws", sa.Integer(), sa.ForeignKey("decisions.id"), null=True),
    _text("reader", 64, index=True),
    _text("code", 64),
    _text("scheme", 16),
    _text("meaning", 255),
    _text("free_text"),
    _text("comment"),
    _column("region", sa.JSON(none_as_null=True), null=True),
    _column(
        "region_instance_id",
        sa.String(64),
        sa.ForeignKey("instances.instance_id", onupdate="CASCADE"),
        null=True,
        index=True,
    ),
    _text("run_id", 64),
    _text("model_sha256", 64),
    _column("score", sa.Float()),
    _column("p_value", sa.Float(), null=True),
    _column("blind", sa.Boolean()),
    _column("decided_at", sa.DateTime()),
    _text("chain_hash", 64),
    sa.UniqueConstraint("finding_id", "number"),
    sa.Index(None, "outcome", "finding_id", "number"),
)
sa.Table(
    "leases",
    TABLES,
    _finding(primary_key=True),
    _text("holder", 64, index=True),
    _column("taken_at", sa.DateTime()),
    _column("expires_at", sa.DateTime(), index=True),
)
sa.Table(
    "users",
    TABLES,
    _text("name", 64, primary_key=True),
    _text("role", 16),
    _text("password_hash", 255),
    _column("disabled", sa.Boolean()),
    _column("created_at", sa.DateTime()),
)
sa.Table(
    "user_sessions",
    TABLES,
    _text("token_hash", 64, primary_key=True),
    _column("user_name", sa.String(64), sa.ForeignKey("users.name"), index=True),
    _text("address", 64),
    _column("created_at", sa.DateTime()),
    _column("seen_at", sa.DateTime()),
    _column("expires_at", sa.DateTime(), index=True),
)
sa.Table(
    "login_failures",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    _text("key", 64),
    _column("failed_at", sa.DateTime(), index=True),
    sa.Index(None, "key", "failed_at"),
)
sa.Table(
    "audit_log",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    _column("at", sa.DateTime(), index=True),
    _text("user_name", 64, index=True),
    _text("role", 16),
    _text("address", 64),
    _text("action", 32, index=True),
    _text("subject", 80),
    _column("detail", sa.JSON()),
    _text("chain_hash", 64),
)
NEW = [table for table in TABLES.sorted_tables if table.name not in EARLIER]
# Of each append-only table: what may change (a pseudonym, in a key rotation), and what INSERT OR REPLACE could hit.
APPEND_ONLY = {
    "reading_frame": ((), "finding_id = NEW.finding_id"),
    "decisions": (
        ("region_instance_id",),
        "id = NEW.id OR token = NEW.token OR (finding_id = NEW.finding_id AND number = NEW.number)",
    ),
    "audit_log": ((), "id = NEW.id"),
}


def upgrade(op: Operations) -> None:
    """Create the tables and their guards; the empty table of decisions, which nothing ever wrote, is made anew."""
    op.drop_table("decisions")
    bind = op.get_bind()
    TABLES.create_all(bind, tables=NEW, checkfirst=False)
    guard = _guard_postgresql if bind.dialect.name == "postgresql" else _guard_sqlite
    for name, (may_change, clash) in APPEND_ONLY.items():
        fixed = ", ".join(column.name for column in TABLES.tables[name].columns if column.name not in may_change)
        guard(op, name, fixed, clash)


def _guard_sqlite(op: Operations, name: str, fixed: str, clash: str) -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
    op.execute(f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} {refuse}")
    op.execute(f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} {refuse}")
    # INSERT OR REPLACE deletes without asking the trigger above.
    found = f"EXISTS (SELECT 1 FROM {name} WHERE {clash})"
    op.execute(f"CREATE TRIGGER {name}_no_replace BEFORE INSERT ON {name} WHEN {found} {refuse}")


def _guard_postgresql(op: Operations, name: str, fixed: str, clash: str) -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION nightread_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    call = "EXECUTE FUNCTION nightread_append_only()"
    op.execute(f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON {name} FOR EACH STATEMENT {call}")


def downgrade(op: Operations) -> None:
    """Drop them, and bring back the empty table of decisions as it was."""
    bind = op.get_bind()
    TABLES.drop_all(bind, tables=NEW, checkfirst=False)
    if bind.dialect.name == "postgresql":
        op.execute("DROP FUNCTION nightread_append_only()")
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("finding_id", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("comment", sa.String, nullable=False),
        sa.Column("decided_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.ForeignKeyConstraint(["finding_id"], ["findings.id"], name="fk_decisions_finding_id"),
    )
    op.create_index("ix_decisions_finding_id", "decisions", ["finding_id"])
