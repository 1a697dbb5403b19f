"""A real Orthanc accepts what we push, and returns it by C-FIND and DICOMweb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import ExportRow

SESSION = Path(__file__).with_name("orthanc_session.py")


@pytest.fixture
def session(cut_off: Any) -> Callable[..., dict[str, Any]]:
    """Run the session script in a namespace of its own; skips where a tool is missing."""
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if shutil.which("Orthanc") is None or shutil.which("storescu") is None or not plugin.exists():
        pytest.skip("Orthanc (Debian packages orthanc, orthanc-dicomweb) or dcmtk is not installed")

    def run(*arguments: Any) -> dict[str, Any]:
        code = "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        done = subprocess.run(
            [*cut_off.prefix, sys.executable, "-c", f"{cut_off.code}\n{code}", str(SESSION), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=500,
            env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return run


@pytest.mark.slow
def test_pushed_objects_can_be_queried(scored: Any, phantom_night: Any, session: Callable, tmp_path: Path) -> None:
    try:
        push = session("push", scored.settings.workspace, scored.run_id, phantom_night.inbox, tmp_path / "orthanc")
    finally:
        with Catalogue.open(scored.settings) as catalogue, catalogue.session() as books:
            books.query(ExportRow).delete()
    store, stow, repeated = push["reports"]
    assert (store["failed"], stow["failed"], repeated["failed"]) == (0, 0, 0)
    pushed = sum(store["sent"].values())
    assert sum(stow["sent"].values()) == pushed >= 6 and repeated["sent_before"] == 2
    assert push["instances"] == [6 + pushed, 6 + pushed]  # the second way brought the same objects
    assert push["find"] == push["qido"] and len(push["qido"]) == 6
    flagged = [modalities for modalities in push["qido"] if "SR" in modalities]
    assert len(flagged) == 2 and all({"KO", "MR", "SR"} <= set(modalities) for modalities in flagged)
    assert "Not for diagnosis" in push["dump"] and "more unusual than" in push["dump"]


@pytest.mark.slow
def test_results_of_a_night_on_pulled_scans_return_to_the_pacs(
    phantom_night: Any, new_hospital: Callable, session: Callable, tmp_path: Path
) -> None:
    settings = new_hospital()
    pulled = session(
        *("night", settings.workspace, phantom_night.folder, phantom_night.config, phantom_night.labels),
        tmp_path / "orthanc",
    )
    assert sum(pulled["sent"].values()) == 54 and pulled["sent"]["storescu"] >= 40
    for way, report in pulled["pulled"].items():
        assert (way, report["studies"], report["objects"], report["failed"]) == (way, 54, {"stored": 54}, 0)
        assert report["notes"] == [] and report["vanished"] == 0
    for way, report in pulled["again"].items():
        assert (way, report["fetched_before"], report["objects"]) == (way, 54, {})
    assert pulled["same"] == [True] * 3
    assert pulled["night"] == {"failures": [], "new": 54}
    assert pulled["pushed"]["failed"] == 0 and pulled["pushed"]["sent"]["sr"] == 2
    assert len(pulled["find"]) == 2 and pulled["find"] == pulled["qido"]
    assert all({"KO", "MR", "SR"} <= set(modalities) for modalities in pulled["qido"])
    print("equal bytes by get, move and web:", pulled["equal bytes"], pulled["sent"])
