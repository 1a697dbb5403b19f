"""`nightread benchmark anomalib`: the same slices for both programs, and the rows made of their answers.

anomalib itself cannot be installed here; its half is replaced by a script that scores the pictures by their mean.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import ConfigError
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.speed import side_by_side
from pipeline.stages.speed.side_by_side import Row, measure_beside_anomalib
from tests.conftest import TrainedWorkspace

HALF = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
folder = Path(sys.argv[1])
request = json.loads((folder / "request.json").read_text())
assert folder.parent.name == "cache"
assert Path(request["weights"]).is_file() and request["size"] == 32 and len(list((folder / "normals").iterdir())) > 5
scores = {file.stem: float(np.asarray(Image.open(file)).mean()) for file in (folder / "scans").iterdir()}
seconds = {"plain": [0.5, 0.25, 0.125], "drawn": [1.0, 4.0, 2.0]}
answer = [{"name": n, "fit_seconds": 7.2, "seconds": seconds, "scores": scores} for n in request["models"]]
(folder / "answer.json").write_text(json.dumps(answer))
"""


def measure(trained: TrainedWorkspace, monkeypatch: pytest.MonkeyPatch, half: Path, text: str) -> list[Row]:
    half.write_text(text)
    monkeypatch.setattr(side_by_side, "HALF", half)
    run_id = Path(trained.report.run.path).name
    return measure_beside_anomalib(trained.settings, [run_id], Path(sys.executable), ["padim"], rounds=2)


def test_both_programs_are_judged_on_the_same_slices(
    trained: TrainedWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, plain, drawn = measure(trained, monkeypatch, tmp_path / "half.py", HALF)
    folder = RunFolder.open(trained.report.run)
    with Catalogue.open(trained.settings) as catalogue:
        run = side_by_side.OpenFolder(folder, folder.read_config(), catalogue, trained.settings)
        data = side_by_side._data(run, "develop")
        means = [float(data[i]["image"].mean()) for i in range(len(data))]
        scores = [result.score for result in load_detector(folder.detector).score_slices(data)]
    abnormal = np.array([ref.label == "abnormal" for ref in data.slices])
    assert plain["auroc"] == drawn["auroc"] == pytest.approx(roc_auc_score(abnormal, means), abs=0.02)
    assert plain["images_per_cpu_second"] == pytest.approx(len(data) / 0.25, abs=0.1)
    assert drawn["images_per_cpu_second"] == pytest.approx(len(data) / 2.0, abs=0.1)
    assert (plain["fit_cpu_seconds"], ours["fit_cpu_seconds"]) == (7, None)
    assert ours["auroc"] == pytest.approx(roc_auc_score(abnormal, scores), abs=5e-4)
    assert ours["images_per_cpu_second"] > 0


FAILED = """
import json, sys
from pathlib import Path
(Path(sys.argv[1]) / "failure.json").write_text(json.dumps({"model": "padim", "doing": "learning"}))
raise ValueError("too few features")
"""


@pytest.mark.parametrize(
    ("half", "words"),
    [
        ("raise SystemExit(3)", "code 3 before any model began"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'.*pip install"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        (FAILED, "padim failed while it was learning: ValueError: too few features.*--model"),
    ],
)
def test_a_half_that_fails_is_reported_by_what_failed(
    trained: TrainedWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, half: str, words: str
) -> None:
    monkeypatch.setattr(side_by_side, "_score", lambda *_: {})
    with pytest.raises(ConfigError, match=words):
        measure(trained, monkeypatch, tmp_path / "half.py", half)
    assert not list((trained.settings.workspace / "cache").glob(".anomalib-*"))


def test_runs_of_other_normals_are_refused(tmp_path: Path) -> None:
    folders = [RunFolder(tmp_path / name) for name in "ab"]
    for folder in folders:
        folder.path.mkdir()
        folder.write("data.json", {"train": {"sha256": folder.run_id}})
    with pytest.raises(ConfigError, match="other normals"):
        side_by_side._refuse_other_normals(folders)
