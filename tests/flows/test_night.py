"""A whole night through Prefect with nothing started by hand, and the night after it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.stages.watch.nights import last_night, register_schedules
from pipeline.stages.watch.schedule import Schedule
from pipeline.tracking.experiment import connect
from pipeline.tracking.registry import list_registered

Night = Any


def test_the_first_night_does_it_all(night: Night) -> None:
    settings, report = night
    assert report["failures"] == []
    assert (report["files"], report["new"]) == (54, 54)
    assert [(part["route"], part["studies"]) for part in report["scored"]] == [("phantom-mr", 6)]
    assert len(report["evaluated"]) == 1
    assert report["markdown"].startswith("# The night")
    assert [*list_registered(settings, "phantom-mr").values()] == ["1 challenger champion"]
    with Catalogue.open(settings) as catalogue:
        row = last_night(catalogue, "nightly")
    assert row is not None and (row.state, row.summary["failures"]) == ("done", 0)
    assert (row.summary["new"], row.summary["flagged"]) == (54, len(report["flagged"]))


def test_the_night_after_repeats_nothing(night: Night, phantom_night: Any) -> None:
    from flows.nightly import run_nightly

    settings, _ = night
    checkpoints, evaluations = training_files(settings.runs), evaluation_runs(settings)
    again = run_nightly(
        [str(phantom_night.archive), str(phantom_night.inbox)],
        [str(phantom_night.config)],
        [str(phantom_night.labels)],
        str(settings.workspace),
    )
    assert again["failures"] == []
    assert (again["new"], again["seen_before"]) == (0, 54)
    assert [part["studies"] for part in again["scored"]] == [0]
    assert training_files(settings.runs) == checkpoints
    assert len(again["evaluated"]) == 1  # answered, but from the cache:
    with Catalogue.open(settings) as catalogue:
        assert len(catalogue.list_runs("evaluate")) == 1
        assert evaluation_runs(settings) == evaluations and len(evaluations) == 1
        assert len(catalogue.list_runs("train")) == 1
        assert len(catalogue.list_findings()) == 6


def test_a_night_past_its_deadline_begins_nothing_more(night: Night, phantom_night: Any) -> None:
    from flows.nightly import run_nightly

    settings, _ = night
    register_schedules(settings, [Schedule(deadline_hours=1e-6)])
    try:
        late = run_nightly([str(phantom_night.inbox)], [str(phantom_night.config)], [], str(settings.workspace))
    finally:
        register_schedules(settings, [])
    assert late["stopped"] == "The night stopped at its deadline. Left to the next one: 1 evaluation."
    assert late["failures"] == late["evaluated"] == [] and late["stopped"] in late["markdown"]
    assert run_nightly([], [], [], str(settings.workspace))["stopped"] == ""


def evaluation_runs(settings: Settings) -> dict[str, int]:
    """Return MLflow's evaluation runs with the number of their metrics."""
    connect(settings)
    from mlflow import MlflowClient

    client = MlflowClient()
    every = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return {one.info.run_id: len(one.data.metrics) for one in every if str(one.info.run_name).startswith("evaluate")}


def training_files(runs: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in runs.rglob("*.safetensors")}


def test_training_again_is_a_look_up(night: Night, phantom_night: Any) -> None:
    # Not by Prefect's cache: the stage itself is keyed by the hash of configuration and data.
    from flows.train import train

    settings, _ = night
    before = training_files(settings.runs)
    report = train(str(phantom_night.config), str(settings.workspace))
    assert report["version"] == "1"
    assert training_files(settings.runs) == before


def test_an_evaluation_is_asked_again_when_its_inputs_change(night: Night) -> None:
    from pipeline.stages.detect.evaluation_key import hash_evaluation_inputs
    from pipeline.stages.detect.score import find_detectors_to_run
    from pipeline.types import RunRef

    settings, _ = night
    run = find_detectors_to_run(settings)[0]
    asked = hash_evaluation_inputs(run, settings)
    assert asked == hash_evaluation_inputs(run, settings)
    assert asked != hash_evaluation_inputs(RunRef(run.path, "0" * 64), settings)
    assert asked != hash_evaluation_inputs(run, settings.model_copy(update={"burned_in": "reject"}))


