"""Key rotation in the catalogue: the columns that hold pseudonyms, and how all of them are replaced.

Every function works inside the transaction of the connection passed to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from sqlalchemy import Column, Connection, MetaData, String, Table, and_, literal, select, update

from pipeline.data.catalogue import (  # noqa: F401  (they add their tables to Base)
    operations_schema,
    retention_schema,
    review_schema,
    watch_schema,
)
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.schema import Base, MergedPatient, Study
from pipeline.dicom.identity.pseudonyms import Kind

# Every column that holds a pseudonym, with its kind; "level" where the row's `level` gives the kind. A test compares
# this with the tables, so that no new column is forgotten.
PSEUDONYM_COLUMNS: dict[str, dict[str, str]] = {
    "patients": {"patient_id": "patient"},
    "merged_patients": {"absorbed_id": "patient", "patient_id": "patient"},
    "studies": {"study_id": "study", "patient_id": "patient"},
    "series": {"series_id": "series", "study_id": "study"},
    "instances": {
        "instance_id": "instance",
        "series_id": "series",
        "frame_of_reference_id": "frame-of-reference",
    },
    "instance_versions": {"instance_id": "instance", "frame_of_reference_id": "frame-of-reference"},
    "source_files": {"path_id": "path", "instance_id": "instance"},
    "rejections": {"subject": "level"},
    "labels": {"subject": "level"},
    "findings": {"study_id": "study", "patient_id": "patient"},
    "not_scored": {"series_id": "series"},
    "decisions": {"region_instance_id": "instance"},
    "scan_measures": {"study_id": "study"},
    "scoring_claims": {"study_id": "study"},
    "erasures": {"patient_id": "patient"},
    "legal_holds": {"patient_id": "patient"},
    "removed_series": {"series_id": "series"},
}
# JSON that may hold pseudonyms anywhere, alone or as `<instance>/<frame>`.
PSEUDONYM_JSON: dict[str, str] = {
    "findings": "evidence",
    "runs": "summary",
    "erasures": "record",
    "scoring_claims": "result",
}
# Tables whose rows later ingests must recognise: an unknown pseudonym in them stops the rotation.
_OWNERS = frozenset({"patients", "merged_patients", "studies", "series", "instances"})
_OF_LEVEL = {"file": "path", "patient-study": "study"}  # kinds of pseudonym where the level has another name
_CHUNK = 500

_MAP = Table(
    "rotation_ids",
    MetaData(),
    Column("former_id", String(64), primary_key=True),
    Column("next_id", String(64), nullable=False),
    prefixes=["TEMPORARY"],
)


def load_map(connection: Connection, chunks: Iterable[list[tuple[str, str, str]]]) -> None:
    """Copy the map, in chunks of (kind, former id, next id), into a temporary table of this connection."""
    _MAP.create(connection, checkfirst=False)
    for chunk in chunks:
        connection.execute(_MAP.insert(), [{"former_id": former, "next_id": fresh} for _, former, fresh in chunk])


def strays(connection: Connection) -> Iterator[tuple[Kind, str, bool]]:
    """Yield each pseudonym missing from the loaded map once: (kind, pseudonym, whether it names a row of its own)."""
    seen: set[str] = set()
    erased = _list_ids_of_erased(connection)
    for name, columns in PSEUDONYM_COLUMNS.items():
        for column, kind in columns.items():
            for stray, level in _unmapped(connection, Base.metadata.tables[name], column, kind):
                if stray not in seen:
                    seen.add(stray)
                    yield cast(Kind, _OF_LEVEL.get(level, level)), stray, name in _OWNERS and stray not in erased


def _list_ids_of_erased(connection: Connection) -> set[str]:
    """Return the pseudonyms of erased patients and of their studies, which the crosswalk no longer knows."""
    erased = select(Erasure.patient_id)
    queries = (
        erased,
        select(MergedPatient.absorbed_id).where(MergedPatient.patient_id.in_(erased)),
        select(Study.study_id).where(Study.patient_id.in_(erased)),
    )
    return {one for query in queries for one in connection.execute(query).scalars()}


def _unmapped(connection: Connection, table: Table, column: str, kind: str) -> Iterator[tuple[str, str]]:
    value = table.c[column]
    mapped = select(_MAP.c.former_id).where(_MAP.c.former_id == value).exists()
    # Next ids do not count as strays: an interrupted rotation may have renamed some rows already.
    fresh = value.in_(select(_MAP.c.next_id))
    unmapped = and_(value.is_not(None), value != "", ~mapped, ~fresh)
    level = table.c.level if kind == "level" else literal(kind)
    for row in connection.execute(select(value, level).where(unmapped).distinct()):
        yield row[0], row[1]


def rename_everything(connection: Connection) -> None:
    """Replace every pseudonym in the catalogue using the loaded map; a second call changes nothing."""
    for table in Base.metadata.sorted_tables:  # parents first: children follow by ON UPDATE CASCADE
        for column in PSEUDONYM_COLUMNS.get(table.name, {}):
            _rename(connection, table, column)
    for name, column in PSEUDONYM_JSON.items():
        _rename_json(connection, Base.metadata.tables[name], column)


def _rename(connection: Connection, table: Table, column: str) -> None:
    value = table.c[column]
    fresh = select(_MAP.c.next_id).where(_MAP.c.former_id == value).scalar_subquery()
    renamed = value.in_(select(_MAP.c.former_id))
    connection.execute(update(table).where(renamed).values({column: fresh}))


def _rename_json(connection: Connection, table: Table, column: str) -> None:
    key = next(iter(table.primary_key.columns))
    keys = list(connection.execute(select(key).order_by(key)).scalars())
    for start in range(0, len(keys), _CHUNK):
        rows = connection.execute(select(key, table.c[column]).where(key.in_(keys[start : start + _CHUNK]))).all()
        fresh = _next_ids(connection, {word for _, value in rows for word in _words(value)})
        for row_key, value in rows:
            changed = _replaced(value, fresh)
            if changed != value:
                connection.execute(update(table).where(key == row_key).values({column: changed}))


def _next_ids(connection: Connection, words: set[str]) -> dict[str, str]:
    next_ids: dict[str, str] = {}
    ordered = sorted(words)
    for start in range(0, len(ordered), _CHUNK):
        query = select(_MAP.c.former_id, _MAP.c.next_id).where(_MAP.c.former_id.in_(ordered[start : start + _CHUNK]))
        next_ids.update((former, fresh) for former, fresh in connection.execute(query))
    return next_ids


def _words(value: Any) -> Iterator[str]:
    """Yield every string of a JSON value that may be a pseudonym, without its frame number."""
    if isinstance(value, str):
        yield value.partition("/")[0]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _words(key)
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)


def _replaced(value: Any, fresh: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        head, slash, tail = value.partition("/")
        return fresh.get(head, head) + slash + tail
    if isinstance(value, Mapping):
        return {_replaced(key, fresh): _replaced(item, fresh) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, fresh) for item in value]
    return value
