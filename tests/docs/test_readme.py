"""README is short, its pictures and links are there, its figures are in the leaderboards, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from flowchart import draw_flowchart
from PIL import Image

from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.detection import Detector, save_detector
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration, Unit
from pipeline.dicom.phantom.example import example_file
from pipeline.methods.ae import AeConfig
from pipeline.methods.stored_model import Model

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY = (ROOT / "docs" / "how-to" / "library.md").read_text(encoding="utf-8")
FIGURE = re.compile(r"-?\d\.\d{3} \(-?\d\.\d{3} to -?\d\.\d{3}\)")
MOST_BYTES, MOST_PICTURE_BYTES = 8_000, 1_000_000


def test_readme_is_short() -> None:
    assert 3_000 < len(README.encode()) <= MOST_BYTES


def test_its_pictures_are_small_and_not_blank() -> None:
    pictures = [ROOT / name for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)]
    assert len(pictures) >= 2
    for file in pictures:
        assert file.stat().st_size < MOST_PICTURE_BYTES, file
        if file.suffix != ".svg":
            assert np.asarray(Image.open(file).convert("L")).std() > 10, file


def test_its_figures_are_those_of_the_leaderboards() -> None:
    boards = "".join(f.read_text(encoding="utf-8") for f in (ROOT / "notebooks" / "leaderboards").glob("*.md"))
    figures = FIGURE.findall(README)
    assert len(figures) >= 10
    assert [figure for figure in figures if figure not in boards] == []


def test_its_drawing_is_one_that_the_site_can_draw() -> None:
    (drawing,) = re.findall(r"^```mermaid\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    assert draw_flowchart(drawing).count("<rect") >= 8


@pytest.mark.parametrize("text", [README, LIBRARY], ids=["README", "library page"])
def test_the_library_example_runs(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(Model(AeConfig().build(64), Normaliser(MRPercentile())), DetectionConfig(), "phantom-mr")
    detector = detector.calibrated(Calibration.fit(Unit(str(i), str(i), float(i)) for i in range(99)))
    save_detector(tmp_path / "nightread-data" / "runs" / "<run>" / "detector", detector)
    (tmp_path / "scan.dcm").write_bytes(example_file("MR"))
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    result = names["result"]
    assert len(code.strip().splitlines()) == 6
    assert np.isfinite(result.score) and 0 < result.p_value <= 1
    assert capsys.readouterr().out.strip().endswith("(1, 64, 64)")
