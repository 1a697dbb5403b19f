"""The meaning of the values of CT and MR images: localisers, maps, phase, mosaics, unscaled CT, in any words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, ImplicitVRLittleEndian, MRImageStorage

from pipeline.config import DecodeLimits
from pipeline.data.catalogue.content_hash import shared_attributes
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.read import read_header
from pipeline.dicom.decode.vocabulary import tokens_of

PIXELS = np.zeros((4, 4), np.int16)
HU = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
FIRST = ["ORIGINAL", "PRIMARY"]


@pytest.fixture
def content(make_dataset: Callable[..., Dataset], write_dataset: Callable[..., Path]) -> Callable[..., str]:
    """Write an image with attributes, read its header, and return its content."""

    def go(modality: str = "CT", syntax: str = "1.2.840.10008.1.2.1", private: Any = None, **attributes: Any) -> str:
        base = dict(HU) if modality == "CT" else {"SOPClassUID": MRImageStorage}
        values = {**base, "ImageType": [*FIRST, "AXIAL" if modality == "CT" else "M"], **attributes}
        ds = make_dataset(PIXELS, Modality=modality, **{k: v for k, v in values.items() if v is not None})
        for group, creator, element, vr, value in [private] if private else ():
            ds.private_block(group, creator, create=True).add_new(element, vr, value)
        return read_header(write_dataset(ds, syntax=syntax), DecodeLimits())[1].content

    return go


def codes(sequence: str, code: str, **more: Any) -> dict[str, list[Dataset]]:
    item, inner = Dataset(), Dataset()
    inner.CodeValue = code
    setattr(item, sequence, [inner])
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return {"RealWorldValueMappingSequence": [item]}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ""),
        ({"RescaleType": None}, ""),
        ({"RescaleType": "US"}, ""),
        ({"RescaleType": "MGML"}, "spectral"),
        ({"RescaleType": "mg/ml"}, "spectral"),
        ({"RescaleType": "Z_EFF"}, "spectral"),
        ({"RescaleType": "HU_MOD"}, "spectral"),
        ({"RescaleType": "ED"}, "spectral"),
        ({"ImageType": [*FIRST, "AXIAL", "MAT_SPECIFIC"]}, "spectral"),
        ({"ImageType": [*FIRST, "AXIAL", "VMI"]}, "spectral"),
        ({"MonoenergeticEnergyEquivalent": 40.0}, "spectral"),
        ({"SeriesDescription": "Kopf Jodkarte 1.0"}, "spectral"),
        ({"SeriesDescription": "Electron Density"}, "spectral"),
        ({"SeriesDescription": "Mono+ 40keV head"}, "spectral"),
        (codes("MeasurementUnitsCodeSequence", "mg/cm3"), "spectral"),
        (codes("MeasurementUnitsCodeSequence", "[hnsf'U]"), ""),
        ({"ImageType": [*FIRST, "SURVIEW"]}, "localiser"),
        ({"ImageType": [*FIRST, "SCOUT VIEW"]}, "localiser"),
        ({"ImageType": [*FIRST, "SCANOSCOPE"]}, "localiser"),
        ({"SeriesDescription": "Topogramm 0.6 T20f"}, "localiser"),
        ({"SeriesDescription": "Übersicht"}, "localiser"),
        ({"SeriesDescription": "Repérage tête"}, "localiser"),
        ({"ImageType": [*FIRST, "OTHER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "localiser"),
        ({"ImageType": [*FIRST, "AXIAL"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, ""),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "unscaled"),
        ({"RescaleIntercept": 0, "PixelRepresentation": 0}, "unscaled"),
        ({"RescaleSlope": 1000, "RescaleIntercept": -1024}, "unscaled"),
        ({"RescaleSlope": 1e-6, "RescaleIntercept": -1024}, "unscaled"),
        ({"RescaleIntercept": -1e6}, "unscaled"),
        ({"RescaleSlope": 10, "RescaleIntercept": -10240}, ""),
        ({"RescaleIntercept": 0}, ""),
        ({"ImageType": ["DERIVED", "PRIMARY", "CBF"]}, "map"),
    ],
)  # fmt: skip
def test_ct(attributes: dict[str, Any], expected: str, content: Callable[..., str]) -> None:
    assert content("CT", **attributes) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, ""),
        ({"ImageType": [*FIRST, "M_SE", "M", "SE"]}, ""),
        ({"ImageType": [*FIRST, "R_IR", "R", "IR"]}, ""),
        ({"SeriesDescription": "T1 VIBE arterial phase"}, ""),
        ({"RescaleType": "US", "RescaleSlope": 2}, ""),
        ({"ImageType": [*FIRST, "P", "ND"]}, "phase"),
        ({"ImageType": [*FIRST, "PHASE MAP", "P", "FFE"]}, "phase"),
        ({"ImageType": [*FIRST, "I"]}, "phase"),
        ({"ImageType": ["DERIVED", "PRIMARY", "VELOCITY MAP", "PCA"]}, "phase"),
        ({"ComplexImageComponent": "PHASE"}, "phase"),
        ({"SeriesDescription": "Pha_Images"}, "phase"),
        ({"SeriesDescription": "gre_field_mapping"}, "phase"),
        ({"private": (0x43, "GEMS_PARM_01", 0x2F, "SS", 1)}, "phase"),
        ({"private": (0x43, "GEMS_PARM_01", 0x2F, "SS", 0)}, ""),
        ({"private": (0x43, "GEMS_PARM_01", 0x2F, "SS", 1), "syntax": ImplicitVRLittleEndian}, "phase"),
        ({"ImageType": [*FIRST, "M", "ND", "MOSAIC"]}, "mosaic"),
        ({"private": (0x19, "SIEMENS MR HEADER", 0x0A, "US", 36)}, "mosaic"),
        ({"ImageType": [*FIRST, "ADC", "UNSPECIFIED"]}, "map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T2 MAP"]}, "map"),
        ({"SeriesDescription": "T2_map"}, "map"),
        ({"SeriesDescription": "ep2d_ADC"}, "map"),
        ({"RescaleType": "mm2/s"}, "map"),
        ({"RescaleType": "10^-6 mm2/s"}, "map"),
        ({"RescaleType": "10^-3 mm^2/s"}, "map"),
        ({"RescaleType": "ml / 100g / min"}, "map"),
        ({"SeriesDescription": "dADC Map (mm2/s)"}, "map"),
        ({"SeriesDescription": "Diffusion 10-6 mm²/s"}, "map"),
        ({"SeriesDescription": "Perfusion map (ml/100g/min)"}, "map"),
        ({"SeriesDescription": "IVIM f"}, "map"),
        ({"SeriesDescription": "rADC"}, "map"),
        ({"SeriesDescription": "ADC", "ProtocolName": "ep2d_diff_b1000"}, "map"),
        ({"SeriesDescription": "ep2d_diff_b1000_ADC", "ProtocolName": "ep2d_diff_b1000"}, "map"),
        ({"SeriesDescription": "DWI ADC b1000 (s/mm2)", "ProtocolName": "DWI ADC"}, ""),
        ({"SeriesDescription": "ep2d_diff_ADC", "ProtocolName": "ep2d_diff_ADC"}, ""),
        ({"SeriesDescription": "IVIM 16b (axial)", "ProtocolName": "DWIADC"}, ""),
        (codes("MeasurementUnitsCodeSequence", "um2/s"), "map"),
        (codes("MeasurementUnitsCodeSequence", "1"), ""),
        ({"SOPClassUID": EnhancedMRImageStorage, "ImageType": ["DERIVED", "PRIMARY", "VOLUME", "T1"]}, "map"),
    ],
)  # fmt: skip
def test_mr(attributes: dict[str, Any], expected: str, content: Callable[..., str]) -> None:
    private = attributes.pop("private", None) if "private" in attributes else None
    assert content("MR", private=private and [private][0], **attributes) == expected


def test_frames_of_an_enhanced_image_decide_together(content: Callable[..., str]) -> None:
    def frames(*types: str) -> list[Dataset]:
        groups = []
        for frame_type in types:
            group, item = Dataset(), Dataset()
            item.FrameType = [*FIRST, "VOLUME", frame_type]
            group.MRImageFrameTypeSequence = [item]
            groups.append(group)
        return groups

    enhanced = {"SOPClassUID": EnhancedMRImageStorage, "ImageType": [*FIRST, "VOLUME", "MIXED"]}
    for types, expected in ((("NONE",), ""), (("ADC",), "map")):
        assert content("MR", **enhanced, PerFrameFunctionalGroupsSequence=frames(*types)) == expected
    two = {"NumberOfFrames": 2, "PixelData": bytes(64), "PerFrameFunctionalGroupsSequence": frames("NONE", "ADC")}
    assert content("MR", **enhanced, **two) == "mixed"


def test_a_radiograph_is_none_of_these(content: Callable[..., str]) -> None:
    assert content("DX", ImageType=["DERIVED", "PRIMARY", "P"]) == ""


def test_one_odd_image_makes_a_series_mixed() -> None:
    plain = InstanceAttributes(modality="CT").to_json()
    scout = InstanceAttributes(modality="CT", content="localiser").to_json()
    assert shared_attributes(scout, scout)["content"] == "localiser"
    mixed = shared_attributes(plain, scout)
    assert mixed["content"] == "mixed" == shared_attributes(mixed, scout)["content"]
    assert "content" not in shared_attributes(plain, plain)


def test_no_free_text_passes_as_a_token() -> None:
    assert tokens_of("Scoutler, Anna; arterial phase map of IODINE") == ("ARTERIAL", "PHASE", "SCOUT", "SPECTRAL")


def test_the_weighting_of_an_image_type_joins_its_description(
    make_dataset: Callable[..., Dataset], write_dataset: Callable[..., Path]
) -> None:
    ds = make_dataset(PIXELS, Modality="MR", SOPClassUID=MRImageStorage, SeriesDescription="head ax")
    for changes, tokens in (
        ({"ImageType": [*FIRST, "DIFFUSION", "TRACEW"]}, ("AX", "DWI", "HEAD")),
        ({"ImageType": [*FIRST, "M"], "DiffusionBValue": 1000.0}, ("AX", "DWI", "HEAD")),
        ({"DiffusionBValue": 0.0}, ("AX", "HEAD")),
    ):
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        assert read_header(write_dataset(ds), DecodeLimits())[1].description == tokens
