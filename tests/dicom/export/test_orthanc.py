"""A real Orthanc takes what we push, and gives it back by C-FIND and DICOMweb."""

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
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


@pytest.mark.slow
def test_what_is_pushed_is_found_again(scored: Any, phantom_night: Any, session: Callable, tmp_path: Path) -> None:
    try:
        found = session("push", scored.settings.workspace, scored.run_id, phantom_night.inbox, tmp_path / "orthanc")
    finally:
        with Catalogue.open(scored.settings) as catalogue, catalogue.session() as books:
            books.query(ExportRow).delete()
    store, stow, known = found["reports"]
    assert (store["failed"], stow["failed"], known["failed"]) == (0, 0, 0)
    pushed = sum(store["sent"].values())
    assert sum(stow["sent"].values()) == pushed >= 6 and known["sent_before"] == 2
    assert found["instances"] == [6 + pushed, 6 + pushed]  # the second way brought the same objects
    assert found["find"] == found["qido"] and len(found["qido"]) == 6
    flagged = [modalities for modalities in found["qido"] if "SR" in modalities]
    assert len(flagged) == 2 and all({"KO", "MR", "SR"} <= set(modalities) for modalities in flagged)
    assert "Not for diagnosis" in found["dump"] and "more unusual than" in found["dump"]


@pytest.mark.slow
def test_a_night_on_what_was_pulled_ends_in_the_pacs_again(
    phantom_night: Any, new_hospital: Callable, session: Callable, tmp_path: Path
) -> None:
    settings = new_hospital()
    found = session(
        *("night", settings.workspace, phantom_night.folder, phantom_night.config, phantom_night.labels),
        tmp_path / "orthanc",
    )
    assert sum(found["sent"].values()) == 54 and found["sent"]["storescu"] >= 40
    for way, report in found["pulled"].items():
        assert (way, report["studies"], report["objects"], report["failed"]) == (way, 54, {"stored": 54}, 0)
        assert report["notes"] == [] and report["vanished"] == 0
    for way, report in found["again"].items():
        assert (way, report["fetched_before"], report["objects"]) == (way, 54, {})
    assert found["same"] == [True] * 3
    assert found["night"] == {"failures": [], "new": 54}
    assert found["pushed"]["failed"] == 0 and found["pushed"]["sent"]["sr"] == 2
    assert len(found["find"]) == 2 and found["find"] == found["qido"]
    assert all({"KO", "MR", "SR"} <= set(modalities) for modalities in found["qido"])
    print("equal bytes by get, move and web:", found["equal bytes"], found["sent"])
