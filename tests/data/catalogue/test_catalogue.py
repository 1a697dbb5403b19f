"""Opening the catalogue: settings of the database, revisions, rejections, runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from pipeline.config import Settings
from pipeline.data.catalogue import catalogue as catalogue_module
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import open_engine, revisions, run_revisions
from pipeline.data.catalogue.schema import Base, Patient
from pipeline.data.migrations import HEAD, UNRELEASED
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.errors import CatalogueError, ConfigError
from pipeline.types import Finding, SliceScore


def test_models_and_migrations_agree(catalogue: Catalogue) -> None:
    with catalogue.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_one_line_of_revisions() -> None:
    assert revisions().get_heads() == [HEAD]


def test_migrations_go_down_to_nothing_and_up_again(catalogue: Catalogue) -> None:
    for down_to, expected in (("base", {"alembic_version"}), (None, set(Base.metadata.tables) | {"alembic_version"})):
        with catalogue.engine.begin() as connection:
            run_revisions(connection, down_to)
        with catalogue.engine.connect() as connection:
            assert set(connection.dialect.get_table_names(connection)) == expected


def test_threads_make_catalogues_while_others_migrate_by_alembic(tmp_path: Path) -> None:
    """MLflow and Prefect migrate their databases in our process, through state that Alembic keeps for all threads."""
    from mlflow.store.db.utils import _initialize_tables

    def ours(number: int) -> None:
        settings = Settings(workspace=tmp_path / f"w{number}")
        with Catalogue.open(settings) as made, made.engine.connect() as connection:
            assert set(Base.metadata.tables) < set(connection.dialect.get_table_names(connection))

    def theirs(number: int) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/mlflow{number}.db")
        _initialize_tables(engine)
        engine.dispose()

    with ThreadPoolExecutor(5) as pool:
        done = [pool.submit(theirs, 0), *[pool.submit(ours, number) for number in range(12)]]
    for one in done:
        one.result()


def test_readers_never_wait_for_writers_that_wait(catalogue: Catalogue) -> None:
    """Writers in line hold no connection: fifty of them once left none for anybody, until the pool gave up."""
    done: list[int] = []

    def write(number: int) -> None:
        with catalogue.session() as session:
            session.execute(text("SELECT 1"))
            done.append(number)

    with ThreadPoolExecutor(50) as pool:
        with catalogue.session():
            waiting = [pool.submit(write, number) for number in range(50)]
            time.sleep(0.5)
            assert catalogue.engine.pool.checkedout() == 1
            with catalogue.reading() as session:
                assert session.scalar(text("SELECT 1")) == 1
            assert done == []
        for one in waiting:
            one.result()
    assert sorted(done) == list(range(50))


def test_a_writer_that_never_ends_is_named(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "BUSY_SECONDS", 0.05)
    refused = pytest.raises(CatalogueError, match="another task of this process")
    with catalogue.session(), refused, catalogue.session():
        pass
    with catalogue.session() as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_a_newer_catalogue_is_refused(any_settings: Settings) -> None:
    with Catalogue.open(any_settings) as catalogue, catalogue.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogueError, match="newer Nightread"):
        Catalogue.open(any_settings)


@pytest.mark.parametrize("revision", sorted(UNRELEASED))
def test_a_catalogue_of_before_the_first_release_is_refused(any_settings: Settings, revision: str) -> None:
    with Catalogue.open(any_settings) as catalogue, catalogue.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": revision})
    with pytest.raises(CatalogueError, match=f"{revision}.*ingest"):
        Catalogue.open(any_settings)


def test_sqlite_pragmas(settings: Settings) -> None:
    with Catalogue.open(settings) as catalogue, catalogue.engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 60000, "synchronous": 2}


def test_a_new_database_waits_for_others_that_enter_wal_mode(tmp_path: Path) -> None:
    """SQLite's own busy timeout does not: without our waiting, one in thirty of these connections is refused."""
    barrier = threading.Barrier(6)

    def connect(number: int) -> None:
        engine = open_engine(f"sqlite:///{tmp_path / str(number)}.db")
        barrier.wait()
        engine.connect().close()
        engine.dispose()

    with ThreadPoolExecutor(6) as pool:
        for number in range(60):
            list(pool.map(connect, [number] * 6))


def test_foreign_keys_hold(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="(?i)foreign key"), catalogue.session() as session:
        session.execute(text("INSERT INTO studies VALUES ('s', 'nobody', '2026-01-01 00:00:00')"))


