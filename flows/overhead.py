"""Cost of Prefect in scoring: the flow `score` against its stages called directly (`nightread benchmark speed`).

It runs in a process of its own, since Prefect fixes its home folder and starts its server once per process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from flows import WORKSPACE
from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.phantom.folder import write_labels, write_phantoms
from pipeline.errors import ConfigError
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.score import find_detectors_to_run
from pipeline.stages.detect.score import score as score_stage
from pipeline.stages.detect.train import train
from pipeline.stages.operations.flagged_pictures import draw_flagged_pictures
from pipeline.stages.run.run_config import RunConfig

NORMALS = 60
CONFIG = {
    "name": "overhead",
    "data": {
        "route": "phantom-mr",
        "normaliser": {"kind": "mr_percentile", "image_size": 64},
        "splits": {"normals": {"train": 0.3, "calibrate": 0.7}, "others": {"develop": 1.0}},
    },
    "method": {"name": "ae"},
    "training": {"images": 64, "batch_size": 16, "patience": None},
    "detection": {"flagging": {"rule": "fpr", "alpha": 0.1}},
}


def measure_overhead(scans: int = 100, rounds: int = 3) -> list[dict[str, Any]]:
    """Measure in a new process with a workspace of its own, which is deleted afterwards.

    Returns:
        rows as `pipeline.stages.speed.ingest_train_score.speed` gives. The first is milliseconds per scan of one slice,
        in the flow (`ours`) and in its stages alone (`bare`), as medians of alternating rounds: their difference is
        what Prefect costs per scan. The second compares the first flow in a process, which starts Prefect's server,
        with the next one, in seconds.

    Raises:
        ConfigError: the measurement ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="nightread-overhead-") as place:
        out = Path(place) / "rows.json"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment["NIGHTREAD_WORKSPACE"] = str(Path(place) / "workspace")
        command = [sys.executable, "-m", "flows.overhead", str(scans), str(rounds), str(out)]
        process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if process.returncode != 0 or not out.exists():
            raise ConfigError(f"Measuring the flow failed with exit code {process.returncode}: {process.stderr[-500:]}")
        rows: list[dict[str, Any]] = json.loads(out.read_text())
    return rows


def main(scans: int, rounds: int, out: Path) -> None:
    """Train a small detector on phantoms, then score new ones through the flow and directly, alternating; write the
    rows.
    """
    settings = Settings.load(WORKSPACE)
    _prepare(settings)
    first = _seconds(_by_flow, settings, scans, seed=99)
    pairs = [
        (_seconds(_by_flow, settings, scans, seed), _seconds(_directly, settings, scans, seed + 1))
        for seed in range(100, 100 + 2 * rounds, 2)
    ]
    flow, direct = (median(seconds) for seconds in zip(*pairs, strict=True))
    ratio = median(bare / ours for ours, bare in pairs)
    a_scan, a_start = (1e3 * flow / scans, 1e3 * direct / scans, ratio), (first, flow, flow / first)
    rows = [
        _row(f"score flow, {scans} scans / its stages called directly", a_scan, "ms/scan"),
        _row("first flow of a process (Prefect's server starts) / the next", a_start, "s"),
    ]
    out.write_text(json.dumps(rows))


def _prepare(settings: Settings) -> None:
    folder = settings.workspace.parent / "archive"
    studies = write_phantoms(folder / "scans", NORMALS, "MR", 0.0, 1).studies
    ingest([folder / "scans"], settings)
    import_labels(write_labels(studies, folder), settings)
    calibrate(train(RunConfig.model_validate(CONFIG), settings), settings)


def _seconds(work: Callable[[Settings], object], settings: Settings, scans: int, seed: int) -> float:
    inbox = settings.workspace.parent / f"night-{seed}"
    write_phantoms(inbox, scans, "MR", 0.1, seed)
    ingest([inbox], settings)
    began = time.perf_counter()
    work(settings)
    return time.perf_counter() - began


def _by_flow(settings: Settings) -> None:
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.score import score

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # as in the nightly run
        score(str(settings.workspace))


def _directly(settings: Settings) -> None:
    reports = [score_stage(run, settings) for run in find_detectors_to_run(settings)]
    draw_flagged_pictures(settings, [report.run_id for report in reports])


def _row(name: str, numbers: tuple[float, float, float], unit: str) -> dict[str, Any]:
    ours, bare, ratio = (round(number, 2) for number in numbers)
    return {"comparison": name, "ours": ours, "bare": bare, "ratio": ratio, "unit": unit}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
