"""A patient who was forgotten is in no file of the workspace, wherever the erasure was killed; what stays is valid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from sqlalchemy import select, text

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.rotation import rotate
from pipeline.data.catalogue.schema import FindingRow, Patient, RejectionRow, Study
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.errors import CatalogueError, ReviewError
from pipeline.review.decisions import Form
from pipeline.review.drafts import Typed
from pipeline.review.permissions import Actor
from pipeline.review.services import Review
from pipeline.stages.audit.forget import STEPS, forget, list_unfinished, plan_erasure, readmit
from pipeline.stages.audit.reproduce import reproduce
from pipeline.tracking.registry import model_name

NAME = b"Quodlibetarius"  # typed into a comment
ANN = Actor("ann", "reader")


@dataclass(frozen=True)
class Site:
    """A workspace with decisions and traces of one patient, and what identifies them."""

    settings: Settings
    patient_id: str
    patient_number: str
    identifiers: tuple[bytes, ...]
    files: tuple[Path, ...]
    finding: int


def seen_in(folder: Path, words: Collection[bytes]) -> set[str]:
    """Return the files that hold one of the words, by a plain search of every byte."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "other.txt")
    return {str(file.relative_to(folder)) for file in files if any(word in file.read_bytes() for word in words)}


def files_of(phantom_night: Any, number: str) -> list[Path]:
    files = [file for folder in (phantom_night.archive, phantom_night.inbox) for file in folder.rglob("*.dcm")]
    return [file for file in files if str(dcmread(file, stop_before_pixels=True).PatientID) == number]


@pytest.fixture
def make(scored: Any, phantom_night: Any, tmp_path: Path) -> Callable[[str], Site]:
    """Return a function: a copy of the scored workspace with traces of a flagged patient, or of one in `train`."""

    def plant(which: str) -> Site:
        settings = Settings(workspace=tmp_path / "site", workers=1)
        shutil.copytree(scored.settings.workspace, settings.workspace, ignore=shutil.ignore_patterns("prefect"))
        with Catalogue.open(settings) as catalogue:
            flagged = catalogue.list_findings(flagged=True)[0]
            with catalogue.reading() as session:
                trained = session.scalar(select(Patient.patient_id).where(Patient.set_name == "train"))
                patient_id = str(trained if which == "train" else flagged.patient_id)
                study = session.scalars(select(Study.study_id).where(Study.patient_id == patient_id)).first()
            review = Review(catalogue, settings)
            if which != "train":
                form = Form(flagged.id, "confirmed", 0, "t" * 16, text="Mass", comment=f"Called {NAME.decode()}")
                review.decisions.decide(form, ANN)
                review.drafts.save(flagged.id, Typed(comment=NAME.decode()), "u" * 16, ANN)
        with Crosswalk.open(settings) as crosswalk:
            number = crosswalk.find_identity(str(study)).patient_id
        files = files_of(phantom_night, number)
        heads = [dcmread(file, stop_before_pixels=True) for file in files]
        uids = {str(head[name].value) for head in heads for name in ("StudyInstanceUID", "SOPInstanceUID")}
        for folder in ("outbox", "inbox"):
            (settings.workspace / folder).mkdir(exist_ok=True)
            shutil.copyfile(files[0], settings.workspace / folder / "a.dcm")
            (settings.workspace / folder / "other.txt").write_bytes(
                b"uid " + sorted(uids)[0].encode() + b"1 of another"
            )
        picture = settings.workspace / "mlflow" / "artifacts" / "1" / "sheet.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"a picture of a scan")
        return Site(
            settings, patient_id, number, tuple(one.encode() for one in (number, *uids)), tuple(files), flagged.id
        )

    return plant


