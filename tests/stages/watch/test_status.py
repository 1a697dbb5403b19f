"""The site at a glance, and its exit code for monitoring."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.schema import now
from pipeline.stages.watch.components import FOLDER, Component, read_running, write_running
from pipeline.stages.watch.nights import register_schedules
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.site_config import SiteConfig, load_site
from pipeline.stages.watch.site_metrics import serving_metrics

AddNight = Callable[..., int]


@pytest.fixture
def status(settings: Settings) -> Callable[..., Result]:
    """Run `nightread status`."""
    (settings.workspace / "site.yaml").write_text("watch: {least_free_gib: 0}\n")
    return lambda *options: CliRunner().invoke(group, ["-w", str(settings.workspace), "status", *options])


@pytest.mark.parametrize(
    ("night", "code", "words"),
    [
        (None, 1, "WARNING: No night has run yet"),
        ({}, 0, "OK: nightly of"),
        ({"new": 0, "refused": 0}, 1, "WARNING: The run of nightly"),
        ({"state": "failed"}, 2, "CRITICAL: The run of nightly"),
    ],
)
def test_the_exit_code_is_that_of_monitoring_plugins(
    settings: Settings, status: Callable[..., Result], add_night: AddNight, night: Any, code: int, words: str
) -> None:
    register_schedules(settings, [Schedule()])
    if night is not None:
        add_night(**night)
    done = status()
    assert (done.exit_code, done.output.startswith(words)) == (code, True), done.output
    assert "Next run of nightly: " in done.output and "no route has one yet" in done.output
    answer = status("--json")
    assert answer.exit_code == code
    assert json.loads(answer.output)["status"] == ("ok", "warning", "critical")[code]


def test_no_site_is_unknown_and_nothing_is_created(settings: Settings, status: Callable[..., Result]) -> None:
    done = status()
    assert done.exit_code == 3 and done.output.startswith("UNKNOWN: There is no catalogue in this workspace yet")
    assert sorted(path.name for path in settings.workspace.iterdir()) == ["site.yaml"]
    (settings.workspace / "site.yaml").write_text("ports: {review: 4200}\n")
    assert "two components have the same port" in status().output


def test_a_good_night_is_one_sentence(status: Callable[..., Result], add_night: AddNight) -> None:
    add_night(seconds=7261.0)
    first = status().output.splitlines()[0]
    assert first.endswith("UTC: done after 2 h 01 min. 9 new images, 4 studies scored, 1 flagged, 1 files refused.")


def test_components_of_a_copied_workspace_are_those_of_the_original(settings: Settings, tmp_path: Path) -> None:
    (settings.workspace / FOLDER).mkdir()
    component = Component("review", "http://127.0.0.1:9/", "tcp://127.0.0.1:9")
    file = write_running(settings, (component,), datetime(2026, 1, 1))
    running = read_running(settings)
    assert running is not None and running.components == (component,)
    copy = tmp_path / "copy"
    (copy / FOLDER).mkdir(parents=True)
    (copy / FOLDER / file.name).write_bytes(file.read_bytes())
    assert read_running(Settings(workspace=copy)) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("webhooks: [{name: a, url: 'ftp://x'}]", "does not have the form"),
        ("webhooks: [{name: a}]", "either url or url_env"),
        ("webhooks: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]", "same name"),
        ("webhooks: [{name: email, url: 'http://x'}]", "same name"),
        ("watch: {check: {pacs: 'pacs:104'}}", "neither http(s)://... nor dicom://AETITLE@host:port"),
        ("watch: {check: {pacs: 'dicom://10.0.0.5:104'}}", "neither http(s)://... nor dicom://AETITLE@host:port"),
        ("components: [prefect, grafana]", "must be 'prefect'"),
    ],
)
def test_a_wrong_site_is_refused(settings: Settings, text: str, sentence: str) -> None:
    (settings.workspace / "site.yaml").write_text(text)
    with pytest.raises(Exception, match="site.yaml is not valid") as raised:
        load_site(settings)
    assert sentence in str(raised.value)


def test_prometheus_reads_the_state_of_the_site(settings: Settings, add_night: AddNight) -> None:
    register_schedules(settings, [Schedule()])
    add_night(routes={"phantom-mr": 4})
    site = SiteConfig.model_validate({"watch": {"check": {"pacs": "tcp://127.0.0.1:9"}}})
    with serving_metrics(settings, site, 0) as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["nightread_night_flagged", "nightly"] == 1
    assert samples["nightread_route_scored", "phantom-mr"] == 4
    assert samples["nightread_night_ok", "nightly"] == 1
    assert samples["nightread_component_up", "pacs"] == 0
    assert samples["nightread_catalogue_up",] == 1
    assert samples["nightread_next_run_timestamp_seconds", "nightly"] > now().timestamp()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_timer_with_a_wrong_workspace_does_not_say_that_all_is_well(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = CliRunner().invoke(group, ["-w", str(tmp_path / "typo"), "watch", "--once", *options])
    assert done.exit_code == 3 and "There is no catalogue in this workspace yet" in done.output
    assert not (tmp_path / "typo").exists()
