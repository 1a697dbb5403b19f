"""`make demo`: an invented hospital's archive and one night's scans, written as DICOM and read by the nightly flow."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from flows import WORKSPACE
from flows.demo_screen import Screen, print_places, print_results
from flows.nightly import run_nightly
from pipeline import durable
from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.phantom.demo import FAMILY, write_demo
from pipeline.dicom.phantom.folder import PhantomStudy, write_phantoms
from pipeline.stages.run.run_config import RunConfig

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "runs" / "demo-mr.yaml"
ARCHIVE_NORMAL, ARCHIVE_ABNORMAL, TONIGHT = 240, 60, 40
SEED = 1
WIDTH = 112


def main() -> None:
    """Write the scans unless they are there, run the night, and print what it found beside what is true."""
    began, console = time.monotonic(), Console(width=WIDTH, highlight=False)
    folder = WORKSPACE.parent
    console.print("[bold]Nightread demo[/bold]: invented patients, real DICOM files, one night.\n")
    screen = Screen(console, load_config(CONFIG, RunConfig))
    inbox, labels, tonight = _write(folder, screen)
    with _quiet():
        screen.follow_night()
        report = run_nightly([str(inbox)], [str(CONFIG)], [str(labels)], str(WORKSPACE))
    for failure in report["failures"]:
        console.print(f"[bold red]Failed[/bold red]: {failure}", markup=True)
    if not screen.evaluated:
        raise SystemExit("The night did not reach its evaluation. Remove the folder of the demo and run it again.")
    print_results(console, screen.evaluated, _count_flagged(tonight))
    print_places(console, WORKSPACE, screen.evaluated)
    console.print(f"\nDone in {time.monotonic() - began:.0f} s.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' notes off the screen: MLflow on its first database, Matplotlib on its fonts."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "matplotlib")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def _write(folder: Path, screen: Screen) -> tuple[Path, Path, tuple[PhantomStudy, ...]]:
    """Write archive and night into a folder beside, then move it into place: a stopped demo leaves no half inbox."""
    inbox, making = folder / "inbox", folder / "making"
    with screen.step("Write", "Writing invented patients as DICOM") as outcome:
        if not inbox.exists():
            shutil.rmtree(making, ignore_errors=True)
            write_demo(making, SEED, ARCHIVE_NORMAL, ARCHIVE_ABNORMAL)
            _write_tonight(making / "inbox" / "tonight")
            for name in ("labels.csv", "masks", "inbox"):
                durable.move(making / name, folder / name)
            making.rmdir()
        tonight = _write_tonight(folder / "inbox" / "tonight")
        outcome.append(f"{ARCHIVE_NORMAL + ARCHIVE_ABNORMAL} labelled patients and {TONIGHT} new ones, brain MR.")
    return inbox, folder / "labels.csv", tonight


def _write_tonight(folder: Path) -> tuple[PhantomStudy, ...]:
    """Write tonight's patients; the same bytes each time, and what is true of them."""
    return write_phantoms(
        folder, TONIGHT, "MR", 0.25, SEED + 1, size=64, slices=3, grades=(2, 3), family=FAMILY
    ).studies


def _count_flagged(tonight: tuple[PhantomStudy, ...]) -> Counter[tuple[str, bool]]:
    """Count tonight's patients by label and flag: the makers of the phantoms know the labels, a hospital does not."""
    settings = Settings.load(WORKSPACE)
    with Catalogue.open(settings) as catalogue, Pseudonyms.open(settings) as pseudonyms:
        flagged = {finding.study_id for finding in catalogue.list_findings(flagged=True)}
        return Counter((study.label, pseudonyms.study(study.study_uid) in flagged) for study in tonight)


if __name__ == "__main__":
    main()
