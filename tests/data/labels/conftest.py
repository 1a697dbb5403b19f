"""A catalogue with a handful of invented studies, and a way to write label files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms

Scans = dict[str, Ids]

# Two studies of one person on one day, one other person with an accession number of their own, one multi-frame object.
_SCANS = {
    "a1": ("MRN-1", "1.1", "1.1.1", "1.1.1.1", "ACC-1", "20240105", 1),
    "a2": ("MRN-1", "1.1", "1.1.1", "1.1.1.2", "ACC-1", "20240105", 1),
    "b1": ("MRN-1", "1.2", "1.2.1", "1.2.1.1", "ACC-2", "20240105", 1),
    "c1": ("MRN-2", "2.1", "2.1.1", "2.1.1.1", "ACC-3", "20240301", 1),
    "d1": ("MRN-3", "3.1", "3.1.1", "3.1.1.1", "", "20240401", 3),
}


@pytest.fixture
def scans(settings: Settings) -> Scans:
    """Enter the scans; returns their pseudonyms by short name."""
    ids: Scans = {}
    with (
        Pseudonyms.open(settings) as keys,
        Crosswalk.open(settings) as crosswalk,
        Catalogue.open(settings) as catalogue,
        catalogue.session() as session,
    ):
        for name, (person, study, series, sop, accession, date, frames) in _SCANS.items():
            raw = RawIdentity("", person, study, series, sop, accession, date)
            ids[name] = keys.of(raw, settings.site)
            crosswalk.remember(ids[name], raw)
            attributes = InstanceAttributes(modality="MR", rows=4, columns=6, frames=frames)
            catalogue.add_instance(session, ids[name], attributes, pixel_key=f"{name:0>64}")
    return ids


@pytest.fixture
def catalogue(settings: Settings, scans: Scans) -> Iterator[Catalogue]:
    """The filled catalogue."""
    with Catalogue.open(settings) as opened:
        yield opened


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a label file from text lines."""

    def write(*lines: str, encoding: str = "utf-8", end: str = "\n", name: str = "labels.csv") -> Path:
        path = tmp_path / "table" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((end.join(lines) + end).encode(encoding))
        return path

    return write