def test_no_byte_of_the_patient_is_left(make: Any) -> None:
    site = make("flagged")
    folder = site.settings.workspace
    words = (*site.identifiers, NAME)
    pixels = dcmread(site.files[0]).pixel_array.tobytes()[1000:1256]
    (folder / "cache" / "ab").mkdir(parents=True)
    (folder / "cache" / "ab" / "series.safetensors").write_bytes(b"header" + pixels)
    before = seen_in(folder, [*words, pixels])
    planted = {"identity/crosswalk.db", "outbox/a.dcm", "inbox/a.dcm", "cache/ab/series.safetensors"}
    assert planted <= before, "the search sees what is there"
    assert any(name.startswith("catalogue.db") for name in before)
    with Catalogue.open(site.settings) as catalogue:
        keys = pixel_files(catalogue, site)
    assert all(file.is_file() for file in keys)
    plan = plan_erasure(site.settings, site.patient_id)
    assert seen_in(folder, words) <= before and plan.state == "planned"
    report = forget(site.settings, site.patient_id)
    assert seen_in(folder, [*words, pixels]) == set()
    assert not [file for file in keys if file.exists()]
    assert report.still_named == []
    assert (folder / "inbox" / "other.txt").is_file(), "a longer UID is somebody else's"
    assert not (folder / "mlflow" / "artifacts" / "1" / "sheet.png").exists()
    assert report.counts["texts"] == 1 and report.counts["heatmaps"] == 1 and report.counts["exchanged"] == 2
    assert not list(folder.glob("runs/*/grid")) and not (folder / "cache").exists()
    assert any("PACS" in sentence for sentence in report.unreachable)


def pixel_files(catalogue: Catalogue, site: Site) -> list[Path]:
    from pipeline.data.catalogue.erase_rows import list_rows_of

    with catalogue.reading() as session:
        keys = list_rows_of(session, site.patient_id)["pixels"]
    assert keys
    return [site.settings.workspace / "pixels" / key[:2] / f"{key}.zarr.zip" for key in keys]


def test_findings_decisions_and_chains_stay_valid(make: Any) -> None:
    site = make("flagged")
    with Catalogue.open(site.settings) as catalogue:
        review = Review(catalogue, site.settings)
        heads = review.decisions.verify().head, review.audit.verify().head
    forget(site.settings, site.patient_id)
    with Catalogue.open(site.settings) as catalogue:
        review = Review(catalogue, site.settings)
        assert review.decisions.verify(heads[0]).problems == ()
        assert review.audit.verify(heads[1]).problems == ()
        assert review.audit.list_entries(action="forget")[0].detail == {"findings": 1, "images": 1, "texts": 1}
        with pytest.raises(CatalogueError, match="append-only"), catalogue.session() as session:
            session.execute(text("UPDATE decisions SET comment = 'another'"))
        with catalogue.session() as session:
            session.execute(text("DROP TRIGGER decisions_no_update"))
            session.execute(text("UPDATE decisions SET outcome = 'dismissed'"))
        assert len(review.decisions.verify().problems) == 1, "a redacted row is guarded like others"
    result = reproduce(site.settings, str(site.finding))
    assert result.state == "erased"
    assert "erased on 20" in result.lines()[0]
    assert result.to_json()["computed"] is None


def test_an_altered_decision_is_not_sealed(make: Any) -> None:
    site = make("flagged")
    with Catalogue.open(site.settings) as catalogue, catalogue.session() as session:
        session.execute(text("DROP TRIGGER decisions_no_update"))
        session.execute(text("UPDATE decisions SET outcome = 'dismissed'"))
    with pytest.raises(ReviewError, match="not as it was written"):
        forget(site.settings, site.patient_id)


QUICK = ("pixels", "rows", "crosswalk")  # of the steps, those that no order of the others can make up for
CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ("", *STEPS)]


@pytest.mark.parametrize("killed_after", CASES)
def test_it_continues_wherever_it_was_killed(make: Any, killed_after: str) -> None:
    site = make("flagged")

    def kill(step: str) -> None:
        if step == killed_after:
            raise KeyboardInterrupt

    if killed_after:
        with pytest.raises(KeyboardInterrupt):
            forget(site.settings, site.patient_id, kill)
        assert list_unfinished(site.settings) == [site.patient_id]
        again = ingest(site.files, site.settings)  # skipped while the row of the file is there, refused afterwards
        assert again.skipped + again.rejected.get("patient-forgotten", 0) == len(site.files)
    report = forget(site.settings, site.patient_id)
    assert (report.state, report.counts["texts"], report.counts["identifiers"] > 3) == ("finished", 1, True)
    assert seen_in(site.settings.workspace, (*site.identifiers, NAME)) == set()
    assert forget(site.settings, site.patient_id).state == "finished before"
    assert list_unfinished(site.settings) == []


