"""Retention removes what its policy names, wherever it is killed, and nothing that is open, held or in use."""

from __future__ import annotations

import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.removed_pixels import list_patients_on_hold, read_removed_on
from pipeline.data.catalogue.retention_schema import RemovedSeries
from pipeline.data.catalogue.schema import FindingRow, Instance, Patient, Series, now
from pipeline.data.ingest.ingest import ingest
from pipeline.data.sets.selection import select_slices
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import CatalogueError, ConfigError
from pipeline.review.decisions import Form
from pipeline.review.permissions import Actor
from pipeline.review.services import Review
from pipeline.stages.audit import retention as stage
from pipeline.stages.audit.choose_scans import HELD, LEARNED, MEASURED, NEVER_SCORED, OPEN, YOUNGER
from pipeline.stages.audit.expired_files import IN_USE, MAY_SHOW, NEWEST
from pipeline.stages.audit.forget import forget
from pipeline.stages.audit.legal_holds import describe_holds, hold_patient, readmit, release_patient
from pipeline.stages.audit.reproduce import reproduce
from pipeline.stages.audit.retention import JOURNAL, preview_retention, retain
from pipeline.stages.audit.retention_policy import RetentionPolicy, read_retention_policy
from pipeline.stages.operations.backup import back_up

ANN = Actor("ann", "reader")
LATER = timedelta(days=100)
POLICY = RetentionPolicy(pixels_days=30, largest_share=1)


@pytest.fixture
def site(scored: Any, tmp_path: Path) -> Settings:
    """A copy of the scored workspace in which four of the six scans of the list are dismissed."""
    settings = Settings(workspace=tmp_path / "site", workers=1)
    shutil.copytree(scored.settings.workspace, settings.workspace, ignore=shutil.ignore_patterns("prefect"))
    with Catalogue.open(settings) as catalogue:
        review = Review(catalogue, settings)
        for row in sorted(catalogue.list_findings(), key=lambda row: row.id)[:4]:
            review.decisions.decide(Form(row.id, "dismissed", 0, f"{row.id}" * 16), ANN)
    return settings


def rows_of(settings: Settings) -> list[FindingRow]:
    with Catalogue.open(settings) as catalogue:
        return sorted(catalogue.list_findings(), key=lambda row: row.id)


def keys_of(settings: Settings, study_id: str) -> list[str]:
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        return list(session.scalars(select(Instance.pixel_key).join(Series).where(Series.study_id == study_id)))


