"""One registered model per route; the first is champion, later ones wait to be promoted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.config import Settings
from pipeline.errors import ArtefactError
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking import registry
from pipeline.tracking.experiment import connect, track
from pipeline.types import RunRef


@pytest.fixture(scope="module")
def settings(tracked: Any, new_hospital: Any) -> Iterator[Settings]:
    """A separate registry: a fake champion must not be among those that other tests score with."""
    yield new_hospital()
    connect(tracked.settings)


@pytest.fixture(scope="module")
def versions(tracked: Any, settings: Settings) -> dict[str, str]:
    """Three registrations of one route: a first run, a second run, and the first run again."""
    folder = RunFolder.open(tracked.report.run)
    made = {}
    for key, name in (("first", "one"), ("second", "two"), ("again", "one")):
        with track(settings, "unit", key, system_metrics=False):
            reference = RunRef(str(settings.runs / name), tracked.report.run.sha256)
            made[key] = registry.register(settings, folder.detector, tracked.report.run.sha256, "unit", reference, [])
    return made


def test_a_training_run_is_registered_once(versions: dict[str, str], settings: Settings) -> None:
    assert versions == {"first": "1", "second": "2", "again": "1"}
    assert registry.find_version(settings, "unit", "/anywhere/one") == "1"


def test_the_first_is_champion_and_the_newest_registered_is_challenger(
    versions: dict[str, str], settings: Settings, tracked: Any
) -> None:
    assert registry.read_aliases(settings, "unit") == {"champion": "1", "challenger": versions["again"]}
    champion = registry.find_champion(settings, "unit")
    assert champion is not None
    assert (Path(champion.path).name, champion.sha256) == ("one", tracked.report.run.sha256)


def test_promote_changes_the_champion(versions: dict[str, str], settings: Settings) -> None:
    registry.promote(settings, "unit", versions["second"])
    try:
        champion = registry.find_champion(settings, "unit")
        assert champion is not None
        assert Path(champion.path).name == "two"
        assert registry.list_registered(settings, "unit") == {"two": "2 champion", "one": "1 challenger"}
    finally:
        registry.promote(settings, "unit", versions["first"])


def test_routes_with_champions_lists_them(versions: dict[str, str], settings: Settings, tracked: Any) -> None:
    assert registry.list_routes_with_champions(settings) == ["unit"]
    assert registry.list_routes_with_champions(tracked.settings) == ["phantom-mr"]


def test_a_route_without_a_model_has_no_champion(tracked: Any) -> None:
    assert registry.find_champion(tracked.settings, "nowhere") is None
    assert registry.list_registered(tracked.settings, "nowhere") == {}
    with pytest.raises(ArtefactError, match="nowhere"):
        registry.find_version(tracked.settings, "nowhere", "/runs/x")


def test_a_registry_that_fails_is_not_taken_for_an_empty_one(tracked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: MlflowClient, name: str) -> None:
        raise MlflowException("down", error_code=8)  # any code but RESOURCE_DOES_NOT_EXIST

    monkeypatch.setattr(MlflowClient, "get_registered_model", broken)
    with pytest.raises(ArtefactError, match="NIGHTREAD_MLFLOW_URI"):
        registry.find_champion(tracked.settings, "phantom-mr")


def test_a_champion_is_a_run_of_the_workspace_that_asks(tracked: Any, tmp_path: Path) -> None:
    first = registry.find_champion(tracked.settings, "phantom-mr")
    assert first is not None and Path(first.path).parent == tracked.settings.runs
    other = Settings(workspace=tmp_path, mlflow_uri=tracked.settings.mlflow)
    assert registry.find_champion(other, "phantom-mr") == RunRef(str(other.runs / Path(first.path).name), first.sha256)


def test_requirements_are_pinned_and_installable_anywhere() -> None:
    lines = registry.requirements()
    assert all("==" in line and "+" not in line for line in lines)
    assert any(line.startswith("torch==2.") for line in lines)
