"""The words of a description, by what is around them: maps and scouts are recognised, anatomy stays anatomy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from pipeline.config import DecodeLimits
from pipeline.data.sets.series_kind import kind_of
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.content import content_of
from pipeline.dicom.decode.quantity_units import is_hounsfield, is_quantity
from pipeline.dicom.decode.read import read_header
from pipeline.dicom.decode.vocabulary import tokens_of

ACQUIRED = ("ORIGINAL", "PRIMARY")


def content(modality: str, description: str = "", *types: str) -> str:
    return content_of(
        InstanceAttributes(modality=modality, image_type=(*ACQUIRED, *types), description=tokens_of(description))
    )


# fmt: off
ANATOMY = {
    "MR": [
        "arterial phase images", "Hepatobiliary phase image", "opposed phase images", "In Phase Image", "art_pha",
        "late portal venous phase images", "Phase arterielle", "T2 SAG NECK STIFFNESS", "DTI FA 90", "T1 SE FA 70",
        "BRAIN MAP TRIAL T2 FLAIR (MS)", "T1 map study MPRAGE", "HEADC-", "T1 HEADC+", "FLAIR pilot trial",
        "T1 MPRAGE STEALTH LOCALIZATION", "PC MRV VENC 15", "TOF time to 5 min", "T2* GRE", "cor T2 (MS)",
        "T1 double dose", "DWI 1000 (s/mm2)", "t1_mpr_sag", "MAP kinase T2", "T2 Karteikarte 3 Kopf", "動脈優位相",
        "Т2 сагиттальная", "T2 cor in 3 planes",
        "dolor localizado T2", "lésion localisée foie", "lokalisierter Schmerz LWS", "Tumorlokalisation T1 KM",
        "localizzazione lesione T1", "masse localizada axial", "topographie tumorale T1",
    ],
    "CT": [
        "SANS IODE", "AVEC IODE", "KM Jod 300", "CON YODO", "IODINE ALLERGY", "abdomen apres iode", "Iode 350",
        "HEADC", "HEAD TRAUMA LOC", "MYELOMA SURVEY", "MS PILOT STUDY", "Head stereotactic localization",
        "Low Dose 1.0 Br58", "dose modulation", "Cal Score 3mm", "venous mono", "SUB 5mm",
        "100ml Iodine", "Thorax 80 ml Jod", "CTA after timing bolus", "map reading accident", "therapy monitoring",
        "low dose protocol chest", "碘造影 腹部", "胸部平扫", "vue coronale", "foyer localisé",
        "IOD-haltiges KM Abdomen", "topographie sinus",
    ],
    "DX": ["BONE SURVEY SKULL LAT", "KUB SCOUT", "CHEST LOC TRAUMA", "CHEST PA PILOT", "BREAST LOCALIZATION",
           "CHEST LOW DOSE PA"],
}
NAMED = {
    ("MR", "map"): [
        "FA: Ax DTI", "Fractional Aniso.", "R2*: Ax IDEAL IQ", "FatFrac: Ax IDEAL", "Cerebral Blood Flow", "T2*Map",
        "FACT_R2star", "T1rho map", "T2_Star_Map", "Time to Peak", "T1 (ms) map", "Carte ADC", "T2-Karte Knie",
        "Stiffness (kPa)", "dADC", "isoADC", "MD: Ax DTI", "z-score map", "T1 relaxation map ms", "mapa T2*",
        "Parameterkarte", "Diffusivité moyenne", "FA color", "Fraction grasse", "R2* (1/s)", "MRE wave", "B1マップ",
        "карта ИКД", "SWI tissue map cor",
    ],
    ("MR", "phase"): [
        "SWI_Phase", "Phase: Ax SWAN", "Phasenbilder", "Image de phase", "Carte de phase", "Imagen de fase",
        "Pha_Images", "FILT_PHA: Ax SWAN", "Filtered phase axial", "SWI phase mask", "位相画像",
    ],
    ("MR", "localiser"): [
        "Locator", "Plan Scan", "CoilSurvey", "Pilote", "Plans de repere", "Uebersichtsaufnahme", "3Plane Loc",
        "Localisation", "Overzicht", "Survey", "Localisation en 3 plans", "Planungssequenz", "Posizionamento",
        "스카우트",
    ],
    ("CT", "localiser"): [
        "Mode radio", "Radio de centrage", "Planungsaufnahme", "Übersichtsradiogramm", "Pilot", "PreMonitoring 10.0",
        "SmartPrep Series", "Test bolus", "定位像", "Topogramme", "Topograma lat", "Localizador",
    ],
    ("CT", "spectral"): [
        "Mono 55", "Mono+ 40", "HAP(Water)", "GSI VUE", "Z effectif", "virtuell nativ", "Iodine no Water", "IODINE",
        "Carte d'iode", "Mappa iodio", "Elektronendichte", "Harnsäure", "70keV", "Ax VUE",
    ],
    ("CT", "map"): ["Blood Volume", "Mean Transit Time", "Tmax", "Débit sanguin"],
}
TYPES = {
    ("MR", "map"): [
        "T2_STAR_UNSPECIF", "T2_STAR", "R2_UNSPECIFIED", "T1_UNSPECIFIED", "STIFFNESS_MAP", "ADC_MAP", "CBV_MAP",
        "AVERAGE DC", "MTR", "T1RHO", "FAT FRACTION MAP", "EXPONENTIAL ADC",
        "WATERFRACTION",
    ],
    ("CT", "spectral"): ["IODINEMAP", "ZEFF_MAP", "DE_VNC", "MONO_70KEV", "VMI_40", "LUNGPBV", "SPECTRAL",
                           "DET_IODINE"],
    ("CT", "map"): ["PERFUSION", "DET_MTT"],
    ("CT", "localiser"): ["TOPO512", "DUALSCOUT", "SCOUT_AP", "CT_SOM5 TOP"],
    ("MR", ""): ["M_SE", "T2_SE", "W_UNSPECIFIED", "PERFUSION", "TENSOR_B0", "PHASE_CORR"],
    ("CT", ""): ["PLANNING"],
}
# fmt: on


@pytest.mark.parametrize(("modality", "words"), [(one, words) for one, rows in ANATOMY.items() for words in rows])
def test_a_description_of_anatomy(modality: str, words: str) -> None:
    attributes = InstanceAttributes(modality=modality, image_type=ACQUIRED, description=tokens_of(words))
    assert (content_of(attributes), kind_of(attributes).value) == ("", "primary")


@pytest.mark.parametrize(
    ("modality", "expected", "words"), [(*key, words) for key, rows in NAMED.items() for words in rows]
)
def test_a_description_of_another_content(modality: str, expected: str, words: str) -> None:
    assert content(modality, words) == expected


@pytest.mark.parametrize(
    ("modality", "expected", "value"), [(*key, value) for key, rows in TYPES.items() for value in rows]
)
def test_image_type_is_read_by_words(modality: str, expected: str, value: str) -> None:
    assert content(modality, "", value) == expected


def test_a_type_means_something_else_beside_another() -> None:
    assert content("MR", "", "DWI", "B0") == "" and content("MR", "", "B0") == "phase"
    assert content("CT", "", "CT_SOM5 SPI", "WATER") == "" and content("CT", "", "CT_SOM5 SPI DUAL", "WATER")


QUANTITIES = [
    "msec", "sec", "s^-1", "1/sec", "mm2.s-1", "mm^2 s^-1", "10E-6 mm**2/s", "um2/ms", "ml/min/g", "mL/min/(100.g)",
    "percent", "[%]", "cm/sec", "min^-1", "Pa", "mg/g", "°C", "degrees C", "[ppm]", "{ratio}", "milliseconds",
]  # fmt: skip


@pytest.mark.parametrize("unit", QUANTITIES)
def test_a_unit_of_a_quantity(unit: str) -> None:
    assert is_quantity(unit)


@pytest.mark.parametrize("unit", ["", "US", "normalized", "PEAK", "HU", "1", "s/mm2"])
def test_a_unit_of_a_signal(unit: str) -> None:
    assert not is_quantity(unit)


@pytest.mark.parametrize("unit", ["hu", "[HU]", "HOUNSFIELD_UNITS", "Unspecified", "H.U.", "NONE", "[hnsf'U]", ""])
def test_hounsfield_units_in_any_spelling(unit: str) -> None:
    assert is_hounsfield(unit)


def test_other_ct_units() -> None:
    assert not any(map(is_hounsfield, ("mg/ml", "HU_MOD", "%", "EDW", "Z_EFF")))


@pytest.mark.parametrize(
    ("words", "conversion", "kind"),
    [
        ("Dose Report", "", "dose"),
        ("Dosisprotokoll", "", "dose"),
        ("Informe de dosis", "", "dose"),
        ("剂量报告", "", "dose"),
        ("Screenshot 1", "", "derived"),
        ("Screen save", "", "derived"),
        ("SENSE ref scan", "", "phantom"),
        ("Patient Protocol", "WSD", "dose"),
        ("CT dose", "WSD", "dose"),
        ("x", "WSD", "secondary"),
    ],
)
def test_a_dose_report_is_named_or_captured(words: str, conversion: str, kind: str) -> None:
    attributes = InstanceAttributes(modality="CT", conversion_type=conversion, description=tokens_of(words))
    assert kind_of(attributes).value == kind


@pytest.fixture
def read(make_dataset: Callable[..., Dataset], write_dataset: Callable[..., Path]) -> Callable[..., InstanceAttributes]:
    def go(modality: str, *types: str, private: Any = None, **more: Any) -> InstanceAttributes:
        plain = {"SOPClassUID": MRImageStorage} if modality == "MR" else {"RescaleSlope": 1, "RescaleIntercept": -1024}
        values = {**plain, "ImageType": [*ACQUIRED, *types], "SeriesDescription": "x", **more}
        ds = make_dataset(np.zeros((4, 4), np.int16), Modality=modality, **values)
        if private:
            group, creator, element, vr, value = private
            ds.private_block(group, creator, create=True).add_new(element, vr, value)
        return read_header(write_dataset(ds), DecodeLimits())[1]

    return go


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize(
    "protocol",
    ["LIVER ELASTOGRAPHY", "CARDIAC T1 MAPPING", "PROSTATE KTRANS", "DE_Head_VNC", "STROKE CBF", "BRAIN LOC"],
)
def test_a_protocol_decides_nothing_beside_a_description(
    modality: str, protocol: str, read: Callable[..., InstanceAttributes]
) -> None:
    assert read(modality, "AXIAL", ProtocolName=protocol, SeriesDescription="Ax T2").content == ""


def test_a_protocol_alone_names_a_series_but_on_ge_the_examination(read: Callable[..., InstanceAttributes]) -> None:
    alone = {"SeriesDescription": "", "ProtocolName": "T2 map"}
    assert read("MR", "M", Manufacturer="SIEMENS", **alone).content == "map"
    assert read("MR", "M", Manufacturer="GE MEDICAL SYSTEMS", **alone).content == ""


def test_inversion_recovery_with_its_sign_is_anatomy(read: Callable[..., InstanceAttributes]) -> None:
    assert read("MR", "R_IR", "R", "IR", ComplexImageComponent="REAL").content == ""
    assert read("MR", "P_IR", "P", "IR").content == "phase"
    assert read("MR", "R_SE", "R", "SE", ComplexImageComponent="REAL").content == "phase"
    real = (0x43, "GEMS_PARM_01", 0x2F, "SS", 2)
    assert read("MR", "OTHER", private=real, SeriesDescription="PSMDE SAX").content == ""
    assert read("MR", "OTHER", private=real).content == "phase"


def test_an_upright_ct_with_a_name_is_not_a_scout(read: Callable[..., InstanceAttributes]) -> None:
    upright = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    assert read("CT", SeriesDescription="Cor facial bones", **upright).content == ""
    assert read("CT", SeriesDescription="", **upright).content == "localiser"


@pytest.mark.parametrize(
    ("modality", "value", "patient", "expected"),
    [
        ("MR", "MOSAIC", "MOSAIC-012", "mosaic"),
        ("CT", "LOCALIZER", "LOCALIZER TEST", "localiser"),
        ("CT", "MAT_SPECIFIC", "MAT_7", "spectral"),
        ("MR", "PHASE MAP", "PHASE-2-TRIAL", "phase"),
        ("MR", "ADC", "ADC_004", "map"),
    ],
)
def test_a_patient_with_the_name_of_a_code(
    modality: str, value: str, patient: str, expected: str, read: Callable[..., InstanceAttributes]
) -> None:
    attributes = read(modality, value, PatientID=patient)
    assert (attributes.content, value in attributes.image_type) == (expected, True)
    assert "SCOUTEN" not in read(modality, value, "SCOUTEN", PatientName="SCOUTEN^ANNA").image_type
    assert "JONES" not in read(modality, value, "JONES", PatientID=f"JONES {patient}").image_type


@pytest.mark.parametrize("half", [{"RescaleIntercept": None}, {"RescaleSlope": None}])
def test_half_a_rescale_of_ct_is_not_one(half: dict[str, Any], read: Callable[..., InstanceAttributes]) -> None:
    assert read("CT", "AXIAL", **half).content == "unscaled"
    assert read("CT", "AXIAL").content == ""
