"""A night on PostgreSQL and S3: catalogue, crosswalk, MLflow and Prefect in databases, pixels in a bucket, a work pool
with two workers. One is killed while both score; the next night leaves what an undisturbed one leaves.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from flows.server import run_server
from pipeline.config import ReviewPolicy, ScoringPolicy, Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.network.send import require_destination
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import LOG
from pipeline.stages.detect.train import train
from pipeline.stages.reliability.final_state import compare, read_state
from pipeline.stages.reliability.whole_night import run_night
from pipeline.stages.run.run_config import RunConfig
from tests.flows.test_shared_night import environment, kill, prefect, start_worker
from tests.flows.test_work_pool import FILE, ask

s3fs = pytest.importorskip("s3fs", reason="the extra s3 is not installed")
moto = pytest.importorskip("moto.server", reason="moto is not installed")

STUDIES, PATIENCE, LATENCY = 40, 500.0, 0.3
FIELDS = {"catalogue_url": "catalogue", "crosswalk_url": "crosswalk", "mlflow_uri": "mlflow"}
# Every study that a worker hands in, noted by the database itself: the claims go when the run ends.
TRIGGER = """
CREATE TABLE handed_in (study_id text, worker text);
CREATE FUNCTION note_done() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO handed_in VALUES (NEW.study_id, NEW.worker); RETURN NEW; END $$;
CREATE TRIGGER handed_in AFTER UPDATE ON scoring_claims FOR EACH ROW
WHEN (NEW.state = 'done' AND OLD.state <> 'done') EXECUTE FUNCTION note_done();
"""


@dataclass
class Bucket:
    """moto's server, which answers reads of pixels after some seconds, and only while it is open."""

    application: Any
    seconds: float = 0.0
    open: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".zip"):
            self.open.wait(PATIENCE)
            time.sleep(self.seconds)
        return self.application(environ, start)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    import boto3
    from moto.moto_server.threaded_moto_server import MotoRequestHandler
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):  # type: ignore[misc]
        def log_request(self, *_: Any) -> None:
            """Say nothing: a request a slice fills the report."""

    served = Bucket(moto.DomainDispatcherApplication(moto.create_backend_app))
    served.open.set()
    server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=Quiet)
    said = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}
    for name, value in (said | {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()  # those of another test ask its server
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    boto3.client("s3").create_bucket(Bucket="radiology")
    yield served
    server.shutdown()
    thread.join()


@dataclass
class Site:
    """A workspace on services, the folder of tonight's scans, and a copy of everything as it was before the night."""

    settings: Settings
    inbox: Path
    postgres: str
    before: Path

    @property
    def databases(self) -> dict[str, str]:
        """Names of the databases."""
        return {name: str(make_url(getattr(self.settings, field)).database) for field, name in FIELDS.items()}

    def copy_databases(self, source: str, target: str) -> None:
        """Replace the databases whose names end with `target` by copies of those that end with `source`."""
        with psycopg.connect(f"host={self.postgres} user=nightread dbname=postgres", autocommit=True) as server:
            for name in self.databases.values():
                server.execute(
                    f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name + source}'"
                )
                server.execute(f'DROP DATABASE IF EXISTS "{name + target}" WITH (FORCE)')
                server.execute(f'CREATE DATABASE "{name + target}" TEMPLATE "{name + source}"')

    def restore(self, keys: set[str]) -> None:
        """Set workspace, databases and bucket back to the time before the night."""
        store = PixelStore(self.settings.store)
        for key in set(store.keys()) - keys:
            store.delete(key)
        shutil.rmtree(self.settings.workspace)
        shutil.copytree(self.before, self.settings.workspace)
        self.copy_databases("-before", "")

    def ask(self, query: str) -> list[Any]:
        with psycopg.connect(f"host={self.postgres} user=nightread dbname={self.databases['catalogue']}") as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def site(phantom_night: Any, bucket: Bucket, postgres: str, new_database: Any, tmp_path: Path) -> Site:
    """A champion, trained from the bucket, and an inbox of unread studies."""
    urls = {field: new_database().replace("postgresql:", "postgresql+psycopg:") for field in FIELDS}
    (tmp_path / "ws").mkdir()
    settings = Settings(
        workspace=tmp_path / "ws", **urls, store_url="s3://radiology/pixels", workers=1,
        scoring=ScoringPolicy(runner="pool", workers=2), review=ReviewPolicy(sample_share=1),
    )  # fmt: skip
    (tmp_path / "ws" / "settings.yaml").write_text(settings.model_dump_json(exclude={"workspace"}))
    ingest([phantom_night.archive], settings)
    import_labels(phantom_night.labels, settings)
    # One slice at a time: in batches, whose sizes depend on the shares, a score may differ in its last digits.
    config = load_config(phantom_night.config, RunConfig, ["detection.batch_size=1"])
    calibrate(train(config, settings), settings)
    write_phantoms(tmp_path / "inbox", STUDIES, "MR", 0.2, 7, size=32, grades=(3,))
    made = Site(settings, tmp_path / "inbox", postgres, tmp_path / "before")
    with psycopg.connect(f"host={postgres} user=nightread dbname={made.databases['catalogue']}") as connection:
        connection.execute(TRIGGER)
    shutil.copytree(settings.workspace, made.before)
    made.copy_databases("", "-before")
    return made


@dataclass
class Pool:
    """A Prefect server on PostgreSQL with a deployed work pool, and its two workers."""

    url: str
    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen[bytes]]

    def begin(self) -> str:
        """Begin a night; return the id of its run."""
        deployment = ask(f"{self.url}/deployments/name/nightly/nightly")["id"]
        return str(ask(f"{self.url}/deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])

    def read(self, run: str) -> Any:
        return ask(f"{self.url}/flow_runs/{run}")

    def wait(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (value := what()):
            logs = "\n".join(file.read_text()[-3000:] for file in self.folder.glob("worker-*.log"))
            assert time.monotonic() < deadline, logs
            time.sleep(0.2)
        return value

    def worker_of(self, run: str) -> subprocess.Popen[bytes]:
        """Return the worker that runs a flow run."""
        pid = int(str(self.read(run)["infrastructure_pid"]).rpartition(":")[2])
        parents = {process.pid for process in psutil.Process(pid).parents()}
        return next(worker for worker in self.workers if worker.pid in parents)


@pytest.fixture
def pool(site: Site, new_database: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    database = new_database().replace("postgresql:", "postgresql+asyncpg:")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database)
    schedule = tmp_path / "night.yaml"
    schedule.write_text(f"name: nightly\nroots: ['{site.inbox}']\n")
    with run_server(tmp_path / "server.log") as url:
        env = environment(site.settings, PREFECT_API_URL=url, NIGHTREAD_SCHEDULE=str(schedule))
        ask(f"{url}/work_pools/", {"name": "nights", "type": "process"})
        prefect(env, "deploy", "--all", "--prefect-file", str(FILE))
        workers = [start_worker(env, tmp_path, f"worker-{number}") for number in (1, 2)]
        try:
            yield Pool(url, env, tmp_path, workers)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    kill(worker)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_night_after_a_kill_leaves_what_an_undisturbed_one_leaves(
    site: Site, bucket: Bucket, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox, keys = site.settings.workspace.parent / "outbox", set(PixelStore(site.settings.store).keys())
    outside = require_destination("folder", outbox)
    run_night(site.settings, [site.inbox], outside)
    expected = read_state(site.settings, outbox)
    assert len(expected["findings"]) == STUDIES and len(expected["heatmaps"]) == 2
    shutil.rmtree(outbox)
    site.restore(keys)
    assert read_state(site.settings, outbox)["findings"] == []

    pool: Pool = request.getfixturevalue("pool")
    bucket.seconds = LATENCY
    bucket.open.clear()
    run = pool.begin()
    pool.wait(lambda: len(site.ask("SELECT DISTINCT worker FROM scoring_claims WHERE state = 'taken'")) == 2)
    bucket.open.set()  # both workers have arrived
    pool.wait(lambda: len(site.ask("SELECT DISTINCT worker FROM handed_in")) == 2)
    bucket.open.clear()  # both have handed something in; the next read holds each of them with studies in hand
    pool.wait(lambda: len(site.ask("SELECT DISTINCT worker FROM scoring_claims WHERE state = 'taken'")) == 2)
    kill(pool.worker_of(run))
    done = {study for (study,) in site.ask("SELECT study_id FROM handed_in")}
    held = dict(site.ask("SELECT worker, count(*) FROM scoring_claims WHERE state = 'taken' GROUP BY worker"))
    assert 0 < len(done) < STUDIES and len(held) == 2, (done, held)
    bucket.seconds = 0.0
    bucket.open.set()
    # The lease of the dead worker ends; the living one renews its own with its next step.
    site.ask(
        "UPDATE scoring_claims SET expires_at = expires_at - interval '2 minutes' WHERE state = 'taken' RETURNING 1"
    )
    pool.wait(lambda: len(site.ask("SELECT 1 FROM findings")) == STUDIES)
    with Catalogue.open(
        site.settings
    ) as catalogue:  # what the living one has still to log, the next night would log too
        pool.wait(lambda: not catalogue.list_pending("score", LOG))
    handed_in = Counter(study for (study,) in site.ask("SELECT study_id FROM handed_in"))
    assert len(handed_in) == STUDIES and set(handed_in.values()) == {1}

    run_night(site.settings, [site.inbox], outside)
    assert compare(expected, read_state(site.settings, outbox)) == []
    with capsys.disabled():
        print(f"\n{len(done)} of {STUDIES} studies handed in and {sum(held.values())} held at the kill")
