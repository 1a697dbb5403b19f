"""Alembic revisions of the catalogue's tables, run by `catalogue.database.migrate`; each receives its `op`."""

# The newest revision: a catalogue that is at it does not need Alembic (0.3 s to import).
HEAD = "1.0011"
# Revisions of development versions before the first release; no migration leads from them to HEAD.
UNRELEASED = frozenset({"0001", "0002", "0003", "0004"})
