"""Fixtures that every room shares. Threads and telemetry are set before anything heavy is imported."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "300"

# Prefect settles its home when it is first imported, whichever test comes first.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="nightread-prefect-")

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import settings as hypothesis_settings

from pipeline.config import ReviewPolicy, Settings

if TYPE_CHECKING:
    from pipeline.stages.detect.calibrate import CalibrationReport

# Its limit of 200 ms per example is of the wall clock: a busy machine would fail a test that is right.
hypothesis_settings.register_profile("busy machine", deadline=None)
hypothesis_settings.load_profile("busy machine")

RUN_CONFIG = """
name: tiny
data:
  route: phantom-mr
  normaliser: {kind: mr_percentile, image_size: 32}
  splits:
    normals: {train: 0.4, validate: 0.1, calibrate: 0.3, develop: 0.2}
    others: {develop: 1.0}
method: {name: ae, widths: [8, 16, 16], hidden: 64}
training: {images: 200, batch_size: 16, validate_every_images: 100}
detection: {flagging: {rule: capacity, capacity: 2, alpha: 0.2}}
evaluation: {resamples: 100}
"""


# The slow files that take longest: with `--dist loadfile` a worker takes whole files, in this order.
LONGEST = (
    "notebooks/test_notebooks.py",
    "detection/test_registry_guarantee.py",
    "reliability/test_faulty_nights.py",
    "flows/test_shared_night.py",
    "flows/test_killed_night_on_services.py",
    "identity/test_rotation_killed.py",
    "web/test_speed.py",
    "web/test_browser.py",
    "speed/test_speed.py",
    "web/test_pictures.py",
    "flows/test_gallery.py",
    "reliability/test_simulated_year.py",
    "export/test_orthanc.py",
    "up/test_up.py",
    "flows/test_serve.py",
    "flows/test_runners.py",
    "benchmark/test_flow.py",
    "flows/test_postgresql.py",
    "audit/test_forget_on_services.py",
    "review/test_scale.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker waits for one of them at the end."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(place)))


def pytest_unconfigure() -> None:
    """Remove Prefect's home, and let its server stop without complaints to a screen that pytest has closed."""
    logging.raiseExceptions = False
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an empty workspace under the test's own folder."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Settings(workspace=workspace, workers=1)  # a second decoder costs more than it saves on few files


@pytest.fixture(scope="session", autouse=True)
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow spends a second of processor time on a new database: workspaces of this process begin with a copy."""
    from pipeline.tracking import experiment

    first = Settings(workspace=tmp_path_factory.mktemp("mlflow") / "workspace")
    relocate = experiment.relocate

    def begin(workspace: Path, database: Path) -> None:
        if workspace != first.workspace and not database.exists():
            experiment.connect(first)
            shutil.copyfile(first.workspace / "mlflow" / "mlflow.db", database)
        relocate(workspace, database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "relocate", begin)
        yield


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """Prefect stops its server when Python ends; xdist kills a worker that needs ten seconds for its end."""
    yield
    if "prefect.server.api.server" in sys.modules:
        from prefect.logging.handlers import APILogHandler
        from prefect.server.api.server import SubprocessASGIServer

        APILogHandler().flush()
        for server in list(SubprocessASGIServer._instances.values()):
            server.stop()


@pytest.fixture(scope="session")
def small() -> dict[str, dict[str, Any]]:
    """A small configuration of each method, for tests over the registry; names that are absent have none."""
    return yaml.safe_load((Path(__file__).parent / "small_methods.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class CutOff:
    """How to run Python without a network: a command prefix, and code that brings the loopback up (servers need it)."""

    prefix: tuple[str, ...]
    code: str


@pytest.fixture(scope="session")
def cut_off() -> CutOff:
    """A network namespace of its own; skips where they are not available."""
    loopback = (
        "import fcntl, socket, struct\n"
        "link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "fcntl.ioctl(link, 0x8914, struct.pack('16sh', b'lo', 0x1 | 0x40))\n"  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
        "try:\n"
        "    socket.create_connection(('192.0.2.1', 80), timeout=2)\n"
        "except OSError as error:\n"
        "    assert error.errno == 101, error\n"  # the network is unreachable: the cut is real
        "else:\n"
        "    raise SystemExit('the network is there')\n"
    )
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return CutOff(prefix, loopback)
    pytest.skip("unshare -n is missing or forbidden here")


@dataclass(frozen=True, slots=True)
class PhantomNight:
    """Files of a small phantom hospital: a labelled archive, an inbox with tonight's scans, a run configuration."""

    folder: Path
    archive: Path
    labels: Path
    inbox: Path
    config: Path
    planted: str  # part of every invented name and number, and of a folder's name: it must appear nowhere else


