"""A real Orthanc takes what we push, and gives it back by C-FIND and DICOMweb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.catalogue import Catalogue
from pipeline.data.schema import ExportRow

SESSION = Path(__file__).with_name("orthanc_session.py")


@pytest.mark.slow
def test_what_is_pushed_is_found_again(scored: Any, phantom_night: Any, cut_off: Any, tmp_path: Path) -> None:
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if shutil.which("Orthanc") is None or shutil.which("storescu") is None or not plugin.exists():
        pytest.skip("Orthanc (Debian packages orthanc, orthanc-dicomweb) or dcmtk is not installed")
    run = "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [SESSION, scored.settings.workspace, scored.run_id, phantom_night.inbox, tmp_path / "orthanc"]
    done = subprocess.run(
        [*cut_off.prefix, sys.executable, "-c", f"{cut_off.code}\n{run}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
    )
    with Catalogue.open(scored.settings) as catalogue, catalogue.session() as session:
        session.query(ExportRow).delete()
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    store, stow, known = found["reports"]
    assert (store["failed"], stow["failed"], known["failed"]) == (0, 0, 0)
    pushed = sum(store["sent"].values())
    assert sum(stow["sent"].values()) == pushed >= 6 and known["known"] == 2
    assert found["instances"] == [6 + pushed, 6 + pushed]  # the second way brought the same objects
    assert found["find"] == found["qido"] and len(found["qido"]) == 6
    flagged = [modalities for modalities in found["qido"] if "SR" in modalities]
    assert len(flagged) == 2 and all({"KO", "MR", "SR"} <= set(modalities) for modalities in flagged)
    assert "Not for diagnosis" in found["dump"] and "more unusual than" in found["dump"]
