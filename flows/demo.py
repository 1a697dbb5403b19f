"""`make demo`: a hospital's archive and one night's scans, made up, written as DICOM, and read by the nightly flow."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from flows import WORKSPACE
from flows.nightly import run_nightly
from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.phantom.demo import FAMILY, write_demo
from pipeline.dicom.phantom.folder import PhantomStudy, write_phantoms

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "runs" / "demo-mr.yaml"
ARCHIVE_NORMAL, ARCHIVE_ABNORMAL, TONIGHT = 240, 60, 40
SEED = 1


def main() -> None:
    """Write the scans unless they are there, run the night, and say what it found."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    began, console = time.monotonic(), Console(width=118)
    folder = WORKSPACE.parent
    inbox, labels, tonight = _write(folder, console)
    console.print("Running the night: ingest, train, calibrate, score, evaluate ...")
    report = run_nightly([str(inbox)], [str(CONFIG)], [str(labels)], str(WORKSPACE))
    console.print(Markdown(report["markdown"]))
    _say_the_truth(console, tonight)
    _say_where(console, folder, time.monotonic() - began)


def _write(folder: Path, console: Console) -> tuple[Path, Path, tuple[PhantomStudy, ...]]:
    """Write archive and night into a folder beside, then move it into place: a stopped demo leaves no half inbox."""
    inbox, making = folder / "inbox", folder / "making"
    if not inbox.exists():
        console.print(f"Writing {ARCHIVE_NORMAL + ARCHIVE_ABNORMAL} labelled and {TONIGHT} new phantom patients ...")
        shutil.rmtree(making, ignore_errors=True)
        write_demo(making, SEED, ARCHIVE_NORMAL, ARCHIVE_ABNORMAL)
        _tonight(making / "inbox" / "tonight")
        for name in ("labels.csv", "masks", "inbox"):
            durable.move(making / name, folder / name)
        making.rmdir()
    return inbox, folder / "labels.csv", _tonight(folder / "inbox" / "tonight")


def _tonight(folder: Path) -> tuple[PhantomStudy, ...]:
    return write_phantoms(
        folder, TONIGHT, "MR", 0.25, SEED + 1, size=64, slices=3, grades=(2, 3), family=FAMILY
    ).studies


def _say_the_truth(console: Console, tonight: tuple[PhantomStudy, ...]) -> None:
    """The phantoms' makers know what a hospital does not: who of tonight's patients has a lesion."""
    settings = Settings.load(WORKSPACE)
    with Catalogue.open(settings) as catalogue, Pseudonyms.open(settings) as pseudonyms:
        flagged = {finding.study_id for finding in catalogue.findings(flagged=True)}
        counts = Counter((study.label, pseudonyms.study(study.study_uid) in flagged) for study in tonight)
    console.print(
        f"\n[bold]What the phantoms' maker knows[/bold]: of tonight's {len(tonight)} patients "
        f"{counts['abnormal', True]} of {counts['abnormal', True] + counts['abnormal', False]} with a lesion are "
        f"flagged, and {counts['normal', True]} of {counts['normal', True] + counts['normal', False]} without."
    )


def _say_where(console: Console, folder: Path, seconds: float) -> None:
    place: dict[str, Any] = {
        "MLflow": f".venv/bin/mlflow ui --backend-store-uri sqlite:///{WORKSPACE}/mlflow/mlflow.db --host 127.0.0.1",
        "Prefect": f"PREFECT_HOME={WORKSPACE}/prefect .venv/bin/prefect server start --host 127.0.0.1",
        "the list": f".venv/bin/nightread -w {WORKSPACE} flagged",
        "the refused": f".venv/bin/nightread -w {WORKSPACE} rejections",
        "the figures": f"{WORKSPACE}/runs/*/evaluation/develop/*.png",
    }
    console.print(f"\nDone in {seconds:.0f} s. Look closer:")
    for name, command in place.items():
        console.print(f"  {name:12s}{command}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
