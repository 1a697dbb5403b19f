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
from pipeline.stages.generate.compare_samplers import ComparisonReport, compare_samplers
from pipeline.stages.generate.comparison_config import list_tasks_of, load_comparison
from pipeline.stages.generate.gallery import PICTURES, write_gallery
from pipeline.stages.generate.run_task import run_task
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
    "synthesise-training",
)
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
) -> None:
    """Write the phantoms unless they are there, run the tasks, and copy their pictures and tables.

    Args:
        out: folder of the pictures.
        only: samplers to compare; () compares all.
        workspace: where everything is kept, so that an interrupted gallery continues.
        comparison: file of the samplers.
        patients: number of phantoms without lesions; a fifth as many have one, for detectors to find.
        own_runs: tasks that name a run of their own, and are to be run.
    """
    began, settings = time.monotonic(), Settings.load(workspace)
    scans = workspace / "phantoms"
    phantoms = write_phantoms(scans / "dicom", patients, "MR", 0.0, SEED, size=64, slices=SLICES)
    ill = write_phantoms(scans / "ill", patients // 5, "MR", 1.0, SEED + 1, size=64, slices=SLICES, family="ILL")
    ingest([scans / "dicom", scans / "ill"], settings)
    for studies, place in ((phantoms.studies, scans), (ill.studies, scans / "labels-ill")):
        import_labels(write_labels(studies, place), settings)
    report = compare_samplers(comparison, settings, progress=True, say=print, only=only, workers=WORKERS)
    copy_comparison(report, out)
    run_others(comparison, settings, out / "tasks", own_runs)
    print(report.markdown)
    print(f"Page: {write_gallery(settings, workspace / 'gallery')}\nDone in {time.monotonic() - began:.0f} s.")
    if report.failures:
        raise SystemExit(1)


def copy_comparison(report: ComparisonReport, out: Path) -> None:
    """Copy the pictures and the table of the comparison."""
    for file in sorted(Path(report.folder).glob("*.*")):
        durable.write(out / file.name, file.read_bytes())


def run_others(comparison: Path, settings: Settings, out: Path, own_runs: Collection[str] = OWN_RUNS) -> None:
    """Run the other tasks, most with the model of one sampler, and copy their pictures and tables."""
    runs = {name: task.run for name, _, task in list_tasks_of(load_comparison(comparison), comparison)}
    for kind in (*OTHERS, *own_runs):
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
