"""Rotation of the pseudonym key: every pseudonym changes, no patient changes sets, and it survives a kill at any point.

The steps, each of which is atomic and safe to repeat:

    1. the new key is linked into place beside the old one; from now on `Pseudonyms.open` refuses
    2. crosswalk, one transaction: the map of old to new pseudonyms, for both databases
    3. catalogue, one transaction: every pseudonym is replaced using the map (a repetition matches none)
    4. crosswalk, one transaction: the same there; old pseudonyms become former ones; the new key becomes current
    5. the new key file is renamed over the old one

Calling `rotate` after an interruption continues at the first step that is not done. Sets do not change because
`patients.draw` and `patients.set_name` are columns of the renamed row, not functions of the pseudonym.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.database import lock_writers, migrate, open_engine, translate_errors, writing
from pipeline.data.catalogue.rename_pseudonyms import load_map, rename_everything, strays
from pipeline.dicom.identity import crosswalk_database
from pipeline.dicom.identity.crosswalk_rotation import build_map, finish, yield_map
from pipeline.dicom.identity.crosswalk_tables import RotationMap
from pipeline.dicom.identity.keyfile import KeyLock, create_key
from pipeline.dicom.identity.pseudonyms import Pseudonyms, next_key_file
from pipeline.errors import IdentityError

Observer = Callable[[str], None]
# Without their real identifier these could not be recognised under the new key: the next ingest would add them twice.
_MUST_BE_KNOWN = frozenset({"patient", "study", "series", "instance"})


@dataclass(frozen=True, slots=True)
class RotationReport:
    """The key now in use, and the number of renamed pseudonyms per kind."""

    key_id: str
    renamed: dict[str, int]


def rotate(settings: Settings, on_step: Observer | None = None) -> RotationReport:
    """Replace the key and rewrite every pseudonym in both databases; an interrupted rotation is finished first.

    `on_step` is called with the name of each finished step. Old pseudonyms, in earlier reports, still resolve
    through the crosswalk. Run folders are not rewritten.

    Raises:
        IdentityError: the key is in use or missing, or a pseudonym of the catalogue is not in the crosswalk.
    """
    done = on_step or (lambda _step: None)
    if not (settings.key_file.exists() or next_key_file(settings).exists()):
        raise IdentityError(
            "There is no pseudonym key to rotate, because nothing has been ingested in this workspace yet. Check -w."
        )
    lock = KeyLock(settings.key_file, exclusive=True)
    engines = (crosswalk_database.open_engine(settings), open_engine(settings.catalogue))
    try:
        migrate(engines[1])
        return _steps(settings, *engines, done)
    finally:
        for engine in engines:
            engine.dispose()
        lock.close()


def _steps(settings: Settings, crosswalk: Engine, catalogue: Engine, done: Observer) -> RotationReport:
    old = Pseudonyms.read(settings.key_file)
    if not next_key_file(settings).exists():
        _check_bound(crosswalk, old)
    create_key(next_key_file(settings))
    new = Pseudonyms.read(next_key_file(settings))
    done("key")
    renamed: dict[str, int] = {}
    if crosswalk_database.read_current_key(crosswalk) != new.key_id:
        _write_map(crosswalk, catalogue, old, new)
        done("map")
        _rename_catalogue(crosswalk, catalogue)
        done("catalogue")
        with crosswalk.begin() as connection:
            renamed = finish(connection, old.key_id, new.key_id)
        done("crosswalk")
    durable.move(next_key_file(settings), settings.key_file)
    done("rename")
    return RotationReport(new.key_id, renamed)


def _check_bound(crosswalk: Engine, old: Pseudonyms) -> None:
    """Refuse, before anything is written, a crosswalk that was made with another key."""
    crosswalk_database.bind_key(crosswalk, old.key_id)


def _write_map(crosswalk: Engine, catalogue: Engine, old: Pseudonyms, new: Pseudonyms) -> None:
    """Fill the map in one transaction, unless an interrupted rotation has filled it."""
    with crosswalk.begin() as connection, catalogue.connect() as reader:
        if connection.execute(select(func.count()).select_from(RotationMap)).scalar_one():
            return
        build_map(connection, old, new)
        load_map(reader, yield_map(connection))
        _add_strays(connection, reader, new)


def _add_strays(connection: Connection, reader: Connection, new: Pseudonyms) -> None:
    """Map pseudonyms of the catalogue whose real identifier is unknown: paths and subjects of early rejections."""
    rows = []
    for kind, former, required in strays(reader):
        if required and kind in _MUST_BE_KNOWN:
            raise IdentityError(
                f"The {kind} {former[:12]} of the catalogue is not in the crosswalk, so it could never be recognised "
                "under a new key. Restore the crosswalk that belongs to this catalogue."
            )
        rows.append({"former_id": former, "kind": kind, "next_id": new.unknown(kind, former)})
    if rows:
        connection.execute(RotationMap.__table__.insert(), rows)


def _rename_catalogue(crosswalk: Engine, catalogue: Engine) -> None:
    with (
        crosswalk.connect() as source,
        translate_errors("rename its pseudonyms"),
        writing(catalogue).begin() as connection,
    ):
        lock_writers(connection)
        load_map(connection, yield_map(source))
        rename_everything(connection)