def test_the_artefacts_are_a_page_a_list_and_pictures(night: Night, artefacts: Any) -> None:
    _, report = night
    by_key = artefacts()
    rows = report["flagged"]
    assert report["markdown"] in [item.data for item in by_key["night"]]
    assert any(item.data.startswith("# Evaluation") for item in by_key["evaluation"])
    assert rows in [json.loads(item.data) for item in by_key["flagged"]]
    pictures = [item for key, items in by_key.items() if re.fullmatch(r"flagged-\d", key) for item in items]
    assert len(rows) == 2  # the capacity of the configuration
    assert len(pictures) == 2
    ranked = {item.key: item for item in pictures}
    assert ranked["flagged-1"].created >= ranked["flagged-2"].created  # the page shows the newest first
    assert ranked["flagged-1"].description.startswith("1 of 2 pictures")
    png = base64.b64decode(pictures[0].data.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG")
    assert len(png) > 2000


def test_the_report_of_the_night_is_published(night: Night, artefacts: Any) -> None:
    settings, _ = night
    (folder,) = {file.parent for file in settings.workspace.glob("reports/*.html")}
    text = artefacts()["night-report"][0].data
    assert all(f"`reports/{file.name}`" in text for file in folder.iterdir()) and str(settings.workspace) not in text
    connect(settings)
    from mlflow import MlflowClient

    nights = MlflowClient().get_experiment_by_name("nights")
    runs = MlflowClient().search_runs([nights.experiment_id])
    reports = {Path(one.path).name for run in runs for one in MlflowClient().list_artifacts(run.info.run_id, "report")}
    assert reports == {file.name for file in folder.iterdir()}


def test_flow_runs_have_names_that_a_person_can_read(night: Night, flow_runs: Any) -> None:
    names = set(flow_runs())
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    for pattern in (
        rf"night of {when}",
        rf"ingest of 2 roots and 1 label file, {when}",
        rf"train phantom-mr with ae, {when}",
        rf"score, {when}",
        rf"evaluate, {when}",
    ):
        assert any(re.fullmatch(pattern, name) for name in names), (pattern, names)


def test_the_night_has_a_log_that_a_person_can_follow(night: Night, flow_runs: Any, night_logs: Any) -> None:
    lines = next(lines for lines in night_logs() if any("6 studies scored, 2 flagged" in line for line in lines))
    parts = (
        "1 of 5",
        "48 new images",
        "2 of 5",
        "Trained phantom-mr, version 1",
        "3 of 5",
        "6 studies",
        "4 of 5",
        "AUROC",
    )
    places = [next(at for at, line in enumerate(lines) if part in line) for part in (*parts, "5 of 5", "0 failures")]
    assert places == sorted(places)


def test_nothing_that_prefect_keeps_names_anybody(night: Night, prefect_home: Path, phantom_night: Any) -> None:
    # The inbox's own folder bears the planted name: neither parameters nor logs nor results may carry it.
    planted, looked_at = phantom_night.planted.encode().lower(), 0
    for file in prefect_home.rglob("*"):
        if file.is_file():
            looked_at += 1
            assert planted not in file.read_bytes().lower(), file.name
    assert looked_at >= 2


def test_results_are_json(night: Night, prefect_home: Path) -> None:
    files = [file for file in (prefect_home / "storage").rglob("*") if file.is_file()]
    assert files  # the cached evaluation
    for file in files:
        record = json.loads(file.read_text())  # a result with its metadata, or a failure as kind and sentence
        assert set(record) == {"__exc_type__", "message"} or record["metadata"]["serializer"]["type"] == "json"


def test_no_request_stays_behind(night: Night) -> None:
    settings, _ = night
    folder = settings.workspace / "identity" / "requests"
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o077 == 0
