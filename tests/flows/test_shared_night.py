"""A night on shared services: PostgreSQL for catalogue, MLflow and Prefect, a work pool with two workers, one killed.

`pytest -m slow -s tests/flows/test_shared_night.py` prints how long one worker and two take, in turns:
NIGHTREAD_TEST_STUDIES, _SIZE, _METHOD and _TURNS make it a measurement.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select, update

from flows.server import run_server
from pipeline.config import ScoringPolicy, Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.schema import now
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.train import train
from pipeline.stages.run.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
STUDIES = int(os.environ.get("NIGHTREAD_TEST_STUDIES", "60"))
SIZE = os.environ.get("NIGHTREAD_TEST_SIZE", "32")  # pixels; a real size and method make the times tell something
METHOD = os.environ.get("NIGHTREAD_TEST_METHOD", "")
PATIENCE = 500.0

WORKER = """
import sys, time
from pathlib import Path
from pipeline.config import Settings
from pipeline.stages.detect.score import find_detectors_to_run, score
settings, mine, go = Settings.load(), Path(sys.argv[1]), Path(sys.argv[2])
detector = find_detectors_to_run(settings)[0]
mine.touch()
while not go.exists():
    time.sleep(0.01)
begun = time.perf_counter()
score(detector, settings, again=True)
print(time.perf_counter() - begun)
"""


@pytest.fixture(scope="module")
def site(phantom_night: Any, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace whose catalogue and MLflow are in PostgreSQL, with a champion and unscored studies."""
    urls = {name: new_database().replace("postgresql:", "postgresql+psycopg:") for name in ("catalogue", "mlflow")}
    tmp_path = tmp_path_factory.mktemp("site")
    (tmp_path / "ws").mkdir()
    settings = Settings(
        workspace=tmp_path / "ws", catalogue_url=urls["catalogue"], mlflow_uri=urls["mlflow"], workers=1,
        scoring=ScoringPolicy(runner="pool", workers=2),
    )  # fmt: skip
    # JSON is YAML; every process reads the same file.
    (tmp_path / "ws" / "settings.yaml").write_text(settings.model_dump_json(exclude={"workspace"}))
    write_phantoms(tmp_path / "inbox", STUDIES, "MR", 0.2, 7, size=int(SIZE))
    changes = [f"data.normaliser.image_size={SIZE}", *([f"method={METHOD}"] if METHOD else [])]
    ingest([phantom_night.archive, tmp_path / "inbox"], settings)
    import_labels(phantom_night.labels, settings)
    calibrate(train(load_config(phantom_night.config, RunConfig, changes), settings), settings)
    return settings


def environment(settings: Settings, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "NIGHTREAD_"))}
    home = settings.workspace.parent / "home"
    own = {"NIGHTREAD_WORKSPACE": str(settings.workspace), "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)}
    return inherited | own | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"} | more


def outcome(settings: Settings) -> list[tuple[Any, ...]]:
    """The score comes last: it may differ by rounding, as the sizes of batches depend on the shares of the workers."""
    with Catalogue.open(settings) as catalogue:
        findings = sorted(catalogue.list_findings(), key=lambda row: row.study_id)
        return [(row.study_id, row.p_value, row.flagged, pytest.approx(row.score, abs=1e-6)) for row in findings]


def seconds_of(settings: Settings, workers: int, folder: Path) -> float:
    """Score everything again with so many processes that begin together; return the time of the last one."""
    folder.mkdir()
    marks = [folder / f"ready-{number}" for number in range(workers)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(mark), str(folder / "go")],
            env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for mark in marks
    ]  # fmt: skip
    while not all(mark.exists() for mark in marks):
        assert all(process.poll() is None for process in running)
        time.sleep(0.05)
    (folder / "go").touch()
    return max(float(process.communicate(timeout=PATIENCE)[0].split()[-1]) for process in running)


@pytest.fixture
def pool(site: Settings, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A Prefect server on PostgreSQL with the deployments; the environment of its workers."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    database = new_database().replace("postgresql:", "postgresql+asyncpg:")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database)
    schedule = site.workspace.parent / "night.yaml"
    schedule.write_text("name: nightly\n")
    with run_server(site.workspace.parent / "server.log") as url:
        yield environment(site, PREFECT_API_URL=url, NIGHTREAD_SCHEDULE=str(schedule))


def prefect(env: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def start_worker(env: dict[str, str], folder: Path, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "nights", "--limit", "1", "--name", name]
    with (folder / f"{name}.log").open("wb") as out:
        return subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=subprocess.STDOUT)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """End a worker and the flow run that it has begun, as a power cut would."""
    processes = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for process in processes:
        process.kill()
    worker.wait()


def wait_for(what: Callable[[], Any], worker: subprocess.Popen[bytes], log: Path) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := what()):
        assert time.monotonic() < deadline and worker.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    return value


@pytest.mark.slow
def test_the_worker_of_a_pool_is_killed_and_the_other_ends_the_run(
    site: Settings, pool: dict[str, str], tmp_path: Path
) -> None:
    """The victim runs alone until it holds studies; its helper is called, comes when it is dead, and does the rest.

    The leases of the dead would end by themselves after two minutes.
    """
    prefect(pool, "work-pool", "create", "nights", "--type", "process")
    prefect(pool, "deploy", "--all", "--prefect-file", str(ROOT / "configs" / "prefect.yaml"))
    prefect(pool, "deployment", "run", "nightly/nightly")
    victim = start_worker(pool, tmp_path, "victim")
    with Catalogue.open(site) as catalogue:

        def held() -> int:
            with catalogue.reading() as session:
                return session.scalar(select(func.count()).where(ScoringClaim.state == "taken")) or 0

        count = wait_for(held, victim, tmp_path / "victim.log")
        kill(victim)
        assert outcome(site) == [] and 0 < count <= STUDIES
        with catalogue.session() as session:
            session.execute(update(ScoringClaim).values(expires_at=now() - timedelta(days=1)))
        helper = start_worker(pool, tmp_path, "helper")
        try:
            wait_for(lambda: outcome(site), helper, tmp_path / "helper.log")
        finally:
            kill(helper)
        runs = catalogue.list_runs("score")
    assert [run.state for run in runs] == ["done"] and runs[0].summary["studies"] == STUDIES
    assert len(outcome(site)) == STUDIES == len({study for study, *_ in outcome(site)})


@pytest.mark.slow
def test_one_worker_and_two_in_turns(site: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The site was scored by the pool, if the test above ran."""
    if not outcome(site):
        score(find_detectors_to_run(site)[0], site)
    before = [(*row[:-1], row[-1].expected) for row in outcome(site)]
    times: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(int(os.environ.get("NIGHTREAD_TEST_TURNS", "1"))):
        for workers, taken in times.items():
            taken.append(seconds_of(site, workers, tmp_path / f"{turn}-{workers}"))
            assert outcome(site) == before
    medians = {workers: statistics.median(taken) for workers, taken in times.items()}
    with capsys.disabled():
        print(f"\n{STUDIES} studies, seconds: {times}; one worker takes {medians[1] / medians[2]:.2f} times as long")
