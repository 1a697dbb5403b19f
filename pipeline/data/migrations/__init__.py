"""Alembic revisions of the catalogue's tables, run by `catalogue.database.migrate`; each is handed its `op`."""

# The newest revision: where a catalogue stands there already, Alembic (0.3 s to import) is not needed.
HEAD = "0004"
