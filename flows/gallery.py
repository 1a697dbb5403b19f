"""`make gallery`: every generative task on invented patients, small, into the pictures of the documentation.

`python -m flows.gallery [FOLDER [SAMPLER ...]]` writes a picture per sampler, the curves and the table into FOLDER, and
the pictures and tables of the other tasks into FOLDER/tasks. With names of samplers, only these are compared.
Translation, words and signals have phantoms and workspaces of their own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from flows import WORKSPACE
from pipeline import durable
from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom.folder import write_labels, write_phantoms
from pipeline.dicom.phantom.pair_folder import write_pairs
from pipeline.dicom.phantom.waveform_folder import write_ecg_labels, write_ecgs, write_speech
from pipeline.dicom.phantom.write_signals import write_truth
from pipeline.stages.generate.gallery import PICTURES, write_gallery
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.sampling.compare_samplers import ComparisonReport, compare_samplers
from pipeline.stages.generate.sampling.comparison_config import list_tasks_of, load_comparison
from pipeline.stages.generate.task_config import AnyTask, load_task

TASKS = Path(__file__).resolve().parents[1] / "configs" / "tasks"
COMPARISON = TASKS / "phantom-samplers.yaml"
OTHERS = ("walk", "traverse", "denoise", "retrieve")
OWN_RUNS = (
    "super-resolve",
    "inpaint",
    "repaint",
    "outpaint",
    "restore",
    "edit",
    "purify",
    "out-of-domain",
)
CODEC = "vae"  # the sampler of the comparison whose model the other tasks use, so that it is trained once
PATIENTS, SLICES, SEED = 400, 3, 21
TRANSLATORS = "[{method: {name: regression_unet, patch: 2, widths: [16, 16, 32, 32, 64, 16]}, images: 3000}]"
WORKERS = min(os.cpu_count() or 1, 4)  # samplers at once, each on one core


def main(
    out: Path,
    only: Collection[str] = (),
    workspace: Path = WORKSPACE,
    comparison: Path = COMPARISON,
    patients: int = PATIENTS,
    own_runs: Collection[str] = OWN_RUNS,
    panels: Collection[Panel] | None = None,
) -> None:
    """Write the phantoms unless they are there, run the tasks, and copy their pictures and tables.

    Args:
        out: folder of the pictures.
        only: samplers to compare; () compares all.
        workspace: where everything is kept, so that an interrupted gallery continues.
        comparison: file of the samplers.
        patients: number of phantoms.
        own_runs: tasks that name a run of their own, and are to be run.
        panels: tasks on phantoms of their own; None runs all.
    """
    began, settings = time.monotonic(), prepare_phantoms(workspace, patients, 0.0)
    report = compare_samplers(comparison, settings, progress=True, say=print, only=only, workers=WORKERS)
    copy_comparison(report, out)
    run_others(comparison, settings, out / "tasks", own_runs)
    for panel in PANELS if panels is None else panels:
        run_panel(panel, workspace, out / "tasks")
    print(report.markdown)
    print(f"Page: {write_gallery(settings, workspace / 'gallery')}")
    print(f"Done in {time.monotonic() - began:.0f} s, {cpu_seconds():.0f} s of processors.")
    if report.failures:
        raise SystemExit(1)


def cpu_seconds() -> float:
    """Return the processor time of this process and of the samplers' processes that ended, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def prepare_phantoms(workspace: Path, patients: int, abnormal: float) -> Settings:
    """Write phantoms into a workspace unless they are there, ingest and label them; return its settings."""
    settings, scans = Settings.load(workspace), workspace / "phantoms"
    phantoms = write_phantoms(scans / "dicom", patients, "MR", abnormal, SEED, size=64, slices=SLICES)
    ingest([scans / "dicom"], settings)
    import_labels(write_labels(phantoms.studies, scans), settings)
    return settings


