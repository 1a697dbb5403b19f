"""Every notebook runs from top to bottom on phantoms, and is committed without output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROMISES = {
    "01_first_detector": ["120 new, 0 rejected; again: 0 new, 120 seen before", "heatmap (1, 64, 64) float32"],
    "02_lesion_generators": ["60 to learn from, 12 healthy and 12 of each kind", "24 rows, 4 kinds of lesion"],
}
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(PROMISES)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_and_says_what_it_promises(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_LESION_IMAGES", "32")
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit notebooks without their output"
    NotebookClient(notebook, timeout=420, resources={"metadata": {"path": str(path.parent)}}).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert [promise for promise in PROMISES[path.stem] if promise not in printed] == []