@pytest.fixture(scope="session")
def phantom_night(tmp_path_factory: pytest.TempPathFactory) -> PhantomNight:
    """48 labelled phantoms and 6 unlabelled ones, brain MR, one slice of 32 pixels each; written once per session."""
    from pipeline.dicom.phantom.folder import write_labels, write_phantoms

    folder, planted = tmp_path_factory.mktemp("night"), "Zyxwname"
    archive, inbox = folder / "archive", folder / f"inbox of {planted}"
    studies = write_phantoms(archive, 48, "MR", 1 / 6, 5, size=32, family=planted).studies
    write_phantoms(inbox, 6, "MR", 0.5, 6, size=32, grades=(3,), family=planted)
    (folder / "run.yaml").write_text(RUN_CONFIG)
    return PhantomNight(folder, archive, write_labels(studies, folder), inbox, folder / "run.yaml", planted)


@pytest.fixture(scope="session")
def new_hospital(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Settings]:
    """Return a function that makes an empty workspace whose pseudonym key, and so every patient's set, is known."""

    def make() -> Settings:
        from pipeline.dicom.identity.keyfile import create_key

        settings = Settings(workspace=tmp_path_factory.mktemp("hospital") / "workspace", workers=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.dicom.identity.keyfile.secrets.token_bytes", lambda count: b"k" * count)
            create_key(settings.key_file)
        return settings

    return make


@dataclass(frozen=True, slots=True)
class TrainedWorkspace:
    """A workspace with a champion on phantom-mr. Shared by the session: leave champion and findings as they are."""

    settings: Settings
    report: CalibrationReport


@pytest.fixture(scope="session")
def trained(phantom_night: PhantomNight, new_hospital: Callable[[], Settings]) -> TrainedWorkspace:
    """Archive and inbox ingested, labels imported, a tiny model trained, calibrated and registered."""
    from pipeline.config import load_config
    from pipeline.data.ingest.ingest import ingest
    from pipeline.data.labels.labels import import_labels
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.train import train
    from pipeline.stages.run.run_config import RunConfig

    settings = new_hospital()
    ingest([phantom_night.archive, phantom_night.inbox], settings)
    import_labels(phantom_night.labels, settings)
    run = train(load_config(phantom_night.config, RunConfig), settings)
    return TrainedWorkspace(settings, calibrate(run, settings))


@dataclass(frozen=True, slots=True)
class ScoredNight:
    """A workspace with a scoring run that flagged two studies."""

    settings: Settings
    run_id: str
    planted: str


@pytest.fixture(scope="session")
def scored(
    trained: TrainedWorkspace, phantom_night: PhantomNight, tmp_path_factory: pytest.TempPathFactory
) -> ScoredNight:
    """A copy of the trained workspace whose inbox was scored; the one that all share has no findings."""
    from pipeline.stages.detect.score import find_detectors_to_run, score

    every_scan = ReviewPolicy(sample_share=1)  # so that the list holds flagged and unflagged scans, whatever the lot
    settings = Settings(workspace=tmp_path_factory.mktemp("scored") / "workspace", review=every_scan)
    shutil.copytree(trained.settings.workspace, settings.workspace)
    (run,) = find_detectors_to_run(settings, "phantom-mr")
    report = score(run, settings)
    assert report.flagged == 2
    return ScoredNight(settings, report.run_id, phantom_night.planted)


@dataclass(frozen=True, slots=True)
class JudgedWorkspace:
    """A workspace with a champion, and a challenger whose written gate report passes; runs by id."""

    settings: Settings
    champion: str
    challenger: str


@pytest.fixture(scope="session")
def first_judged(
    trained: TrainedWorkspace, phantom_night: PhantomNight, tmp_path_factory: pytest.TempPathFactory
) -> JudgedWorkspace:
    """A copy of the trained workspace with a second model; its report is written by hand, as there is no gate set."""
    from pipeline.config import load_config
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.train import train
    from pipeline.stages.operations.gate_report import REPORT, GateReport
    from pipeline.stages.operations.promotion import read_gates
    from pipeline.stages.operations.promotion_gates import GateLine
    from pipeline.stages.run.run_config import RunConfig
    from pipeline.stages.run.run_folder import RunFolder

    settings = Settings(workspace=tmp_path_factory.mktemp("judged") / "workspace", workers=1)
    shutil.copytree(trained.settings.workspace, settings.workspace)
    config = load_config(phantom_night.config, RunConfig, ["method={name: pca, directions: 4}"])
    run, champion = calibrate(train(config, settings), settings).run, trained.report.run
    folder, before = RunFolder.open(run), Path(champion.path).name
    lines = (
        GateLine("AUROC", True, "AUROC +0.012 (95 % interval -0.010 to 0.034), not inferior by a margin of 0.03."),
        GateLine("shadow", True, "On 60 studies of the last 14 nights the challenger flags 6.7%, the champion 5.0%."),
    )
    data = {"units": 48, "patients": 48, "patients_by_label": {"abnormal": 23, "normal": 25}, "sha256": "0" * 64}
    gates = read_gates().model_dump(mode="json")
    about = ("phantom-mr", folder.run_id, before, "2026-11-30T01:00:00Z", gates, lines, data)
    folder.write_text(REPORT, GateReport(*about, run.sha256, champion.sha256).text())
    return JudgedWorkspace(settings, before, folder.run_id)


@pytest.fixture
def judged(first_judged: JudgedWorkspace, tmp_path: Path) -> JudgedWorkspace:
    """A copy of it, as promotions change it."""
    place = tmp_path / "judged"
    shutil.copytree(first_judged.settings.workspace, place, ignore=shutil.ignore_patterns("pixels", "cache"))
    return replace(first_judged, settings=Settings(workspace=place, workers=1))


@pytest.fixture
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that `dciodvfy` finds in a file; skips where the tool is missing."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        done = subprocess.run([tool, str(path)], capture_output=True, text=True, timeout=240, check=False)
        lines = (done.stdout + done.stderr).splitlines()
        assert lines, "dciodvfy said nothing, not even the object's name"
        return [line for line in lines if line.startswith("Error")]

    return errors


# A PostgreSQL that the tests start themselves on a private socket.
PLACES = ("/usr/local/bin", "/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin")
# PostgreSQL refuses to run as root; any unprivileged account will do.
ACCOUNTS = ("postgres", "nobody")
PATIENCE = 240.0


def binary(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *PLACES)))


