"""Key rotation in the crosswalk: the map from old to new pseudonyms, and the renaming of the crosswalk's own rows.

Every function works inside the transaction of the connection passed to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Column, Connection, Row, delete, func, insert, literal, select, update

from pipeline.dicom.identity.crosswalk_tables import (
    FormerId,
    FrameOfReference,
    Instance,
    KeyState,
    Path_,
    Person,
    RotationMap,
    Series,
    Study,
    now,
)
from pipeline.dicom.identity.pseudonyms import Kind, Pseudonyms
from pipeline.errors import IdentityError

_CHUNK = 5_000


def _person(keys: Pseudonyms, row: Row[Any]) -> str:
    return keys.patient(row.issuer, row.patient_id) if row.patient_id else keys.patient_of_study(row.unnamed_study_uid)


Make = Callable[[Pseudonyms, Any], str]
_SERIES = select(Series.__table__, Study.study_uid).join(Study.__table__, Series.study_id == Study.study_id)
# Kind, rows, their pseudonym column, and the functions of which one derives that pseudonym from the row with a key.
_MAKERS: tuple[tuple[Kind, Any, Any, tuple[Make, ...]], ...] = (
    ("patient", select(Person.__table__), Person.person_id, (_person,)),
    ("study", select(Study.__table__), Study.study_id, (lambda keys, row: keys.study(row.study_uid),)),
    (
        "series",
        _SERIES,
        Series.series_id,
        (
            lambda keys, row: keys.series(row.series_uid),
            lambda keys, row: keys.series_within(row.study_uid, row.series_uid),
        ),
    ),
    ("instance", select(Instance.__table__), Instance.instance_id, (lambda keys, row: keys.instance(row.sop_uid),)),
    ("path", select(Path_.__table__), Path_.path_id, (lambda keys, row: keys.path(os.fsdecode(row.path)),)),
    (
        "frame-of-reference",
        select(FrameOfReference.__table__),
        FrameOfReference.frame_of_reference_id,
        (lambda keys, row: keys.frame_of_reference(row.frame_of_reference_uid),),
    ),
)

# Parents before children: where the database cascades, the children are already renamed.
_COLUMNS = (
    *(Person.person_id, Study.study_id, Study.person_id, Series.series_id, Series.study_id),
    *(Instance.instance_id, Instance.series_id, Path_.path_id, FormerId.current_id),
    FrameOfReference.frame_of_reference_id,
)


def build_map(connection: Connection, old: Pseudonyms, new: Pseudonyms) -> None:
    """Fill `rotation_map` for every pseudonym of the crosswalk.

    Raises:
        IdentityError: `old` does not derive a stored pseudonym from its row, so `new` would give it to somebody else.
    """
    for kind, query, column, makes in _MAKERS:
        rows = connection.execute(query, execution_options={"yield_per": _CHUNK})
        for part in rows.partitions():
            values = []
            for row in part:
                stored = getattr(row, column.name)
                make = next((one for one in makes if one(old, row) == stored), None)
                if make is None:
                    raise IdentityError(
                        f"The current key does not derive the crosswalk's {kind} {stored[:12]} from the identifiers "
                        "stored with it, so a rotation would mix up patients. Restore key and crosswalk from the same "
                        "backup."
                    )
                values.append({"former_id": stored, "kind": kind, "next_id": make(new, row)})
            connection.execute(insert(RotationMap), values)


def yield_map(connection: Connection) -> Iterator[list[tuple[str, str, str]]]:
    """Yield the map in chunks of (kind, former id, next id)."""
    query = select(RotationMap.kind, RotationMap.former_id, RotationMap.next_id)
    rows = connection.execute(query, execution_options={"yield_per": _CHUNK})
    for part in rows.partitions():
        yield [tuple(row) for row in part]


def finish(connection: Connection, old_key: str, new_key: str) -> dict[str, int]:
    """Rename the crosswalk's own pseudonyms, record the old ones as former ids, and make the new key current.

    Returns the number of pseudonyms renamed of each kind; the map is empty afterwards.
    """
    for column in _COLUMNS:
        _rename(connection, column)
    columns = [RotationMap.former_id, RotationMap.kind, RotationMap.next_id]
    connection.execute(insert(FormerId).from_select(["former_id", "kind", "current_id"], select(*columns)))
    connection.execute(update(KeyState).where(KeyState.key_id == old_key).values(retired_at=now()))
    connection.execute(insert(KeyState).from_select(["key_id", "since"], select(literal(new_key), literal(now()))))
    counts = connection.execute(select(RotationMap.kind, func.count()).group_by(RotationMap.kind)).all()
    connection.execute(delete(RotationMap))
    return {kind: count for kind, count in counts}


def _rename(connection: Connection, attribute: Any) -> None:
    column: Column[str] = attribute.property.columns[0]
    fresh = select(RotationMap.next_id).where(RotationMap.former_id == column).scalar_subquery()
    renamed = column.in_(select(RotationMap.former_id))
    connection.execute(update(column.table).where(renamed).values({column.name: fresh}))
