"""Alembic revisions of the catalogue's tables, run from the installed package by `pipeline.data.database.migrate`."""
