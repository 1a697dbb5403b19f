"""Every notebook runs from top to bottom on phantoms, and is committed without output."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROMISES = {
    "01_first_detector": ["120 new, 0 rejected; again: 0 new, 120 seen before", "heatmap (1, 64, 64) float32"],
    "02_vae": [
        "4 bounds, each above the one before: True",
        "4 kinds, 4 lengths of code, 3 values of beta",
    ],
    "03_gan": ["D is right to within 0.1: True", "3 GANs on 25 Gaussians, 2 on images"],
    "04_vq": ["the gradient arrives unchanged: True", "3 ways to learn a codebook, 5 temperatures"],
    "05_diffusion": ["6 numbers of steps, 5 weights of guidance"],
    "06_var_diffae": ["4 passes for an image, 85 for one code at a time", "4 scales, 4 repairs"],
    "07_lesion_generators": ["60 to learn from, 12 healthy and 12 of each kind", "24 rows, 4 kinds of lesion"],
}
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(PROMISES)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_and_says_what_it_promises(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_LESION_IMAGES", "32")
    monkeypatch.setenv("NIGHTREAD_LESSON_IMAGES", "128")
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit notebooks without their output"
    NotebookClient(notebook, timeout=420, resources={"metadata": {"path": str(path.parent)}}).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert [promise for promise in PROMISES[path.stem] if promise not in printed] == []
