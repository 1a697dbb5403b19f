"""A catalogue on either database, and invented instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.identity.pseudonyms import Ids, Pseudonyms


@pytest.fixture
def catalogue(any_settings: Settings) -> Iterator[Catalogue]:
    with Catalogue.open(any_settings) as opened:
        yield opened


@pytest.fixture
def ids_of() -> Callable[..., Ids]:
    """Pseudonyms of an invented instance: `ids_of(sop, patient=, study=, series=)`."""
    pseudonyms = Pseudonyms(b"\x01" * 32)

    def make(sop: str = "1", patient: str = "P1", study: str = "S1", series: str = "R1") -> Ids:
        identity = RawIdentity(
            patient_id=patient, study_uid=f"1.2.{study}", series_uid=f"1.2.{series}", sop_uid=f"1.2.9.{sop}"
        )
        return pseudonyms.of(identity, "site")

    return make


@pytest.fixture
def attributes() -> InstanceAttributes:
    return InstanceAttributes(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="CT",
        kernel="B30f",
        rows=4,
        columns=4,
        positions=((0.0, 0.0, 1.5),),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.7, 0.7),
    )
