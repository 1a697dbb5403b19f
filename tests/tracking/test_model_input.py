"""Input that the model refuses: paths of strangers, invalid files; one bad row does not affect the others."""

from __future__ import annotations

import base64
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pandas as pd
import pytest

URI = "models:/nightread-phantom-mr@champion"


@pytest.fixture(scope="module")
def model(tracked: Any) -> Any:
    """The champion, loaded in this process."""
    return mlflow.pyfunc.load_model(URI)


def error_of(model: Any, **row: str) -> str:
    answer = model.predict(pd.DataFrame([row]))
    assert math.isnan(answer["score"][0])
    assert math.isnan(answer["p_value"][0])
    return str(answer["error"][0])


def test_a_path_beneath_the_root_is_read(
    model: Any, files: list[Path], expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTREAD_PATH_ROOT", str(files[0].parents[1]))
    answer = model.predict(pd.DataFrame({"path": [str(file) for file in files]}))
    assert answer["score"].tolist() == pytest.approx(expected, rel=1e-6)


def test_paths_are_refused_without_a_root(model: Any, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTREAD_PATH_ROOT", raising=False)
    assert "NIGHTREAD_PATH_ROOT" in error_of(model, path=str(files[0]))


@pytest.mark.parametrize("escape", ["dots", "link to the file", "link to the folder", "prefix", "absolute"])
def test_a_path_cannot_escape_the_root(
    model: Any, files: list[Path], escape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (tmp_path / "rootless").mkdir()
    target = tmp_path / "rootless" / "scan.dcm"
    target.write_bytes(files[0].read_bytes())
    (root / "file.dcm").symlink_to(target)
    (root / "folder").symlink_to(target.parent)
    paths = {
        "dots": root / "inner" / ".." / ".." / "rootless" / "scan.dcm",
        "link to the file": root / "file.dcm",
        "link to the folder": root / "folder" / "scan.dcm",
        "prefix": target,  # /…/rootless begins with the letters of /…/root
        "absolute": files[0],
    }
    monkeypatch.setenv("NIGHTREAD_PATH_ROOT", str(root))
    sentence = error_of(model, path=str(paths[escape]))
    assert "outside NIGHTREAD_PATH_ROOT" in sentence
    assert str(tmp_path) not in sentence


@pytest.mark.parametrize("server", ["mlflow.pyfunc.scoring_server.app", "mlflow.pyfunc.stdin_server", "mlserver"])
def test_a_server_takes_no_path_even_beneath_the_root(
    model: Any, files: list[Path], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTREAD_PATH_ROOT", str(files[0].parent))
    monkeypatch.setitem(sys.modules, server, ModuleType(server))
    assert "does not accept paths" in error_of(model, path=str(files[0]))


def test_one_bad_file_costs_no_other_its_answer(model: Any, encoded: list[str], expected: list[float]) -> None:
    whole = base64.b64decode(encoded[1])
    rows = [
        encoded[0],
        "not base64 at all!",
        base64.b64encode(b"no DICOM").decode(),
        base64.b64encode(whole[: len(whole) // 2]).decode(),
        encoded[1],
    ]
    answer = model.predict(pd.DataFrame({"dicom": rows}))
    assert [bool(error) for error in answer["error"]] == [False, True, True, True, False]
    good = answer["score"][answer["error"] == ""].tolist()
    assert good == pytest.approx(expected[:2], rel=1e-6)


def test_an_empty_row_says_what_is_missing(model: Any) -> None:
    assert "neither `dicom`" in error_of(model, scan="a")


def test_a_missing_file_is_an_error_row(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_PATH_ROOT", str(tmp_path))
    sentence = error_of(model, path=str(tmp_path / "Doe^Jane.dcm"))
    assert "Doe" not in sentence


def test_an_unforeseen_error_gives_an_error_row_without_its_text(
    model: Any, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("Doe^Jane")

    monkeypatch.setattr("pipeline.detection.score_files.score_files", broken)
    sentence = error_of(model, dicom=encoded[0])
    assert "KeyError" in sentence
    assert "Doe" not in sentence


def test_requests_at_the_same_time_do_not_touch_each_other(
    model: Any, encoded: list[str], expected: list[float]
) -> None:
    # The scoring server answers every request in a thread of its own.
    def score(turn: int) -> float:
        return float(model.predict(pd.DataFrame({"dicom": [encoded[turn % 3]]}))["score"][0])

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(score, range(24)))
    assert answers == pytest.approx([expected[turn % 3] for turn in range(24)], rel=1e-6)


def test_no_copy_of_a_request_stays_on_disk(
    model: Any, encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model.predict(pd.DataFrame({"dicom": [encoded[0], "broken"]}))
    assert list(tmp_path.iterdir()) == []
