"""Originals of every modality, a finding to describe, and a scoring run to push."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

pytest.importorskip("highdicom", reason="highdicom (extra `pacs`) is not installed")

from pipeline.dicom.export.described import Described, SourceImage
from pipeline.dicom.phantom.folder import write_phantoms

AT = datetime(2026, 1, 2, 3, 4, 5)


@pytest.fixture(scope="session")
def described() -> Described:
    """A finding as a scoring run describes it."""
    return Described(
        key="score-1/abc/1",
        route="ct-chest",
        score=1.53125,
        p_value=0.004,
        words="more unusual than 99.6 % of 250 normal scans",
        guarantee="conformal",
        rule="fpr 0.01",
        model="ae on ct-chest",
        version="3, sha256 0123456789ab",
        software="0.1.0",
        at=AT,
        pixel_threshold=0.5,
        pixel_alpha=0.01,
    )


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[SourceImage]]:
    """Return the slices of one phantom of a modality, each with a heatmap that is 1 in a rectangle."""

    def read(modality: str) -> list[SourceImage]:
        folder = tmp_path_factory.mktemp(modality)
        slices = 3 if modality in ("CT", "MR") else 1
        manifest = write_phantoms(folder, 1, modality, 1, 1, slices=slices, syntaxes=(ExplicitVRLittleEndian,))
        images = []
        for file in manifest.files:
            ds = dcmread(file.path)
            heatmap = np.zeros((ds.Rows, ds.Columns), np.float32)
            heatmap[20:30, 20:40] = 1
            images.append(SourceImage(ds, 0, heatmap))
        return images

    return read


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Folder for pushed files."""
    return tmp_path / "outbox"
