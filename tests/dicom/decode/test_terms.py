"""Codes of an image are held to defined terms, and what has none loses the words of this patient's name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.persons import clean, personal_words
from pipeline.dicom.decode.read import read_header
from pipeline.dicom.decode.terms import is_body_part, is_view

FIELDS = {
    "ConversionType": "conversion_type",
    "ViewPosition": "view",
    "BodyPartExamined": "body_part",
    "ImageType": "image_type",
    "ConvolutionKernel": "kernel",
    "ManufacturerModelName": "scanner",
    "Manufacturer": "manufacturer",
}
FREE = {"ConvolutionKernel", "ManufacturerModelName", "Manufacturer"}  # PS3.3 defines no terms for these


@pytest.fixture
def read(make_dataset: Callable, write_dataset: Callable) -> Callable:
    """Return the field that a header with some elements gets."""

    def read(keyword: str, value: object, **more: object) -> object:
        ds = make_dataset(np.zeros((4, 4), np.uint8), **{keyword: value}, **more)
        return getattr(read_header(Path(write_dataset(ds)), DecodeLimits())[1], FIELDS[keyword])

    return read


@pytest.mark.parametrize("keyword", FIELDS)
@pytest.mark.parametrize(
    "who", ["PatientName", "OtherPatientNames", "PatientBirthName", "ResponsiblePerson", "NameOfPhysiciansReadingStudy"]
)
def test_a_name_of_this_data_set_passes_nowhere(keyword: str, who: str, read: Callable) -> None:
    value = ["DERIVED", "SECONDARY", "MUELLER"] if keyword == "ImageType" else "MUELLER"
    assert "MUELLER" not in str(read(keyword, value, **{who: "MUELLER^ANNA"}))


@pytest.mark.parametrize("keyword", sorted(FIELDS.keys() - FREE))
def test_a_name_of_anybody_is_not_a_defined_term(keyword: str, read: Callable) -> None:
    value = ["MUELLER", "ANNA", "AXIAL"] if keyword == "ImageType" else "MUELLER"
    assert read(keyword, value) == {"ConversionType": "OT", "ImageType": ("OT", "OT", "AXIAL")}.get(keyword, "")


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("ConversionType", ["WSD", "DI", "SYN"]),
        ("ViewPosition", ["AP", "LL", "MLO", "XCCL", "LATERAL", "AP SUPINE", "OBL LEFT", "LAO"]),
        ("BodyPartExamined", ["HEAD", "CSPINE", "C SPINE", "T12", "ABDOMENPELVIS", "CHEST_ABD_PEL", "WHOLE BODY"]),
        ("BodyPartExamined", ["KOPF", "TETE", "CABEZA", "EXTREMITY", "UP_EXTREMITIES", "HEADNECK", "PROSTATE", "LEG"]),
        ("ImageType", [("ORIGINAL", "PRIMARY", "M_SE", "M"), ("LOCALIZER", "PRIMARY"), ("MIXED", "PRIMARY", "VOLUME")]),
        ("ConvolutionKernel", ["Br40d", "STANDARD", "H31s/3"]),
    ],
)
def test_what_scanners_write_passes(keyword: str, values: list, read: Callable) -> None:
    for value in values:
        assert read(keyword, list(value) if isinstance(value, tuple) else value) == value


@pytest.mark.parametrize("keyword", sorted(FREE | {"ImageType", "BodyPartExamined", "ViewPosition"}))
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LI^NG", "LI NG"),
        ("M\u00dcLLER^ANNA", "MUELLER"),
        ("MUELLER^ANNA", "MULLER"),
        ("S\u00d8RENSEN^\u00c5SE", "SORENSEN"),
        ("MUELLER^ANNA", "MUELLERANNA"),
        ("MUELLER^ANNA", "ANNAMUELLER 2"),
        ("O'BRIEN^PAT", "OBRIEN"),
        ("HAND^ANN", "HAND"),
        ("DUPONT^ARMAND", "ARMAND"),
        ("TAN^LI", "TAN"),
    ],
)
def test_the_patients_own_name_passes_in_no_spelling(keyword: str, name: str, value: str, read: Callable) -> None:
    written = ["ORIGINAL", "PRIMARY", value] if keyword == "ImageType" else value
    more = {"PatientName": name, "SpecificCharacterSet": "ISO_IR 100"}
    assert value not in str(read(keyword, written, **more))


@pytest.mark.parametrize("keyword", sorted(FREE | {"ImageType"}))
@pytest.mark.parametrize(
    "value",
    [
        "BRINKMEYER1",
        "XBRINKMEYER",
        "BRINK MEYER",
        "BRINKM",
        "DRMAIER",
        "KIM7",
        "19700102",
        "02.01.1970",
        "778812",
        "ACC99123",
    ],
)
def test_a_name_or_number_passes_in_no_disguise(keyword: str, value: str, read: Callable) -> None:
    other = Dataset()
    other.PatientID = "KH-778812"
    written = ["ORIGINAL", "PRIMARY", value] if keyword == "ImageType" else value
    more = {"PatientBirthDate": "19700102", "AccessionNumber": "ACC99123", "OtherPatientIDsSequence": [other]}
    assert value not in str(read(keyword, written, PatientName="Brinkmeyer^Kim^Maier", **more))


@pytest.mark.parametrize(
    ("keyword", "value", "name"),
    [
        ("Manufacturer", "Philips", "SMITH^PHILIP"),
        ("Manufacturer", "SIEMENS", "SIEMENSMA^JAN"),
        ("ManufacturerModelName", "MAGNETOM Vida", "BERG^MAGNE"),
        ("ImageType", ("ORIGINAL", "PRIMARY", "NORMALIZED"), "SMITH^NORMA"),
    ],
)
def test_a_product_is_not_a_person_with_a_similar_name(
    keyword: str, value: str | tuple[str, ...], name: str, read: Callable
) -> None:
    written = list(value) if isinstance(value, tuple) else value
    assert read(keyword, written, PatientName=name) == value


def test_a_part_of_the_body_may_begin_a_name(read: Callable) -> None:
    assert read("BodyPartExamined", "CHEST", PatientName="CHESTERTON^GIL") == "CHEST"


@pytest.mark.parametrize(
    ("keyword", "value", "held"),
    [
        ("BodyPartExamined", "CHEST 2 VIEWS", "CHEST"),
        ("BodyPartExamined", "LIVER 3 PHASE", "LIVER"),
        ("BodyPartExamined", "HEAD BRINKMEYER", "HEAD"),
        ("ViewPosition", "PA INSP", "PA"),
        ("ViewPosition", "XU OM", ""),
    ],
)
def test_the_words_of_anatomy_stay_without_the_others(keyword: str, value: str, held: str, read: Callable) -> None:
    assert read(keyword, value) == held


@pytest.mark.parametrize("name", ["HEAD^PHANTOM", "HEAD-001", "HEAD", "BRAIN^TEST", "CT^HEAD", "AP^ANNA"])
def test_a_placeholder_for_a_name_hides_no_anatomy(name: str, read: Callable) -> None:
    assert read("BodyPartExamined", "HEAD", PatientName=name) == "HEAD"
    assert read("ViewPosition", "AP", PatientName=name) == "AP"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    ("value", "held"),
    [
        ("SCOUT MUELLER", "SCOUT"),
        ("LOCALIZ MUELLER", "LOCALIZ"),
        ("SCOUTMUELLER", "LOCALIZER"),
        ("TOPOGRAMM", "TOPOGRAMM"),
        ("MUELLER", "OT"),
    ],
)
def test_the_first_values_of_image_type_hold_no_name(first: int, value: str, held: str, read: Callable) -> None:
    values = ["ORIGINAL", "PRIMARY", "AXIAL"]
    values[first] = value
    assert read("ImageType", values)[first] == held


def person(name: str, keyword: str = "PhysiciansOfRecord") -> Dataset:
    ds = Dataset()
    setattr(ds, keyword, name)
    return ds


@pytest.mark.parametrize(
    "more",
    [
        {"PhysiciansOfRecord": "MUELLER^HANS"},
        {"ConsultingPhysicianName": "M\u00dcLLER^HANS"},
        {"RequestAttributesSequence": [person("MUELLER^HANS", "RequestingPhysician")]},
        {"ContributingEquipmentSequence": [person("MUELLER", "OperatorsName")]},
    ],
)
def test_every_person_of_the_data_set_counts(more: dict, read: Callable) -> None:
    assert read("ManufacturerModelName", "MUELLER", SpecificCharacterSet="ISO_IR 100", **more) == ""
    assert read("ManufacturerModelName", "Ingenia", **more) == "Ingenia"


def test_the_frames_are_not_searched_for_persons() -> None:
    ds = Dataset()
    ds.PatientName = "ZIMMERMANN^ANNA"
    ds.PerFrameFunctionalGroupsSequence = [person("MUELLER")] * 3
    assert personal_words(ds) == {"ZIMMERMANN", "ANNA"}
    assert clean("ANNA_ZIMMERMANN", personal_words(ds)) == "" and clean("MUELLER", personal_words(ds)) == "MUELLER"


def test_all_terms_of_annex_l_are_body_parts() -> None:
    """PS3.16 annex L, as the package highdicom ships it; the table is read without importing the package."""
    spec = importlib.util.find_spec("highdicom")
    assert spec is not None and spec.submodule_search_locations
    table = Path(spec.submodule_search_locations[0]) / "_standard" / "anatomic_regions.json"
    if not table.exists():
        pytest.skip("this version of highdicom has no table of anatomic regions")
    assert [term for term in json.loads(table.read_text()) if not is_body_part(term)] == []


BODY_PARTS = """
CTA_HEAD HEADANGIO CHESTPA CHEST_LAT LOW_EXTREMITY LOWER_EXT NNH PNS PARANASAL PETROUSBONE NECKANGIO RUNOFF SCAPHOID
CALCANEUM PUBIS BONEAGE BONE_AGE CAP TAP CRANIO COLUNA JOELHO OBERARM KNIEGELENK RIPPEN CHEVILLE POIGNET RACHISLOMBAIRE
BEKKEN HOOFD HEAD_AND_NECK CHESTANDABDOMEN LONGLEG LT_KNEE KNEE_RT L_HAND ROUTINE_HEAD L5 T12 C2 LSPINE_LAT LEXTREMITY
"""
VIEWS = """
CHEST_PA AP_PORT RLAT LLAT PROFIL FRONTALE LATERALE SCAPULAR_Y INFEROSUPERIOR AXIOLATERAL BITEWING INSPIRATION
OPEN_MOUTH CROSS_TABLE_LATERAL WEIGHT_BEARING_AP KNEE_SUNRISE
"""
# Frequent family names of many languages, and some that begin like a body part.
FAMILIES = """
SMITH JOHNSON WILLIAMS BROWN JONES MILLER DAVIS WILSON ANDERSON TAYLOR GARCIA RODRIGUEZ MARTINEZ HERNANDEZ LOPEZ
GONZALEZ MUELLER SCHMIDT SCHNEIDER FISCHER WEBER MEYER WAGNER BECKER SCHULZ HOFFMANN MARTIN BERNARD DUBOIS DURAND
LEROY MOREAU ROSSI RUSSO FERRARI ESPOSITO BIANCHI SILVA SANTOS OLIVEIRA COSTA PEREIRA JANSEN BAKKER VISSER NOWAK
KOWALSKI IVANOV NGUYEN TRAN PHAM WANG ZHANG CHEN LIU KIM LEE PARK CHOI SATO SUZUKI TANAKA KUMAR SINGH KHAN ALI AHMED
HANSEN JOHANSSON LARSEN VIRTANEN YILMAZ COHEN LEVY LI WU NG HU LE HANDEL ARMAND ARMSTRONG LEGRAND HEADLEY HALSEY
MAINARDI REARDON
"""


@pytest.mark.parametrize("value", BODY_PARTS.split())
def test_joined_and_qualified_body_parts_pass(value: str) -> None:
    assert is_body_part(value) and is_body_part(value.replace("_", " ").lower())


@pytest.mark.parametrize("value", VIEWS.split())
def test_joined_and_qualified_views_pass(value: str) -> None:
    assert is_view(value) and is_view(value.replace("_", " ").lower())


@pytest.mark.parametrize("name", FAMILIES.split())
def test_a_family_name_is_neither_body_part_nor_view(name: str) -> None:
    assert not is_body_part(name) and not is_view(name)
    assert not is_body_part(f"HEAD {name}") and not is_view(f"LATERAL {name}")


@pytest.mark.parametrize("value", ["AND", "LOW", "LONG", "ROUTINE", "ANGIO", "AP PORT", "CT"])
def test_a_word_that_only_qualifies_a_body_part_is_dropped_alone(value: str) -> None:
    assert not is_body_part(value)


def test_a_name_of_equal_letters_costs_no_more() -> None:
    personal = frozenset({"BBB", "BB", "BBBB"})
    assert clean("B" * 63 + "C", personal) and not clean("B" * 64, personal)
