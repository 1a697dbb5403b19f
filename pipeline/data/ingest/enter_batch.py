"""Enter accepted and refused files in batches, and recognise files that need not be read again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.data.catalogue.admission import Arrival, Outcome, admit
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import reason_of
from pipeline.data.catalogue.exports import find_pushed
from pipeline.data.catalogue.retention_schema import RemovedSeries
from pipeline.data.catalogue.schema import Instance, Series, SourceFile, now
from pipeline.data.ingest.reading_rules import reading_rules
from pipeline.data.ingest.sources import Refused, Seen
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.own_objects import made_here
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms
from pipeline.errors import CatalogueError, Rejected, RejectionCode

ACCEPTED, SAME = "accepted", "same"
# Refusals that may pass without a change of the file: another user, limit or policy, or a quieter machine.
_PASSING = frozenset(
    {
        RejectionCode.PERMISSION_DENIED,
        RejectionCode.STILL_WRITING,
        RejectionCode.UNREADABLE,
        RejectionCode.FILE_TOO_LARGE,
        RejectionCode.TOO_MANY_PIXELS,
        RejectionCode.DECOMPRESSION_BOMB,
        RejectionCode.NESTED_TOO_DEEP,
        RejectionCode.BURNED_IN_TEXT,
        RejectionCode.DECODE_TIMEOUT,
        RejectionCode.DECODE_MEMORY,
        RejectionCode.DECODER_CRASHED,
        RejectionCode.UNSUPPORTED_TRANSFER_SYNTAX,
        RejectionCode.FORGOTTEN,
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class Accepted:
    """A decoded file whose pixels are in the store."""

    seen: Seen
    ids: Ids
    identity: RawIdentity
    attributes: InstanceAttributes
    pixel_key: str


Record = Accepted | Refused
# Errors about a value, from the database, its driver or text encoding; all others are problems of the database.
_BAD_VALUE = (DataError, IntegrityError, ValueError, OverflowError)


def find_settled(catalogue: Catalogue, store: PixelStore, files: Sequence[Seen]) -> set[str]:
    """Return the path pseudonyms of the files that have not changed since they were last entered or refused.

    An accepted file whose object is missing from the (local) store is not settled, unless retention removed it, nor is
    one whose refusal may pass, or one that other rules than today's refused: another version of Nightread, or of a
    decoder. A merge of patients and a readmission of a study end the refusals that they remedy
    (`catalogue.refuse_again.judge_again`).
    """
    source = SourceFile
    query = (
        select(source.path_id, source.size_bytes, source.modified_ns, source.outcome, source.rules, Instance.pixel_key)
        .add_columns(RemovedSeries.removed_at)
        .outerjoin(Instance, Instance.instance_id == source.instance_id)
        .outerjoin(RemovedSeries, RemovedSeries.series_id == Instance.series_id)
        .where(source.path_id.in_({file.path_id for file in files}))
    )
    with catalogue.reading() as session:
        rows = {row.path_id: row for row in session.execute(query)}
    return {file.path_id for file in files if file.path_id in rows and _is_settled(file, rows[file.path_id], store)}


def _is_settled(file: Seen, row: Any, store: PixelStore) -> bool:
    if (file.size_bytes, file.modified_ns) != (row.size_bytes, row.modified_ns):
        return False
    if row.outcome not in (ACCEPTED, SAME):
        return row.outcome not in _PASSING and row.rules == reading_rules()
    # A remote store would cost a round trip per file; use `verify` there.
    if row.removed_at is not None:
        return True
    return row.pixel_key is not None and (not store.is_local or store.exists(row.pixel_key))


def enter(
    catalogue: Catalogue, crosswalk: Crosswalk, pseudonyms: Pseudonyms, batch: Sequence[Record]
) -> list[Outcome | Rejected]:
    """Enter a batch: crosswalk first, then catalogue in one transaction. Returns the outcome of each, in order.

    Raises:
        CatalogueError: the database cannot be written; then no part of the batch is in the catalogue.
    """
    scans = _refuse_pushed(catalogue, batch)
    entered = _remember(crosswalk, _keep_series_apart(catalogue, pseudonyms, scans))
    accepted = [record for record in entered if isinstance(record, Accepted)]
    with catalogue.session() as session:
        admitted = iter(admit(session, [Arrival(r.ids, r.attributes, r.pixel_key) for r in accepted]))
        outcomes = [next(admitted) if isinstance(record, Accepted) else record.reason for record in entered]
        for record, outcome in zip(entered, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                catalogue.add_rejection(session, record.seen.path_id, "file", outcome.code, outcome.sentence)
        _note_files(session, entered, outcomes)
    return outcomes


def _refuse_pushed(catalogue: Catalogue, batch: Sequence[Record]) -> list[Record]:
    """Refuse what `push` recorded as an object of ours, whatever a gateway has made of its header since."""
    pushed = find_pushed(catalogue, {record.identity.sop_uid for record in batch if isinstance(record, Accepted)})
    mark = "the record of what was pushed"
    return [
        Refused(record.seen, made_here(mark))
        if isinstance(record, Accepted) and record.identity.sop_uid in pushed
        else record
        for record in batch
    ]


def _keep_series_apart(catalogue: Catalogue, pseudonyms: Pseudonyms, batch: Sequence[Record]) -> list[Record]:
    """Give files whose Series Instance UID belongs to another study a series of their own.

    A UID that occurs in two studies is wrong in one of them, and nobody can say in which: the first to arrive must not
    shut the other out.
    """
    ids = {record.ids.series_id for record in batch if isinstance(record, Accepted)}
    with catalogue.reading() as session:
        rows = session.execute(select(Series.series_id, Series.study_id).where(Series.series_id.in_(ids)))
        owners = {series_id: study_id for series_id, study_id in rows}
    apart: list[Record] = []
    for record in batch:
        if isinstance(record, Accepted) and owners.setdefault(record.ids.series_id, record.ids.study_id) != (
            record.ids.study_id
        ):
            own = pseudonyms.series_within(record.identity.study_uid, record.identity.series_uid)
            record = replace(record, ids=replace(record.ids, series_id=own))  # noqa: PLW2901
        apart.append(record)
    return apart


def _remember(crosswalk: Crosswalk, batch: Sequence[Record]) -> list[Record]:
    """Write the crosswalk; a file with an identity that it cannot store is refused, and the others continue."""
    try:
        with _crosswalk_errors(), crosswalk.transaction():
            _remember_all(crosswalk, batch)
    except _BAD_VALUE:
        return [_remember_alone(crosswalk, record) for record in batch]
    return list(batch)


def _remember_all(crosswalk: Crosswalk, batch: Sequence[Record]) -> None:
    crosswalk.remember_paths([(one.seen.path_id, one.seen.name) for one in batch if not _is_of_erased(one)])
    crosswalk.remember_many([(r.ids, r.identity) for r in batch if isinstance(r, Accepted)])


def _is_of_erased(record: Record) -> bool:
    """Whether a file was refused because its patient was erased: then nothing that names them is written down again."""
    return isinstance(record, Refused) and record.reason.code is RejectionCode.FORGOTTEN


def _remember_alone(crosswalk: Crosswalk, record: Record) -> Record:
    try:
        with _crosswalk_errors(), crosswalk.transaction():
            _remember_all(crosswalk, [record])
    except _BAD_VALUE:
        with _crosswalk_errors():
            crosswalk.remember_path(record.seen.path_id, record.seen.name)
        return Refused(
            record.seen,
            Rejected(
                RejectionCode.CORRUPT_HEADER,
                "An identifier is not valid text, so results could not be returned. Fix the header and ingest again.",
            ),
        )
    return record


@contextlib.contextmanager
def _crosswalk_errors() -> Iterator[None]:
    """Pass errors about values on, and replace all others by one that quotes no value."""
    try:
        yield
    except _BAD_VALUE:
        raise
    except SQLAlchemyError as error:
        raise CatalogueError(
            f"The crosswalk cannot be written: {reason_of(error)}. This batch was rolled back. Remove the cause and "
            "ingest again."
        ) from None


def _note_files(session: Session, batch: Sequence[Record], outcomes: Sequence[Outcome | Rejected]) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for record, outcome in zip(batch, outcomes, strict=True):
        row = _source_row(record, outcome)
        rows[row["path_id"]] = _keep_first(rows.get(row["path_id"]), row)
    _upsert(session, rows)


def _upsert(session: Session, rows: dict[str, dict[str, Any]]) -> None:
    earlier = select(SourceFile).where(SourceFile.path_id.in_(rows))
    old = {row.path_id: {"outcome": row.outcome, "instance_id": row.instance_id} for row in session.scalars(earlier)}
    new = [row for path_id, row in rows.items() if path_id not in old]
    again = [_keep_first(old[path_id], row) for path_id, row in rows.items() if path_id in old]
    if new:
        session.execute(insert(SourceFile.__table__), new)
    if again:
        session.execute(update(SourceFile), again)


def _source_row(record: Record, outcome: Outcome | Rejected) -> dict[str, Any]:
    accepted = SAME if outcome is Outcome.SAME else ACCEPTED
    code = outcome.code.value if isinstance(outcome, Rejected) else accepted
    return _row(record.seen, code, record.ids.instance_id if isinstance(record, Accepted) else None)


def _row(seen: Seen, outcome: str, instance_id: str | None = None) -> dict[str, Any]:
    return {
        "path_id": seen.path_id,
        "size_bytes": seen.size_bytes,
        "modified_ns": seen.modified_ns,
        "outcome": outcome,
        "instance_id": instance_id,
        "seen_at": now(),
        "rules": reading_rules(),
    }


def _keep_first(old: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    """Keep the outcome "accepted" of a file that brought its object and is read again."""
    brought_it = old is not None and old["outcome"] == ACCEPTED and old["instance_id"] == row["instance_id"]
    return {**row, "outcome": ACCEPTED} if brought_it and row["outcome"] == SAME else row
