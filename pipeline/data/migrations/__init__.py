"""Alembic revisions of the catalogue's tables, run from the installed package by `pipeline.data.database.migrate`."""

# The newest revision: where a catalogue stands there already, Alembic (0.3 s to import) is not needed.
HEAD = "0003"
