"""Speed of the listener beside DCMTK's storescp, which neither syncs nor checks objects; printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from pipeline.dicom.phantom.folder import write_phantoms

SESSION = Path(__file__).with_name("speed_session.py")
OBJECTS = int(os.environ.get("NIGHTREAD_SPEED_OBJECTS", "80"))


@pytest.mark.slow
def test_it_keeps_up_with_a_receiver_that_promises_less(cut_off: Any, tmp_path: Path) -> None:
    if shutil.which("storescp") is None or shutil.which("storescu") is None:
        pytest.skip("storescp (Debian package dcmtk) is not installed")
    (path,) = [file.path for file in write_phantoms(tmp_path / "one", 1, "CT", 0, 1, slices=1, size=512).files]
    (tmp_path / "sent").mkdir()
    ds = dcmread(path)
    ds.decompress() if ds.file_meta.TransferSyntaxUID.is_compressed else None
    for number in range(OBJECTS):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number}"
        ds.StudyInstanceUID = f"1.2.826.0.2.{number // 100}"
        ds.save_as(tmp_path / "sent" / f"{number}.dcm")
    run = "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [str(part) for part in (SESSION, tmp_path / "sent", tmp_path, 3)]
    done = subprocess.run(
        [*cut_off.prefix, sys.executable, "-c", f"{cut_off.code}\n{run}", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    print(*rows, sep="\n")
    assert [row["associations"] for row in rows] == [1, 8]
    assert all(row["ratio"] > 0.02 for row in rows)  # two orders of magnitude slower would be a fault
