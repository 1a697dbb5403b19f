"""Fixtures of the wrap tests: a manifest writer, a reader of wrapped files, and dciodvfy."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import DecodedInstance, read_instance
from pipeline.dicom.wrap.wrap import WrapReport

Row = Mapping[str, object]


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as `data/manifest.csv` beside the files of a test."""

    def write(rows: Sequence[Row]) -> Path:
        path = tmp_path / "data" / "manifest.csv"
        path.parent.mkdir(exist_ok=True)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the manifest."""
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def instances() -> Callable[[WrapReport], list[DecodedInstance]]:
    """All wrapped instances, read by the project's own reader in the order of the rows."""
    return lambda report: [read_instance(path, DecodeLimits()) for path in sorted(report.dicom.rglob("*.dcm"))]


@pytest.fixture
def physical() -> Callable[[DecodedInstance], np.ndarray]:
    """Numbers after the rescale, as the rest of the pipeline sees them."""
    return lambda instance: to_physical(instance.stored, instance.attributes).pixels


@pytest.fixture
def table() -> Callable[[WrapReport], list[dict[str, str]]]:
    """Rows of the label table."""

    def read(report: WrapReport) -> list[dict[str, str]]:
        with report.labels_csv.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    return read
