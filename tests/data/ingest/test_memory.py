"""Memory does not grow with the number of files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """
import resource, sys
from pathlib import Path
from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
report = ingest([Path(sys.argv[1])], Settings(workspace=Path(sys.argv[2])), on_progress=lambda done, total: None)
assert report.added == int(sys.argv[3]), report
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(inbox: Path, workspace: Path, count: int) -> int:
    """Peak resident memory of an ingest in a process of its own, in KiB; its decode workers are separate processes."""
    command = [sys.executable, "-c", CODE, str(inbox), str(workspace), str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_thousand_files_need_no_more_memory_than_a_thousand(
    tmp_path: Path, write_file: Callable[..., Path]
) -> None:
    for count in (1000, 10_000):
        for number in range(count):
            series, place = divmod(number, 100)
            write_file(tmp_path / f"in{count}" / f"{series}" / f"{place}.dcm", place + 1, series + 1)
    few, many = (peak_kib(tmp_path / f"in{count}", tmp_path / f"ws{count}", count) for count in (1000, 10_000))
    print(f"peak {few / 1024:.0f} MiB for 1000 files, {many / 1024:.0f} MiB for 10000")
    assert many <= 1.10 * few
