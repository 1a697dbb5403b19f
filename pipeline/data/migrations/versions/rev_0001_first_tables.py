"""The first tables and their guards; a later change of the schema is a later revision, never an edit of these."""

from __future__ import annotations

from alembic.operations import Operations

from pipeline.data.migrations import first_review_tables

revision = "1.0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = first_review_tables.TABLES  # with those of first_tables, which it extends
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
    """Create the tables, and guard those that are append-only."""
    bind = op.get_bind()
    TABLES.create_all(bind, checkfirst=False)
    guard = _guard_postgresql if bind.dialect.name == "postgresql" else _guard_sqlite
    for name, (may_change, clash) in APPEND_ONLY.items():
        fixed = ", ".join(column.name for column in TABLES.tables[name].columns if column.name not in may_change)
        guard(op, name, fixed, clash)


def downgrade(op: Operations) -> None:
    """Drop every table."""
    bind = op.get_bind()
    TABLES.drop_all(bind, checkfirst=False)
    if bind.dialect.name == "postgresql":
        op.execute("DROP FUNCTION nightread_append_only()")


def _guard_sqlite(op: Operations, name: str, fixed: str, clash: str) -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{name} is append-only'); END"
    op.execute(f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} {refuse}")
    op.execute(f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} {refuse}")
    # INSERT OR REPLACE deletes without asking the trigger above.
    clashing = f"EXISTS (SELECT 1 FROM {name} WHERE {clash})"
    op.execute(f"CREATE TRIGGER {name}_no_replace BEFORE INSERT ON {name} WHEN {clashing} {refuse}")


def _guard_postgresql(op: Operations, name: str, fixed: str, clash: str) -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION nightread_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    call = "EXECUTE FUNCTION nightread_append_only()"
    op.execute(f"CREATE TRIGGER {name}_no_update BEFORE UPDATE OF {fixed} ON {name} FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER {name}_no_delete BEFORE DELETE ON {name} FOR EACH ROW {call}")
    op.execute(f"CREATE TRIGGER {name}_no_truncate BEFORE TRUNCATE ON {name} FOR EACH STATEMENT {call}")