def state_of(settings: Settings) -> tuple[Any, ...]:
    """What a run leaves: files, series that are marked, and lines of the audit without their run's name."""
    left_out = {"catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "mlflow.db", "retention.lock", "crosswalk.db"}
    files = sorted(
        str(file.relative_to(settings.workspace))
        for file in settings.workspace.rglob("*")
        if file.is_file() and not any(file.name.startswith(name) for name in left_out)
    )
    with Catalogue.open(settings) as catalogue:
        with catalogue.reading() as session:
            marked = sorted(session.scalars(select(RemovedSeries.series_id)))
        audit = Review(catalogue, settings).audit
        assert audit.verify().problems == ()
        lines = [(one.subject.partition("-")[0], one.detail) for one in audit.list_entries(action="retention")]
    return files, marked, lines


def test_a_run_removes_what_the_dry_run_says(site: Settings) -> None:
    at = now() + LATER
    plan = preview_retention(site, POLICY, at)
    (pixels,) = plan.removals
    assert (pixels.scans, len(pixels.pixels)) == (4, 4)
    assert pixels.stays == {OPEN: 2, NEVER_SCORED: 48}
    sizes = sum(PixelStore(site.store).size_bytes(key) for key in pixels.pixels)
    assert sizes > 0 and pixels.size_bytes >= sizes
    before = state_of(site)
    assert before == state_of(site), "a preview removes nothing"
    report = retain(site, POLICY, at)
    assert report.to_json() == plan.to_json() | {"state": "finished"}
    files, marked, lines = state_of(site)
    assert len(marked) == 4
    assert lines == [("retention:pixels", pixels.counts())]
    gone = set(before[0]) - set(files)
    assert {f"pixels/{key[:2]}/{key}.zarr.zip" for key in pixels.pixels} <= gone
    assert retain(site, POLICY, at).removals[0].is_empty
    assert state_of(site) == (files, marked, lines), "a second run finds nothing, and says nothing"


def test_a_removed_scan_says_so_everywhere(site: Settings) -> None:
    first, *_, last = rows_of(site)
    retain(site, POLICY, now() + LATER)
    result = reproduce(site, str(first.id))
    assert result.state == "removed" and f"removed by retention on {now():%Y-%m-%d}" in result.lines()[0]
    assert reproduce(site, str(last.id)).agrees, "an open scan is still there"
    with Catalogue.open(site) as catalogue:
        selection = select_slices(catalogue, study_ids=[first.study_id])
        assert selection.slices == () and selection.not_scored[0].code == "removed-by-retention"
        with catalogue.reading() as session:
            assert read_removed_on(session, first.study_id) == f"{now():%Y-%m-%d}"
            assert read_removed_on(session, last.study_id) is None


def test_files_that_come_again_are_refused_until_they_are_readmitted(site: Settings, phantom_night: Any) -> None:
    first = rows_of(site)[0]
    retain(site, POLICY, now() + LATER)
    again = ingest([phantom_night.inbox], site)
    assert again.skipped == again.files, "what is still where it was is not read again"
    other = shutil.copytree(phantom_night.inbox, site.workspace.parent / "other")
    assert ingest([other], site).rejected == {"removed-by-retention": 4}
    again = ingest([other], site)
    assert again.skipped == again.files
    with Catalogue.open(site) as catalogue:
        assert any(f"readmit {first.study_id}," in one.sentence for one in catalogue.list_rejections())
    (key,) = keys_of(site, first.study_id)
    assert not PixelStore(site.store).exists(key)
    with pytest.raises(CatalogueError, match="No pixels of the study"):
        readmit(site, "0" * 32)
    assert readmit(site, first.study_id) == 1
    copies = ingest([other], site)
    assert copies.skipped == copies.files - 4, "what was refused meanwhile is judged again"
    assert sum(copies.rejected.values()) < 4
    ingest([phantom_night.inbox], site)
    assert PixelStore(site.store).exists(key)
    assert reproduce(site, str(first.id)).agrees


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "place",
    ["third pixel", *(pytest.param(one, marks=SLOW) for one in ("mark", "index", "first pixel", "files", "audit"))]
    + [pytest.param("journal", marks=SLOW)],
)
def test_a_kill_at_any_step_ends_in_the_same_state(
    site: Settings, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, policy = now() + LATER, POLICY.model_copy(update={"pictures_days": 30})
    (site.generated / "task").mkdir(parents=True)
    (site.generated / "task" / "sheet.png").write_bytes(b"a picture")
    twin = Settings(workspace=tmp_path / "twin", workers=1)
    shutil.copytree(site.workspace, twin.workspace)
    retain(twin, policy, at)

    class Killed(BaseException):
        pass

    calls = {"count": 0}

    def die_at(number: int, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            calls["count"] += 1
            if calls["count"] == number:
                raise Killed
            return function(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        if place == "mark":
            patch.setattr(stage, "mark_removed", die_at(1, stage.mark_removed))
        elif place == "index":
            patch.setattr(stage, "forget_pixels", die_at(1, stage.forget_pixels))
        elif place.endswith("pixel"):
            patch.setattr(PixelStore, "delete", die_at(1 if place.startswith("first") else 3, PixelStore.delete))
        elif place == "files":
            patch.setattr(stage, "_delete_files", die_at(1, stage._delete_files))
        elif place == "audit":
            patch.setattr(stage._Work, "_record", die_at(1, stage._Work._record))
        else:
            patch.setattr(stage, "_forget_journal", die_at(1, stage._forget_journal))
        with pytest.raises(Killed):
            retain(site, policy, at)
    assert (site.workspace / JOURNAL).exists()
    assert preview_retention(site, policy, at).resumed is not None
    done: list[str] = []
    report = retain(site, policy, at, done.append)
    assert report.resumed is not None and report.resumed.kind == "pixels"
    assert not (site.workspace / JOURNAL).exists()
    assert state_of(site) == state_of(twin)


def test_a_hold_that_came_after_a_kill_wins(site: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rows_of(site)[:2]

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "forget_pixels", die)
        with pytest.raises(KeyboardInterrupt):
            retain(site, POLICY, now() + LATER)
    hold_patient(site, str(second.id), "case 4")
    report = retain(site, POLICY, now() + LATER)
    assert report.resumed is not None and report.resumed.scans == 3
    assert reproduce(site, str(second.id)).agrees
    assert reproduce(site, str(first.id)).state == "removed"
    release_patient(site, str(second.id))
    assert retain(site, POLICY, now() + LATER).removals[0].scans == 1


def test_a_hold_stops_retention_and_an_erasure(site: Settings) -> None:
    first = rows_of(site)[0]
    assert hold_patient(site, str(first.id), "case 4") == first.patient_id
    assert describe_holds(site) == [{"patient": first.patient_id, "since": f"{now():%Y-%m-%d}", "why": "case 4"}]
    assert retain(site, POLICY, now() + LATER).removals[0].stays[HELD] == 1
    with pytest.raises(CatalogueError, match="on legal hold"):
        forget(site, first.patient_id)
    for name, why in ((str(first.id), "again"), ("nobody", "x"), (rows_of(site)[1].patient_id, " ")):
        with pytest.raises(CatalogueError):
            hold_patient(site, name, why)
    release_patient(site, first.patient_id)
    with pytest.raises(CatalogueError, match="not on legal hold"):
        release_patient(site, first.patient_id)
    with Catalogue.open(site) as catalogue, catalogue.reading() as session:
        assert list_patients_on_hold(session) == set()
    assert forget(site, first.patient_id).state == "finished"


def test_young_learned_and_measured_scans_stay_unless_the_policy_says_so(site: Settings) -> None:
    first, second, third, fourth = rows_of(site)[:4]
    assert preview_retention(site, POLICY).removals[0].stays[YOUNGER] == 4
    patients = next(file for file in site.runs.glob("*/patients.json"))
    recorded = json.loads(patients.read_text())
    recorded["train"].append(first.patient_id)
    patients.write_text(json.dumps(recorded))
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        session.execute(update(Patient).where(Patient.patient_id == second.patient_id).values(set_name="gate"))
    at = now() + LATER
    stays = preview_retention(site, POLICY, at).removals[0].stays
    assert (stays[LEARNED], stays[MEASURED]) == (1, 1)
    everything = POLICY.model_copy(update={"remove_learned": True, "remove_measured": True})
    assert preview_retention(site, everything, at).removals[0].scans == 4
    patients.unlink()  # a run that did not record its patients: everybody in a set of normals counts
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        session.execute(update(Patient).where(Patient.patient_id == third.patient_id).values(set_name="train"))
    assert preview_retention(site, POLICY, at).removals[0].stays[LEARNED] == 1
    assert fourth.study_id


def test_pixels_that_another_scan_shares_stay(site: Settings) -> None:
    first, *_, last = rows_of(site)
    (key,) = keys_of(site, first.study_id)
    with Catalogue.open(site) as catalogue, catalogue.session() as session:
        of_last = select(Series.series_id).where(Series.study_id == last.study_id)
        session.execute(update(Instance).where(Instance.series_id.in_(of_last)).values(pixel_key=key))
    retain(site, POLICY, now() + LATER)
    assert PixelStore(site.store).exists(key)
    assert reproduce(site, str(first.id)).state == "removed"


def make_old(file: Path, days: float = 60) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_bytes(b"content")
    then = file.stat().st_mtime - 86_400 * days
    os.utime(file, (then, then))
    return file


def test_files_go_by_kind_and_age(site: Settings, tmp_path: Path) -> None:
    folder = site.workspace
    old = {
        "logs": make_old(folder / "up" / "logs" / "serve.log"),
        "quarantine": make_old(folder / "inbox" / "quarantine" / "a" / "b.dcm"),
        "outbox": make_old(folder / "outbox" / "run" / "c.dcm"),
        "pictures": make_old(folder / "generated" / "task" / "sheet.png"),
        "checkpoints": make_old(folder / "runs" / "old" / "training" / "000-000" / "state.safetensors"),
    }
    chart = make_old(folder / "generated" / "task" / "roc.png")
    fresh = make_old(folder / "outbox" / "run" / "new.dcm", 0)
    document = make_old(next(site.runs.glob("phantom-mr-*")) / "panels.png")
    with Catalogue.open(site) as catalogue:
        catalogue.start_run("train", "phantom-mr", "runs/old", run_id="old")
        catalogue.finish_run("old")
    backups = tmp_path / "backups"
    backups.mkdir()
    for number in range(3):
        back_up(site, backups / f"{number}.tar")
        make_old(backups / f"{number}.tar", 60 - number)
    foreign = make_old(backups / "letter.txt")
    days = {f"{kind}_days": 30 for kind in (*old, "backups", "evaluations")}
    policy = RetentionPolicy(**days, backups_folder=backups, backups_least=2)
    at = now() + timedelta(days=31)  # the run `old` ended today
    removed = {one.kind: one for one in retain(site, policy, at).removals}
    assert {kind for kind, one in removed.items() if one.files} == {*old, "backups"}
    assert not any(file.exists() for file in old.values())
    assert chart.exists() and document.exists() and foreign.exists()
    assert removed["pictures"].stays[IN_USE] >= 1
    assert sorted(file.name for file in backups.glob("*.tar")) == ["1.tar", "2.tar"]
    assert removed["backups"].stays == {NEWEST: 2}
    assert not fresh.exists(), "31 days later it is old, too"


def test_what_may_show_a_held_patient_stays(site: Settings) -> None:
    hold_patient(site, str(rows_of(site)[0].id), "case 4")
    picture = site.generated / "task" / "sheet.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"after the patient was first seen")
    before = make_old(site.generated / "task" / "earlier.png")
    (removal,) = retain(site, RetentionPolicy(pictures_days=30), now() + LATER).removals
    assert picture.exists() and not before.exists()
    assert removal.stays[MAY_SHOW] >= 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pixels_days: -1", "pixels_days"),
        ("pixels_days: 0", "pixels_days"),
        ("logs_days: 99999999", "logs_days"),
        ("everything: 1", "everything"),
        ("backups_days: 30", "backups_folder"),
        ("largest_share: 2", "largest_share"),
    ],
)
def test_an_absurd_policy_is_refused(settings: Settings, text: str, sentence: str) -> None:
    (settings.workspace / "retention.yaml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_retention_policy(settings)


def test_a_policy_that_removes_nearly_everything_is_refused(site: Settings) -> None:
    with pytest.raises(ConfigError, match="4 of 6 scored scans at once"):
        retain(site, RetentionPolicy(pixels_days=30), now() + LATER)
    assert not (site.workspace / JOURNAL).exists()


def test_the_shipped_policy_removes_nothing(settings: Settings) -> None:
    policy = read_retention_policy(settings)
    assert policy.is_idle
    assert preview_retention(settings, policy).removals == ()


def test_the_command_asks_and_prints(site: Settings) -> None:
    (site.workspace / "retention.yaml").write_text("{pixels_days: 1, logs_days: 3, largest_share: 1}")
    call = ["-w", str(site.workspace), "retention"]
    dry = CliRunner().invoke(group, [*call, "--dry-run", "--json"])
    assert dry.exit_code == 0, dry.output
    assert [one["kind"] for one in json.loads(dry.stdout)["removals"]] == ["pixels", "logs"]
    asked = CliRunner().invoke(group, call, input="n\n")
    assert asked.exit_code == 1 and "would remove nothing" in asked.output and YOUNGER in asked.output
    assert CliRunner().invoke(group, [*call, "--yes"]).output.count("removed nothing") == 2
    number = str(rows_of(site)[0].id)
    assert CliRunner().invoke(group, [*call, "hold", number, "--why", "case 4"]).exit_code == 0
    assert "case 4" in CliRunner().invoke(group, [*call, "holds"]).output
    assert CliRunner().invoke(group, [*call, "release", number]).exit_code == 0
    assert CliRunner().invoke(group, [*call, "readmit", "0" * 32]).exit_code != 0
