"""`make gallery`: every generative task on invented patients, small, into the pictures of the documentation.

`python -m flows.gallery [FOLDER [SAMPLER ...]]` writes a picture per sampler, the curves and the table into FOLDER, and
the pictures and tables of the other tasks into FOLDER/tasks. With names of samplers, only these are compared.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

from flows import WORKSPACE
from pipeline import durable
from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom.folder import write_labels, write_phantoms
from pipeline.stages.generate.gallery import PICTURES, write_gallery
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.sampling.compare_samplers import ComparisonReport, compare_samplers
from pipeline.stages.generate.sampling.comparison_config import list_tasks_of, load_comparison
from pipeline.stages.generate.task_config import load_task

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
WITH_LESIONS = ("synthesise-training",)  # on phantoms of which some have a lesion, in a workspace of their own
CODEC = "vae"  # the sampler of the comparison whose model the other tasks use, so that it is trained once
PATIENTS, SLICES, SEED = 400, 3, 21
WORKERS = min(os.cpu_count() or 1, 4)  # samplers at once, each on one core


def main(
    out: Path,
    only: Collection[str] = (),
    workspace: Path = WORKSPACE,
    comparison: Path = COMPARISON,
    patients: int = PATIENTS,
    own_runs: Collection[str] = OWN_RUNS,
    with_lesions: Collection[str] = WITH_LESIONS,
) -> None:
    """Write the phantoms unless they are there, run the tasks, and copy their pictures and tables.

    Args:
        out: folder of the pictures.
        only: samplers to compare; () compares all.
        workspace: where everything is kept, so that an interrupted gallery continues.
        comparison: file of the samplers.
        patients: number of phantoms.
        own_runs: tasks that name a run of their own, and are to be run.
        with_lesions: tasks whose phantoms have lesions, and which are to be run.
    """
    began, settings = time.monotonic(), prepare_phantoms(workspace, patients, 0.0)
    report = compare_samplers(comparison, settings, progress=True, say=print, only=only, workers=WORKERS)
    copy_comparison(report, out)
    run_others(comparison, settings, out / "tasks", own_runs)
    if with_lesions:
        run_others(
            comparison, prepare_phantoms(workspace / "lesions", patients // 2, 0.4), out / "tasks", with_lesions, ()
        )
    print(report.markdown)
    print(f"Page: {write_gallery(settings, workspace / 'gallery')}\nDone in {time.monotonic() - began:.0f} s.")
    if report.failures:
        raise SystemExit(1)


def prepare_phantoms(workspace: Path, patients: int, abnormal: float) -> Settings:
    """Write phantoms into a workspace unless they are there, ingest and label them; return its settings."""
    settings, scans = Settings.load(workspace), workspace / "phantoms"
    phantoms = write_phantoms(scans / "dicom", patients, "MR", abnormal, SEED, size=64, slices=SLICES)
    ingest([scans / "dicom"], settings)
    import_labels(write_labels(phantoms.studies, scans), settings)
    return settings


def copy_comparison(report: ComparisonReport, out: Path) -> None:
    """Copy the pictures and the table of the comparison."""
    for file in sorted(Path(report.folder).glob("*.*")):
        durable.write(out / file.name, file.read_bytes())


def run_others(
    comparison: Path,
    settings: Settings,
    out: Path,
    own_runs: Collection[str] = OWN_RUNS,
    others: Collection[str] = OTHERS,
) -> None:
    """Run the other tasks, most with the model of one sampler, and copy their pictures and tables."""
    runs = {name: task.run for name, _, task in list_tasks_of(load_comparison(comparison), comparison)}
    for kind in (*others, *own_runs):
        task = load_task(TASKS / f"phantom-{kind}.yaml")
        task = task.model_copy(update={"run": runs[CODEC]}) if kind in OTHERS else task
        report = run_task(task, settings, progress=True)
        durable.write(out / f"{kind}.md", report.table + "\n")
        for name in PICTURES:
            if (report.folder.path / name).is_file():
                durable.write(out / f"{kind}-{name}", (report.folder.path / name).read_bytes())
        print(f"{kind} is done")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "notebooks/figures/gallery"), sys.argv[2:])
