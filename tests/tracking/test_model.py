"""The registered model in other hands: a process that has our dependencies, and neither our code nor our data."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError

URI = "models:/nightread-phantom-mr@champion"
LOAD = """
import json, sys
import mlflow, pandas as pd
assert not any('nightread' in place for place in sys.path), sys.path
try:
    import pipeline
except ModuleNotFoundError:
    pass
else:
    raise SystemExit('the checkout is visible')
frame = pd.DataFrame({'dicom': json.load(open(sys.argv[1]))})
model = mlflow.pyfunc.load_model('models:/nightread-phantom-mr@champion')
rows = model.predict(frame).to_dict('list')
import pipeline
rows['code'] = pipeline.__file__
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def elsewhere(run_stranger: Any, encoded: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answer that a stranger got from the champion."""
    request = tmp_path_factory.mktemp("request") / "files.json"
    request.write_text(json.dumps(encoded))
    return dict(json.loads(run_stranger(LOAD, str(request)).splitlines()[-1]))


def test_a_stranger_gets_the_same_scores(elsewhere: dict[str, Any], expected: list[float]) -> None:
    assert elsewhere["score"] == pytest.approx(expected, rel=1e-5)
    assert elsewhere["error"] == [""] * len(expected)
    assert all(0 < p <= 1 for p in elsewhere["p_value"])
    assert min(elsewhere["n_calibration"]) > 0


def test_the_code_came_from_the_artefact(elsewhere: dict[str, Any]) -> None:
    assert "/mlflow/artifacts/" in elsewhere["code"] or "/code/pipeline/" in elsewhere["code"]


def test_it_had_the_pinned_requirements_only(stranger: Path, elsewhere: dict[str, Any]) -> None:
    # Here, but not required by the model: had it been needed, the scores above would be missing.
    there = {entry.name for entry in (next((stranger.parents[1] / "lib").glob("python3*")) / "site-packages").iterdir()}
    assert {"torch", "mlflow", "pydicom"} <= there
    assert not {"prefect", "pytest", "pipeline", "flows", "SimpleITK", "diffusers"} & there
    assert elsewhere["score"]


def test_the_model_says_what_it_takes_and_shows_a_phantom(tracked: Any) -> None:
    model = mlflow.pyfunc.load_model(URI)
    schema = model.metadata.signature
    assert schema.inputs.input_names() == ["dicom", "path", "scan"]
    assert schema.outputs.input_names() == ["score", "p_value", "n_calibration", "error"]
    example = model.input_example
    row = model.predict(example).iloc[0]
    assert row["error"] == ""
    assert math.isfinite(row["score"])


def test_the_weights_are_safetensors_and_nothing_is_a_pickle(tracked: Any) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(URI))
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert "weights.safetensors" in names
    assert not {name for name in names if Path(name).suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}}


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "manifest.json", "detector.json"])
def test_a_changed_byte_is_refused(tracked: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(mlflow.artifacts.download_artifacts(URI), folder)
    file = next(folder.rglob(name))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtefactError):
        mlflow.pyfunc.load_model(str(folder))


def test_another_detector_in_its_place_is_refused(tracked: Any, tmp_path: Path) -> None:
    # Whole and consistent in itself, but not the registered one.
    folder = tmp_path / "model"
    shutil.copytree(mlflow.artifacts.download_artifacts(URI), folder)
    place = next(folder.rglob("detector.json")).parent
    save_detector(place, replace(load_detector(place), seed=99))
    with pytest.raises(ArtefactError, match="requested"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_model_without_a_registered_hash_is_refused(tracked: Any) -> None:
    with pytest.raises(ArtefactError, match="no SHA-256"):
        mlflow.pyfunc.load_model(URI, model_config={"sha256": ""})


def test_rows_of_one_scan_are_scored_together(tracked: Any, files: list[Path], encoded: list[str]) -> None:
    model = mlflow.pyfunc.load_model(URI)
    alone = model.predict(pd.DataFrame({"dicom": encoded[:2]}))
    mixed = model.predict(pd.DataFrame({"dicom": [encoded[1], encoded[0]], "scan": ["b", "a"]}))
    assert mixed["score"].tolist() == pytest.approx(alone["score"].tolist()[::-1], rel=1e-6)