@pytest.mark.parametrize("any_settings", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_four_processes_may_create_it_at_once(any_settings: Settings) -> None:
    code = (
        "import sys; from pipeline.config import Settings; from pipeline.data.catalogue.catalogue import Catalogue;"
        "Catalogue.open(Settings.model_validate_json(sys.argv[1])).close()"
    )
    given = any_settings.model_dump_json()
    running = [subprocess.Popen([sys.executable, "-c", code, given], stderr=subprocess.PIPE) for _ in range(4)]
    assert [(process.communicate()[1].decode()[-500:], process.returncode) for process in running] == [("", 0)] * 4


def test_writers_wait_for_each_other_and_readers_do_not(catalogue: Catalogue) -> None:
    with catalogue.session() as session:
        session.add(Patient(patient_id="a" * 32, draw=0.5))

    def raise_draw() -> None:
        for _ in range(25):
            with catalogue.session() as session:
                patient = session.get_one(Patient, "a" * 32)
                patient.draw = patient.draw + 1.0

    threads = [threading.Thread(target=raise_draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    with catalogue.session() as _, catalogue.reading() as reader:
        assert reader.get_one(Patient, "a" * 32).draw >= 0.5
    for thread in threads:
        thread.join()
    with catalogue.reading() as session:  # a lost update would leave less
        assert session.get_one(Patient, "a" * 32).draw == 100.5


def test_a_failed_session_keeps_nothing(catalogue: Catalogue) -> None:
    with pytest.raises(RuntimeError), catalogue.session() as session:
        session.add(Patient(patient_id="a" * 32, draw=0.5))
        session.flush()
        raise RuntimeError
    with catalogue.reading() as session:
        assert session.get(Patient, "a" * 32) is None


def test_errors_show_no_bound_values(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError) as caught, catalogue.session() as session:
        session.execute(text("INSERT INTO nowhere VALUES (:name)"), {"name": "PLANTED^NAME"})
    assert "PLANTED" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["mysql://u@h/d", "no url"])
def test_other_databases_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(ConfigError, match="atalogue"):
        Catalogue.open(settings.model_copy(update={"catalogue_url": url}))


def test_unreachable_databases(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is not a database" * 100)
    for url in (f"sqlite:///{tmp_path}/file/x.db", f"sqlite:///{garbage}", "postgresql://u@/d?host=/nonexistent"):
        if url.startswith("postgresql"):
            pytest.importorskip("psycopg")
        with pytest.raises(CatalogueError):
            Catalogue.open(settings.model_copy(update={"catalogue_url": url}))


def test_rejections_count_once_a_subject_and_code(catalogue: Catalogue) -> None:
    for sentence in ("first", "second"):
        with catalogue.session() as session:
            catalogue.add_rejection(session, "p1", "file", "not-dicom", sentence)
            catalogue.add_rejection(session, "p2", "file", "not-dicom", sentence)
            catalogue.add_rejection(session, "p1", "file", "empty-file", sentence)
    assert catalogue.count_rejections() == {"empty-file": 1, "not-dicom": 2}
    assert [(row.subject, row.code, row.sentence) for row in catalogue.list_rejections()] == [
        ("p1", "not-dicom", "second"),
        ("p2", "not-dicom", "second"),
        ("p1", "empty-file", "second"),
    ]


def test_runs_and_findings(catalogue: Catalogue, ids_of: Callable[..., Ids], attributes: InstanceAttributes) -> None:
    many = [ids_of(str(n), f"P{n}", f"S{n}", f"R{n}") for n in range(3)]
    with catalogue.session() as session:
        for ids in many:
            catalogue.add_instance(session, ids, attributes, pixel_key="a" * 64)
    run_id = catalogue.start_run("score", "ct-head", "runs/x")
    evidence = (SliceScore("i", 0, "r", "s", "p", 2.5),)
    given = [
        Finding(many[0].study_id, many[0].patient_id, "ct", 9.0),
        Finding(many[1].study_id, many[1].patient_id, "ct", 1.0, p_value=0.5, flagged=False),
        Finding(many[2].study_id, many[2].patient_id, "ct", 2.0, 0.01, 99, "conformal", True, "fpr", evidence),
    ]
    catalogue.add_findings(run_id, given, "f" * 64)
    assert [row.score for row in catalogue.list_findings()] == [2.0, 1.0, 9.0]
    assert [row.score for row in catalogue.list_findings(run_id, flagged=True)] == [2.0]
    stored = catalogue.list_findings(flagged=True)[0].evidence[0]
    assert SliceScore(**stored) == evidence[0]
    again = catalogue.start_run("score", "ct-head", "runs/y")
    catalogue.add_findings(again, [Finding(many[0].study_id, many[0].patient_id, "ct", 3.0)], "f" * 64)
    assert len(catalogue.list_findings()) == 3
    assert [row.score for row in catalogue.list_findings(again)] == [3.0]
    assert catalogue.add_not_scored(again, [(many[0].series_id, "localiser", "It is a localiser.")]) == 1
    assert [row.code for row in catalogue.list_not_scored(again)] == ["localiser"]
    catalogue.finish_run(again, "done", {"auroc": 0.5}, "e" * 64)
    assert {run.run_id: run.state for run in catalogue.list_runs()} == {run_id: "running", again: "done"}
    assert catalogue.run(again).summary == {"auroc": 0.5}


def test_a_series_that_is_not_scored_is_news_once(
    catalogue: Catalogue, ids_of: Callable[..., Ids], attributes: InstanceAttributes
) -> None:
    """Every route checks every series every night, and no route may count a series again."""
    one, other = ids_of("1", series="R1"), ids_of("2", series="R2")
    with catalogue.session() as session:
        for ids in (one, other):
            catalogue.add_instance(session, ids, attributes, pixel_key="a" * 64)
    first, second = catalogue.start_run("score", "ct"), catalogue.start_run("score", "mr")
    scout, gap = (one.series_id, "localiser", "A localiser."), (other.series_id, "missing-slices", "A gap.")
    assert catalogue.add_not_scored(first, [scout, gap, scout]) == 2
    assert catalogue.add_not_scored(second, [scout, gap]) == 0
    assert (len(catalogue.list_not_scored()), catalogue.list_not_scored(second)) == (2, [])
    assert catalogue.add_not_scored(second, [(other.series_id, "mixed-sizes", "Two sizes.")]) == 1
    assert sorted(row.code for row in catalogue.list_still_not_scored()) == ["localiser", "mixed-sizes"]
    read = (SliceScore("i", 0, other.series_id, other.study_id, other.patient_id, 1.0),)
    catalogue.add_findings(second, [Finding(other.study_id, other.patient_id, "mr", 1.0, evidence=read)], "f" * 64)
    assert [row.code for row in catalogue.list_still_not_scored()] == ["localiser"]


@pytest.mark.parametrize(
    ("study", "keys", "refused", "listed"),
    [
        ("S", "ab", False, ["mixed-sizes"]),
        ("S", "abc", False, []),
        ("S", "abc", True, ["mixed-sizes", "no-contrast"]),
        ("T", "abc", False, ["mixed-sizes"]),
    ],
    ids=["one image missing", "all sent again", "refused again", "another study"],
)
def test_a_refused_series_leaves_the_list_when_its_images_have_arrived_in_others(
    catalogue: Catalogue,
    ids_of: Callable[..., Ids],
    attributes: InstanceAttributes,
    study: str,
    keys: str,
    refused: bool,
    listed: list[str],
) -> None:
    sent = [("S", "old", key) for key in "abc"] + [(study, f"new {key}", key) for key in keys]
    many = [ids_of(f"{series} {key}", study=study, series=series) for study, series, key in sent]
    with catalogue.session() as session:
        for ids, (_, _, key) in zip(many, sent, strict=True):
            catalogue.add_instance(session, ids, attributes, pixel_key=key * 64)
    run = catalogue.start_run("score", "ct")
    catalogue.add_not_scored(run, [(many[0].series_id, "mixed-sizes", "Two sizes.")])
    if refused:
        catalogue.add_not_scored(run, [(many[-1].series_id, "no-contrast", "One grey.")])
    assert sorted(row.code for row in catalogue.list_still_not_scored()) == listed
    assert len(catalogue.list_not_scored()) == 1 + refused


def test_opening_the_test_set_is_on_record(catalogue: Catalogue) -> None:
    run_id = catalogue.start_run("evaluate")
    catalogue.open_test(run_id, "final table")
    catalogue.open_test(run_id, "again")
    assert [row.purpose for row in catalogue.list_test_openings()] == ["final table", "again"]
    for record in (catalogue.open_test, catalogue.finish_run):
        with pytest.raises(CatalogueError, match="'nobody'"):
            record("nobody", "x")
