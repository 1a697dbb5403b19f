"""The detector as an MLflow pyfunc, loaded by MLflow *from this file's code*, for consumers that use only MLflow.

Input: one row per image file, with `dicom` (base64 of a DICOM file's bytes) or `path`, and optionally `scan`: rows that
share it are the files of one series and are scored together, since MR normalisation needs the whole series.
Output: one row per scan, in order of first appearance. `path` is read only in-process and below NIGHTREAD_PATH_ROOT:
a scoring server must never open files named by a client.

Scores are those of the detector in process: within 1e-5 of the score in fp32 with the same number of threads, and
within `BF16_TOLERANCE` of it if the detector's `precision` is bf16, whose numbers have 8 significant bits.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import mlflow
import pandas as pd

from pipeline.config import DecodeLimits
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import ArtefactError, ConfigError, NightreadError, Rejected, RejectionCode

SERVERS = frozenset({"mlflow.pyfunc.scoring_server.app", "mlflow.pyfunc.stdin_server", "mlserver"})
BF16_TOLERANCE = 1e-2  # relative
LARGEST_REQUEST_BYTES = 512 * 2**20


class ServedDetector(mlflow.pyfunc.PythonModel):
    """Scores DICOM files with the detector in the artefact; one bad file gives an error row, never a failed request."""

    def load_context(self, context: Any) -> None:
        """Load the detector; its SHA-256 must be the registered one."""
        from pipeline.detection.stored_detector import load_detector

        expected = (context.model_config or {}).get("sha256")
        if not expected:
            raise ArtefactError("The model has no SHA-256 of its detector. Use the registered model unchanged.")
        self.detector = load_detector(Path(context.artifacts["detector"]), sha256=expected)
        for method in self.detector.methods:
            method.eval()  # permanently: requests run in threads, and no thread may change the mode for another
        # A client's file may crash a decoder but must not crash the server. The worker lives as long as the server.
        self._workers = DecodeWorkers(1, DecodeLimits()).__enter__()
        atexit.register(self._workers.__exit__, None, None, None)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score the rows; see the module's docstring for columns."""
        frame = model_input.reset_index(drop=True)
        scans = frame["scan"].fillna("") if "scan" in frame else pd.Series([""] * len(frame))
        keys = [name or f"row {row}" for row, name in scans.items()]
        rows = [self._scan(group) for _, group in frame.groupby(pd.Series(keys), sort=False)]
        return pd.DataFrame(rows, columns=["score", "p_value", "n_calibration", "error"])

    def _scan(self, rows: pd.DataFrame) -> dict[str, Any]:
        from pipeline.detection.score_files import score_files

        try:
            with tempfile.TemporaryDirectory(prefix="nightread-") as folder:
                files = [
                    _file_of(row, Path(folder), number) for number, row in enumerate(cast(Any, rows.to_dict("records")))
                ]
                result = score_files(self.detector, files, workers=self._workers)
        except NightreadError as error:
            return _failed(str(error))
        except Exception as error:  # one bad file must not affect the other rows of the request
            return _failed(f"The scan cannot be scored ({type(error).__name__}). Check the file.")
        p_value = float("nan") if result.p_value is None else result.p_value
        return {"score": result.score, "p_value": p_value, "n_calibration": result.n_calibration, "error": ""}


def _failed(sentence: str) -> dict[str, Any]:
    return {"score": float("nan"), "p_value": float("nan"), "n_calibration": 0, "error": sentence}


def _file_of(row: dict[str, Any], folder: Path, number: int) -> Path:
    dicom, path = row.get("dicom"), row.get("path")
    if isinstance(dicom, str) and dicom:
        return _written(dicom, folder / f"{number}.dcm")
    if isinstance(path, str) and path:
        return _allowed(Path(path))
    raise ConfigError("The row has neither `dicom` (base64 of a DICOM file) nor `path`. Give one of them.")


def _written(text: str, target: Path) -> Path:
    if len(text) * 3 // 4 > LARGEST_REQUEST_BYTES:
        raise Rejected(
            RejectionCode.FILE_TOO_LARGE,
            f"The file in the request is larger than {LARGEST_REQUEST_BYTES >> 20} MiB. Send a smaller file.",
        )
    try:
        target.write_bytes(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise Rejected(RejectionCode.NOT_DICOM, "`dicom` is not base64. Send base64 of the file's bytes.") from None
    return target


def _allowed(path: Path) -> Path:
    root = os.environ.get("NIGHTREAD_PATH_ROOT")
    if not SERVERS.isdisjoint(sys.modules):
        raise ConfigError("A scoring server does not accept paths. Send the file's bytes as base64 in `dicom`.")
    if not root:
        raise ConfigError("Paths are allowed only below the folder NIGHTREAD_PATH_ROOT. Set that variable.")
    resolved = path.resolve()
    if not resolved.is_relative_to(Path(root).resolve()):
        raise ConfigError("The path is outside NIGHTREAD_PATH_ROOT. Move the file into it, or send its bytes.")
    return resolved


mlflow.models.set_model(ServedDetector())
