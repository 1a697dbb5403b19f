"""Peak memory of an ingest, many instances against few: it must not grow with their number."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.errors import ConfigError

SLICES = 20  # of a phantom study
STATUS = Path("/proc/self/status")


def measure_memory(few: int = 1000, many: int = 10_000) -> list[dict[str, Any]]:
    """Ingest `few` and `many` instances (CT of 64 pixels), once each, in a separate process with an empty workspace.

    Returns:
        one row as `pipeline.stages.speed.ingest_train_score.speed` gives: `ours` is the peak of many, `bare` that of
        few, in MiB, and their ratio is few / many: 1 means no growth. Decoding happens in worker processes with limits
        of their own, which are not counted.

    Raises:
        ConfigError: the system does not report the peak memory of a process (only Linux does), or an ingest failed.
    """
    if not STATUS.exists():
        raise ConfigError(f"Peak memory is read from {STATUS}, which this system does not have. Measure on Linux.")
    peaks = {count: _peak_mib(count) for count in (few, many)}
    name = f"peak memory of ingesting {many} instances / {few}"
    ratio = round(peaks[few] / peaks[many], 2)
    return [{"comparison": name, "ours": peaks[many], "bare": peaks[few], "ratio": ratio, "unit": "MiB"}]


def _peak_mib(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="nightread-memory-") as place:
        inbox = Path(place) / "inbox"
        write_phantoms(inbox, count // SLICES, "CT", 0.0, 3, slices=SLICES)
        if rest := count % SLICES:
            write_phantoms(inbox / "rest", 1, "CT", 0.0, 4, slices=rest)
        command = [sys.executable, "-m", "pipeline.stages.speed.memory", str(inbox), str(Path(place) / "workspace")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"The ingest of {count} instances ended with code {done.returncode}: {done.stderr[-500:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["added"] != count:
        raise ConfigError(
            f"Of {count} phantom instances, {result['added']} were ingested, so the peak would be meaningless. Check "
            "the phantoms."
        )
    return round(result["peak_kib"] / 1024, 1)


def main(inbox: str, workspace: str) -> None:
    """Ingest a folder, and print the number of new instances and the peak of this process's resident memory (VmHWM)."""
    report = ingest([Path(inbox)], Settings(workspace=Path(workspace)))
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    print(json.dumps({"added": report.added, "peak_kib": int(lines["VmHWM"].split()[0])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
