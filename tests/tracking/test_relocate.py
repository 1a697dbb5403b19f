"""A copied or moved MLflow store names its new location, and the old one nowhere."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.tracking import registry
from pipeline.tracking.experiment import connect, track
from pipeline.tracking.relocate import LOCATIONS, artifact_root, relocate


def locations(database: Path) -> list[str]:
    """Return every location in an MLflow database, wherever it is kept."""
    with sqlite3.connect(database) as store:
        return [v for t, c in LOCATIONS for (v,) in store.execute(f"SELECT {c} FROM {t}") if v]


def texts(database: Path) -> str:
    """Return every text in a database."""
    with sqlite3.connect(database) as store:
        return "\n".join(store.iterdump())


@pytest.fixture
def moved(tracked: Any, tmp_path: Path) -> Settings:
    """A copy of the trained workspace's MLflow under a name with a space, beneath which the original's name lies."""
    settings = Settings(workspace=tmp_path / "another place")
    shutil.copytree(tracked.settings.workspace / "mlflow", settings.workspace / "mlflow")
    return settings


def test_the_copy_names_nothing_of_the_original(tracked: Any, moved: Settings) -> None:
    database, original = moved.workspace / "mlflow" / "mlflow.db", str(tracked.settings.workspace)
    before = len(locations(database))
    assert original in texts(database)
    connect(moved)
    assert original not in texts(database) and len(locations(database)) == before
    ours = [place for place in locations(database) if place.startswith("file:") and "mlflow/artifacts" in place]
    assert len(ours) >= 4 and all(place.startswith(artifact_root(moved.workspace)) for place in ours)
    assert relocate(moved.workspace, database) == 0  # once is enough


def test_the_registered_model_is_loaded_from_the_copy(
    moved: Settings, encoded: list[str], expected: list[float]
) -> None:
    connect(moved)
    place = mlflow.artifacts.download_artifacts("models:/nightread-phantom-mr@champion")
    assert Path(place).is_relative_to(moved.workspace)
    model = mlflow.pyfunc.load_model("models:/nightread-phantom-mr@champion")
    assert model.predict([{"dicom": encoded[0]}])["score"][0] == pytest.approx(expected[0], rel=1e-5)


def test_runs_logged_by_the_copy_lie_in_the_copy(tracked: Any, moved: Settings) -> None:
    before = sorted((tracked.settings.workspace / "mlflow").rglob("*"))
    with track(moved, "phantom-mr", "in the copy", system_metrics=False) as run:
        run.log_text("hello", "note.txt")
    uri = MlflowClient().get_run(run.run_id).info.artifact_uri
    assert uri.startswith(artifact_root(moved.workspace))
    assert [file.read_text() for file in moved.workspace.rglob("note.txt")] == ["hello"]
    assert sorted((tracked.settings.workspace / "mlflow").rglob("*")) == before
    assert registry.find_champion(moved, "phantom-mr").path.startswith(str(moved.runs))


def test_a_neighbour_with_a_longer_name_and_a_chosen_place_are_left_alone(tmp_path: Path) -> None:
    database, old = tmp_path / "mlflow.db", "file:///data/ws/mlflow/artifacts"
    rows = [old, f"{old}/1/artifacts", f"{old}-2/1/artifacts", "s3://bucket/mlflow/artifacts", None]
    with sqlite3.connect(database) as store:
        for table in {table for table, _ in LOCATIONS}:
            columns = ", ".join(f"{c} TEXT" for t, c in LOCATIONS if t == table)
            store.execute(f"CREATE TABLE {table} ({columns})")
        store.executemany("INSERT INTO experiments VALUES (?)", [(old,), ("s3://bucket/mlflow/artifacts",), ("/x",)])
        store.executemany("INSERT INTO runs VALUES (?)", [(row,) for row in rows])
    assert relocate(tmp_path, database) == 3
    new = artifact_root(tmp_path)
    with sqlite3.connect(database) as store:
        changed = [value for (value,) in store.execute("SELECT artifact_uri FROM runs")]
    assert changed == [new, f"{new}/1/artifacts", *rows[2:]]


def test_a_damaged_store_is_reported_as_damaged(settings: Settings) -> None:
    database = settings.workspace / "mlflow" / "mlflow.db"
    database.parent.mkdir()
    database.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match=r"mlflow\.db"):
        connect(settings)