def test_models_that_learned_from_the_patient_are_flagged(make: Any) -> None:
    site = make("train")
    report = forget(site.settings, site.patient_id)
    (model,) = report.models
    assert model["sets"] == ["train"]
    assert any("training states" in sentence for sentence in report.unreachable)
    with Catalogue.open(site.settings) as catalogue:
        assert catalogue.run(model["run"]).summary["forgotten"] == {site.patient_id: ["train"]}
    from mlflow import MlflowClient

    (version,) = MlflowClient().search_model_versions(f"name='{model_name('phantom-mr')}'")
    assert version.tags["forgotten_patients"] == "1"
    runs = CliRunner().invoke(group, ["-w", str(site.settings.workspace), "runs", "--kind", "train"])
    assert "learned from 1 erased patient" in runs.stdout


def test_the_patients_files_are_refused_until_readmitted_and_leave_no_trace(make: Any) -> None:
    site = make("flagged")
    with pytest.raises(CatalogueError):
        readmit(site.settings, site.patient_id)
    forget(site.settings, site.patient_id)
    store = set((site.settings.workspace / "pixels").rglob("*.zip"))
    for _ in range(2):
        assert ingest(site.files, site.settings).rejected == {"patient-forgotten": len(site.files)}
    assert set((site.settings.workspace / "pixels").rglob("*.zip")) == store
    assert seen_in(site.settings.workspace, site.identifiers) == set()
    with Catalogue.open(site.settings) as catalogue, catalogue.reading() as session:
        assert NAME.decode() not in str([row.sentence for row in session.scalars(select(RejectionRow))])
    readmit(site.settings, site.patient_id)
    assert ingest(site.files, site.settings).added == len(site.files)
    assert forget(site.settings, site.patient_id).state == "finished"
    assert seen_in(site.settings.workspace, site.identifiers) == set()


def test_the_key_can_be_rotated_afterwards(make: Any) -> None:
    site = make("flagged")
    forget(site.settings, site.patient_id)
    rotate(site.settings)
    with Catalogue.open(site.settings) as catalogue:
        row = next(row for row in catalogue.list_findings() if row.id == site.finding)
        assert row.patient_id != site.patient_id
    assert reproduce(site.settings, str(site.finding)).state == "erased"


def test_what_another_patient_has_as_well_stays(make: Any) -> None:
    site = make("flagged")
    with Catalogue.open(site.settings) as catalogue:
        file, *_ = pixel_files(catalogue, site)
        with catalogue.session() as session:
            key = file.name.partition(".")[0]
            other = select(FindingRow.study_id).where(FindingRow.patient_id != site.patient_id).limit(1)
            study = session.scalar(other)
            session.execute(
                text("UPDATE instances SET pixel_key = :key WHERE series_id IN (SELECT series_id FROM series WHERE "
                     "study_id = :study)"), {"key": key, "study": study}
            )  # fmt: skip
    report = forget(site.settings, site.patient_id)
    assert file.is_file()
    assert any("another patient has as well" in sentence for sentence in report.unreachable)


def test_the_command_asks_and_never_repeats_a_patient_id(make: Any) -> None:
    site = make("flagged")

    def run(*arguments: str, typed: str = "") -> Any:
        return CliRunner().invoke(group, ["-w", str(site.settings.workspace), "forget", *arguments], input=typed)

    typo = run(site.patient_number, "--yes")
    assert typo.exit_code == 2
    unknown = run("-", "--yes", typed="NOBODY-4711\n")
    assert (unknown.exit_code, "NOBODY" in unknown.output) == (5, False)
    assert run("0" * 32, "--yes").exit_code == 5
    dry = run("--dry-run", typed=f"{site.patient_number}\n")
    assert dry.exit_code == 0 and "would be erased" in dry.stdout
    assert run(site.patient_id, typed="n\n").exit_code == 1
    done = run("-", "--yes", "--json", typed=f"{site.patient_number}\n")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["patient"] == site.patient_id
    again = run("-", "--yes", typed=f"{site.patient_number}\n")
    assert "had been erased before" in again.stdout
    assert run("--resume").stdout == "No erasure was interrupted.\n"
    for one in (typo, dry, done, again):
        assert site.patient_number not in one.output
