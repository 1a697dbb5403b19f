"""The crosswalk opened by several processes at once, and many entries written in one call."""

from __future__ import annotations

import multiprocessing
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from filelock import FileLock
from sqlalchemy import event

from pipeline.config import Settings
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms
from pipeline.errors import IdentityError

TOGETHER = 6


def identity(person: int, image: int, accession: str = "") -> RawIdentity:
    study = f"1.2.{person}"
    return RawIdentity("", f"MRN-{person}", study, f"{study}.1", f"{study}.1.{image}", accession, "20240105")


def _open_and_remember(settings: Settings, number: int, barrier: object, answers: object) -> None:
    barrier.wait(30)  # type: ignore[attr-defined]
    try:
        with Pseudonyms.open(settings) as keys, Crosswalk.open(settings) as crosswalk:
            raw = identity(number, 1)
            crosswalk.remember(keys.of(raw, "local"), raw)
            answers.put("")  # type: ignore[attr-defined]
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}")  # type: ignore[attr-defined]


@pytest.fixture
def crosswalk(settings: Settings) -> Iterator[Crosswalk]:
    with Crosswalk.open(settings) as opened:
        yield opened


@pytest.fixture
def ids_of(settings: Settings) -> Iterator[Callable[[RawIdentity], Ids]]:
    with Pseudonyms.open(settings) as keys:
        yield lambda raw: keys.of(raw, "local")


@pytest.mark.parametrize("attempt", range(5))  # without the lock, one open in three failed
def test_a_new_crosswalk_is_opened_by_several_processes_at_once(settings: Settings, attempt: int) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(TOGETHER), context.Queue()
    arguments = [(settings, number, barrier, answers) for number in range(TOGETHER)]
    processes = [context.Process(target=_open_and_remember, args=args) for args in arguments]
    for process in processes:
        process.start()
    said = [answers.get(timeout=240) for _ in processes]
    for process in processes:
        process.join(30)
    assert said == [""] * TOGETHER
    with Crosswalk.open(settings) as crosswalk:
        assert crosswalk.count("patient") == crosswalk.count("instance") == TOGETHER
    assert {stat.S_IMODE(path.stat().st_mode) for path in settings.key_file.parent.iterdir()} == {0o600}


def test_a_process_that_hangs_in_the_middle_is_named_and_not_waited_for_for_ever(settings: Settings) -> None:
    settings = settings.model_copy(update={"database_wait_seconds": 0.1})
    Crosswalk.open(settings).close()
    with (
        FileLock(settings.key_file.parent / "crosswalk.db.lock"),
        pytest.raises(IdentityError, match=r"\b0\.1 s\b"),
    ):
        Crosswalk.open(settings)
    Crosswalk.open(settings).close()


def test_many_are_remembered_as_one_after_the_other(crosswalk: Crosswalk, ids_of: Callable[[RawIdentity], Ids]) -> None:
    raws = [identity(person, image) for person in range(3) for image in range(4)]
    raws += [identity(1, 0, "ACC-FIRST"), identity(1, 1, "ACC-LATER")]  # fills what was empty; the first one stays
    entries = [(ids_of(raw), raw) for raw in raws]
    crosswalk.remember_many(entries)
    crosswalk.remember_many(iter(entries))
    crosswalk.remember_many([])
    assert [crosswalk.count(kind) for kind in ("patient", "study", "series", "instance")] == [3, 3, 3, 12]  # type: ignore[arg-type]
    expected = [
        replace(raw, issuer="local", accession_number="ACC-FIRST" * (raw.patient_id == "MRN-1")) for raw in raws
    ]
    assert [crosswalk.find_identity(ids.instance_id) for ids, _ in entries] == expected


def test_many_are_remembered_whole_or_not_at_all(crosswalk: Crosswalk, ids_of: Callable[[RawIdentity], Ids]) -> None:
    good = [(ids_of(raw), raw) for raw in (identity(1, 1), identity(2, 1))]
    foreign = identity(3, 1)
    with pytest.raises(IdentityError, match="rotated"):
        crosswalk.remember_many([*good, (Pseudonyms(bytes(32)).of(foreign, "local"), foreign)])
    broken = replace(identity(4, 1), accession_number="\udc80")
    with pytest.raises(UnicodeEncodeError):
        crosswalk.remember_many([*good, (ids_of(broken), broken)])
    assert crosswalk.count("patient") == 0
    crosswalk.remember_many(good)  # what was rolled back is not taken for known
    assert crosswalk.count("instance") == 2


def test_a_batch_costs_one_statement_a_table(crosswalk: Crosswalk, ids_of: Callable[[RawIdentity], Ids]) -> None:
    entries = [(ids_of(raw), raw) for raw in (identity(person, image) for person in range(5) for image in range(20))]
    with crosswalk.transaction():
        statements: list[str] = []
        event.listen(crosswalk.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
        crosswalk.remember_many(entries)
        crosswalk.remember_paths((f"{number:032x}", f"/scans/{number}") for number in range(100))
    assert len(statements) == 5 and all(statement.startswith("INSERT") for statement in statements)
    assert crosswalk.count("instance") == crosswalk.count("path") == 100
