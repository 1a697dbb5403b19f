"""Erasures of patients, and redactions: the only way to empty the free text of a decision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

from pipeline.data.migrations.versions.rev_0001_first_tables import _guard_postgresql, _guard_sqlite

revision = "1.0006"
down_revision = "1.0005"
branch_labels = None
depends_on = None

MAY_CHANGE = ("region_instance_id",)
TEXTS = ("free_text", "comment")
REDACTED = "EXISTS (SELECT 1 FROM redactions WHERE decision_id = OLD.id)"


def upgrade(op: Operations) -> None:
    """Create the tables, and let a redacted decision lose its texts."""
    patient = sa.ForeignKey("patients.patient_id", name="fk_erasures_patient_id_patients", onupdate="CASCADE")
    op.create_table(
        "erasures",
        sa.Column("patient_id", sa.String(64), patient, primary_key=True),
        sa.Column("requested_at", sa.DateTime(), nullable=False),
        *(sa.Column(name, sa.DateTime(), nullable=True) for name in ("finished_at", "readmitted_at")),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("steps", "record")),
    )
    decision = sa.ForeignKey("decisions.id", name="fk_redactions_decision_id_decisions")
    op.create_table(
        "redactions",
        sa.Column("decision_id", sa.Integer(), decision, primary_key=True),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("redacted_at", sa.DateTime(), nullable=False),
    )
    guard = _guard_postgresql if op.get_bind().dialect.name == "postgresql" else _guard_sqlite
    guard(op, "redactions", "decision_id, seal, redacted_at", "decision_id = NEW.decision_id")
    _guard_decisions(op, (*MAY_CHANGE, *TEXTS))
    wrong = f"NEW.free_text <> '' OR NEW.comment <> '' OR NOT {REDACTED}"
    before = f"CREATE TRIGGER decisions_no_rewording BEFORE UPDATE OF {', '.join(TEXTS)} ON decisions"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION nightread_only_redaction() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF "
            f"{wrong} THEN RAISE EXCEPTION 'decisions is append-only'; END IF; RETURN NEW; END $$"
        )
        op.execute(f"{before} FOR EACH ROW EXECUTE FUNCTION nightread_only_redaction()")
    else:
        op.execute(f"{before} WHEN {wrong} BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END")


def downgrade(op: Operations) -> None:
    """Drop the tables, and guard every column of the decisions again."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    op.execute("DROP TRIGGER decisions_no_rewording" + " ON decisions" * on_postgresql)
    if on_postgresql:
        op.execute("DROP FUNCTION nightread_only_redaction()")
    _guard_decisions(op, MAY_CHANGE)
    for table in ("redactions", "erasures"):
        op.drop_table(table)


def _guard_decisions(op: Operations, may_change: tuple[str, ...]) -> None:
    """Replace the guard of the decisions' columns by one without those that may change."""
    bind = op.get_bind()
    names = [column["name"] for column in sa.inspect(bind).get_columns("decisions")]
    fixed = ", ".join(name for name in names if name not in may_change)
    before = f"CREATE TRIGGER decisions_no_update BEFORE UPDATE OF {fixed} ON decisions"
    if bind.dialect.name == "postgresql":
        op.execute("DROP TRIGGER decisions_no_update ON decisions")
        op.execute(f"{before} FOR EACH ROW EXECUTE FUNCTION nightread_append_only()")
        return
    op.execute("DROP TRIGGER decisions_no_update")
    op.execute(f"{before} BEGIN SELECT RAISE(ABORT, 'decisions is append-only'); END")
