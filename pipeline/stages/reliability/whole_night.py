"""One whole small night on phantoms: ingest, score, reading list, report, and objects into a folder.

It runs the stages of `flows.nightly` without Prefect, whose own state does not belong to the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline import wall_clock
from pipeline.config import ReviewPolicy, Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.exports import find_unsent_runs
from pipeline.data.catalogue.schema import now
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.network.send import Destination, require_destination
from pipeline.dicom.phantom.folder import write_labels, write_phantoms
from pipeline.errors import SendError
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.train import train
from pipeline.stages.operations.night_report import build_night_report
from pipeline.stages.pacs.push import push
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.watch.nights import record_night, register_schedules, summarise
from pipeline.stages.watch.schedule import Schedule

RUN = """
name: reliability
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
PHASES = ("ingest", "score", "report", "push")
EARLIER = timedelta(days=2)  # before tonight; so a clock that goes back by a day leaves the nights in their order
READ_ALL = ReviewPolicy(sample_share=1.0)  # the sample is drawn by lot, so two nights can be compared only without it

OnPhase = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Hospital:
    """A prepared workspace with a champion, and what arrives tonight.

    Attributes:
        workspace: the workspace.
        inbox: folder of tonight's scans.
        outbox: folder that receives the objects, by itself or through a PACS.
        pacs: AETITLE@host:port of that PACS, "" without one.
        mlflow_uri: server of MLflow; None for the workspace's own database.
        wait_seconds: how long a locked database is waited for.
    """

    workspace: Path
    inbox: Path
    outbox: Path
    pacs: str = ""
    mlflow_uri: str | None = None
    wait_seconds: float = 60.0

    @property
    def settings(self) -> Settings:
        """Settings of the workspace."""
        services = {"mlflow_uri": self.mlflow_uri, "database_wait_seconds": self.wait_seconds}
        return Settings(workspace=self.workspace, workers=1, review=READ_ALL, **services)

    @property
    def destination(self) -> Destination:
        """Receiver of the objects."""
        return require_destination(self.pacs or "folder", self.outbox)


def prepare(folder: Path, tonight: int = 6) -> Hospital:
    """Train a tiny champion on 48 labelled phantoms, read a night of two days before, and write tonight's inbox.

    Args:
        folder: empty or missing.
        tonight: number of studies that arrive tonight; half of them have a lesion.
    """
    hospital = Hospital(folder / "workspace", folder / "inbox", folder / "outbox")
    wall_clock.move(-EARLIER)
    try:
        _prepare(folder, hospital)
    finally:
        wall_clock.move(EARLIER)
    write_phantoms(hospital.inbox, tonight, "MR", 0.5, 7, size=32, grades=(3,))
    return hospital


def _prepare(folder: Path, hospital: Hospital) -> None:
    settings = hospital.settings
    begins = now()  # from then on a missed night is noticed
    register_schedules(settings, [Schedule(cron=f"{begins.minute} {begins.hour} * * *")])
    studies = write_phantoms(folder / "archive", 48, "MR", 1 / 6, 5, size=32).studies
    ingest([folder / "archive"], settings)
    import_labels(write_labels(studies, folder / "labels"), settings)
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    calibrate(train(load_config(folder / "run.yaml", RunConfig), settings), settings)
    write_phantoms(folder / "earlier", 6, "MR", 0.5, 6, size=32, grades=(3,))
    run_night(settings, [folder / "earlier"], hospital.destination)


def run_night(
    settings: Settings, roots: Sequence[Path], target: Destination, on_phase: OnPhase = lambda _: None
) -> dict[str, Any]:
    """Run the parts of a night in the order of `flows.nightly`, then send what it flagged; return the night's report.

    Args:
        settings: of a workspace with a champion.
        roots: folders to ingest.
        target: receives the objects.
        on_phase: called with the name of each part as it begins (`PHASES`), and with "" at the end.
    """
    with record_night(settings, "nightly") as night:
        on_phase("ingest")
        taken = ingest(list(roots), settings)
        on_phase("score")
        scored = [score(champion, settings, for_report=True) for champion in find_detectors_to_run(settings)]
        on_phase("report")
        report = build_night_report(settings, [taken.to_json()], [one.to_json() for one in scored], [])
        night.summary = summarise(report)
        on_phase("push")
        send_flagged(settings, target)
    on_phase("")
    return report


def send_flagged(settings: Settings, target: Destination) -> None:
    """Send the objects of every scoring run whose flagged findings were not all sent yet.

    Raises:
        SendError: the destination did not take them all.
    """
    with Catalogue.open(settings) as catalogue:
        pending = find_unsent_runs(catalogue)
    for run_id in pending:
        if (report := push(run_id, settings, target)).failed:
            raise SendError(report.notes[-1], passing=True)
