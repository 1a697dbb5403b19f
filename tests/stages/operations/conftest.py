"""Workspaces that were copied, and what is in them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Settings


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    """Return a function: the SHA-256 of every file below a folder, by its relative path."""

    def of(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    return of


@pytest.fixture(scope="session")
def night() -> Callable[[Settings, Any], dict[str, Any]]:
    """Return a function that runs the stages of a night in a workspace: ingest, train, score, evaluate."""

    def run(settings: Settings, phantom_night: Any) -> dict[str, Any]:
        from pipeline.config import load_config
        from pipeline.data.ingest.ingest import ingest
        from pipeline.stages.detect.calibrate import calibrate
        from pipeline.stages.detect.evaluate import evaluate
        from pipeline.stages.detect.score import find_detectors_to_run, score
        from pipeline.stages.detect.train import train
        from pipeline.stages.run.run_config import RunConfig

        taken = ingest([phantom_night.archive, phantom_night.inbox], settings)
        report = calibrate(train(load_config(phantom_night.config, RunConfig), settings), settings)
        (champion,) = find_detectors_to_run(settings)
        scored = score(champion, settings)
        measured = evaluate(champion, settings).summary()
        return {
            "skipped": taken.skipped,
            "version": report.version,
            "run": Path(champion.path),
            "studies": scored.studies,
            "flagged": scored.flagged,
            "evaluated": len(measured) > 0,
        }

    return run


@pytest.fixture
def copied(trained: Any, tmp_path: Path) -> Settings:
    """A copy of the trained workspace."""
    shutil.copytree(trained.settings.workspace, tmp_path / "copied")
    return Settings(workspace=tmp_path / "copied")