def prepare_heads_with_lesions(workspace: Path) -> Settings:
    """Prepare heads of which two in five have a lesion."""
    return prepare_phantoms(workspace, PATIENTS // 2, 0.4)


def prepare_pairs(workspace: Path) -> Settings:
    """Prepare heads that were examined on two scanners."""
    settings, scans = Settings.load(workspace), workspace / "phantoms"
    phantoms = write_pairs(scans / "dicom", PATIENTS // 2, "scanners", 0.3, SEED, size=64, slices=SLICES)
    ingest([scans / "dicom"], settings)
    import_labels(write_labels(phantoms.studies, scans), settings)
    return settings


def prepare_speech(workspace: Path) -> Settings:
    """Prepare recordings of invented speakers, with their phonemes."""
    return _prepare_signals(workspace, "speech")


def prepare_ecgs(workspace: Path) -> Settings:
    """Prepare electrocardiograms of five rhythms, with their names."""
    return _prepare_signals(workspace, "ecg")


def _prepare_signals(workspace: Path, kind: str) -> Settings:
    settings, scans = Settings.load(workspace), workspace / "phantoms"
    signals = (
        write_speech(scans / "dicom", 24, 10, SEED, phonemes=12)
        if kind == "speech"
        else write_ecgs(scans / "dicom", 300, 0.5, SEED)
    )
    ingest([scans / "dicom"], settings)
    import_labels(write_ecg_labels(signals, scans), settings)
    write_truth(signals, scans / "truth.csv")
    return settings


@dataclass(frozen=True, slots=True)
class Panel:
    """A task on phantoms of its own.

    Attributes:
        kind: of the task; its files are called by it.
        file: of configs/tasks.
        room: folder of its workspace; tasks with the same room share phantoms.
        prepare: writes and ingests the phantoms.
        changes: overrides that make the task small.
    """

    kind: str
    file: str
    room: str
    prepare: Callable[[Path], Settings]
    changes: tuple[str, ...] = ()


PANELS = (
    Panel("synthesise-training", "phantom-synthesise-training", "lesions", prepare_heads_with_lesions),
    Panel(
        "text-to-image",
        "phantom-words",
        "lesions",
        prepare_heads_with_lesions,
        ("run.training.images=8000", "baseline=false", "count=100", "each=10", "guidance=[0, 2]"),
    ),
    Panel(
        "translate",
        "phantom-scanners",
        "pairs",
        prepare_pairs,
        ("run.training.images=2000", "run.training.validate_every_images=2000", "count=60", f"beside={TRANSLATORS}"),
    ),
    Panel("tokenise-signal", "phantom-speech", "speech", prepare_speech, ("run.training.images=12000", "triples=500")),
    Panel(
        "classify-signal",
        "phantom-ecg",
        "ecg",
        prepare_ecgs,
        ("run.training.images=6000", "pretraining_images=4000", "tuning_images=2000"),
    ),
)


def run_panel(panel: Panel, workspace: Path, out: Path) -> None:
    """Run a task on phantoms of its own, and copy its pictures and table."""
    place = workspace / panel.room
    settings = panel.prepare(place)
    truth = place / "phantoms" / "truth.csv"
    changes = (*panel.changes, *((f"truth={truth}",) if truth.is_file() else ()))
    run_one(panel.kind, load_task(TASKS / f"{panel.file}.yaml", changes), settings, out)


def copy_comparison(report: ComparisonReport, out: Path) -> None:
    """Copy the pictures and the table of the comparison; the rows that it keeps for itself stay behind."""
    for file in sorted(Path(report.folder).iterdir()):
        if file.suffix in (".png", ".md"):
            durable.write(out / file.name, file.read_bytes())


def run_others(comparison: Path, settings: Settings, out: Path, own_runs: Collection[str] = OWN_RUNS) -> None:
    """Run the other tasks, some with the model of one sampler, and copy their pictures and tables."""
    runs = {name: task.run for name, _, task in list_tasks_of(load_comparison(comparison), comparison)}
    for kind in (*OTHERS, *own_runs):
        task = load_task(TASKS / f"phantom-{kind}.yaml")
        run_one(kind, task.model_copy(update={"run": runs[CODEC]}) if kind in OTHERS else task, settings, out)


def run_one(kind: str, task: AnyTask, settings: Settings, out: Path) -> None:
    """Run one task, and copy its pictures and its table."""
    began = cpu_seconds()
    report = run_task(task, settings, progress=True)
    durable.write(out / f"{kind}.md", report.table + "\n")
    for name in PICTURES:
        if (report.folder.path / name).is_file():
            durable.write(out / f"{kind}-{name}", (report.folder.path / name).read_bytes())
    print(f"{kind} is done, after {cpu_seconds() - began:.0f} s of processors")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "notebooks/figures/gallery"), sys.argv[2:])
