"""Alembic revisions of the catalogue's tables, run by `catalogue.database.migrate`; each is handed its `op`."""

# The newest revision: where a catalogue stands there already, Alembic (0.3 s to import) is not needed.
HEAD = "1.0001"
# Where catalogues of development versions before the first release may be; there is no way from them to HEAD.
UNRELEASED = frozenset({"0001", "0002", "0003", "0004"})