def account() -> dict[str, object]:
    """Arguments for subprocess that leave root; none needed for others."""
    if os.geteuid() != 0:
        return {}
    entries = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next((entries[name] for name in ACCOUNTS if name in entries), None)
    if entry is None:
        pytest.skip("PostgreSQL refuses root, and there is no account `postgres` or `nobody` to run it as")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.skip(f"PostgreSQL does not start here: {log.read_text()[-300:]}")
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL was not ready in {PATIENCE:.0f} s: {log.read_text()[-300:]}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The socket folder of a running PostgreSQL with the superuser `nightread`."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not (binary("initdb") and binary("postgres")):
        pytest.skip("no PostgreSQL binaries here")
    run_as = account()
    folder = Path(tempfile.mkdtemp(prefix="nr-pg-"))
    log = folder / "log"
    try:
        if run_as:
            os.chown(folder, run_as["user"], run_as["group"])  # type: ignore[arg-type]
        data = str(folder / "data")
        subprocess.run(
            [binary("initdb"), "-D", data, "-U", "nightread", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **run_as,
        )  # fmt: skip
        command = [binary("postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **run_as)
        try:
            wait_until_ready(f"host={folder} user=nightread dbname=postgres", server, log)
            yield str(folder)
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients, such as MLflow's pool in this process
            server.wait(PATIENCE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[[], str]:
    """Makes an empty PostgreSQL database and returns its URL."""
    import psycopg

    def make() -> str:
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(f"host={postgres} user=nightread dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql://nightread@/{name}?host={postgres}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def any_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of a fresh workspace, once on each database."""
    if request.param == "sqlite":
        return settings
    return settings.model_copy(update={"catalogue_url": request.getfixturevalue("new_database")()})
