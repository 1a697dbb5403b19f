"""A registered detector, interpreters that know our dependencies but not us, and files to score."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.detection.score_files import score_file
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import connect
from pipeline.tracking.registry import requirements


def closure(roots: list[str]) -> set[str]:
    """Return the installed distributions that `roots` need, themselves included."""
    closed: set[str] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if f"{name}{sorted(requirement.extras)}" in closed:
            continue
        closed |= {name, f"{name}{sorted(requirement.extras)}"}
        with contextlib.suppress(PackageNotFoundError):
            asked = [{"extra": extra} for extra in ("", *requirement.extras)]
            lines = map(Requirement, distribution(name).requires or [])
            todo += [line for line in lines if not line.marker or any(map(line.marker.evaluate, asked))]
    return {name for name in closed if "[" not in name}


def places(name: str) -> set[str]:
    """Return what a distribution put into site-packages: the first part of each of its files."""
    try:
        return {file.parts[0] for file in distribution(name).files or [] if file.parts[0] not in ("..", "/")}
    except PackageNotFoundError:
        return set()


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the model's pinned requirements and what those need; nothing else from here, and not our code."""
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    installed = Path(sysconfig.get_path("purelib"))
    for entry in sorted({entry for name in closure(requirements()) for entry in places(name)} - {"__pycache__"}):
        if (installed / entry).exists():
            (site / entry).symlink_to(installed / entry)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def tracked(trained: Any) -> Any:
    """The trained workspace, with MLflow pointed at it again: other modules point it elsewhere."""
    connect(trained.settings)
    return trained


@pytest.fixture(scope="session")
def files(phantom_night: Any) -> list[Path]:
    """Three of tonight's DICOM files."""
    return sorted(phantom_night.inbox.rglob("*.dcm"))[:3]


@pytest.fixture(scope="session")
def encoded(files: list[Path]) -> list[str]:
    """The same files as base64."""
    return [base64.b64encode(file.read_bytes()).decode() for file in files]


@pytest.fixture(scope="session")
def expected(trained: Any, files: list[Path]) -> list[float]:
    """Their scores from the detector in the run folder, in this process."""
    detector = load_detector(RunFolder.open(trained.report.run).detector, sha256=trained.report.run.sha256)
    return [score_file(detector, file).score for file in files]


def python_environment(tracking_uri: str) -> dict[str, str]:
    """The bare environment of a consumer: nothing of ours, one thread as in the tests."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@pytest.fixture(scope="session")
def run_stranger(stranger: Path, trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run Python code as that stranger, far from the checkout; returns its standard output."""

    def run(code: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [stranger, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path_factory.mktemp("elsewhere"),
            env=python_environment(trained.settings.mlflow) | (environment or {}),
            timeout=400,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
