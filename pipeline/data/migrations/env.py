"""Alembic's entry: run the revisions on the connection that `pipeline.data.database.migrate` gives."""

from __future__ import annotations

from alembic import context

from pipeline.data import review_schema  # noqa: F401  (adds its tables to Base)
from pipeline.data.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    compare_type=True,
    transactional_ddl=True,
)
# No begin_transaction(): the caller's transaction holds the writers' lock and covers every revision.
context.run_migrations()
