"""Numbers that would make an image infinite, black or one grey: refused by name and value, or ignored and recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.physical import FEWEST_GREYS, for_display, to_physical
from pipeline.dicom.decode.plausible import _are_clearly_many, _bulk
from pipeline.dicom.decode.read import read_instance
from pipeline.errors import Rejected, RejectionCode

RAMP = np.arange(64, dtype=np.int16).reshape(8, 8)
IN_ONE = RejectionCode.NO_CONTRAST
MALFORMED = RejectionCode.CORRUPT_HEADER


@pytest.fixture
def read(make_dataset: Callable, write_dataset: Callable) -> Callable[..., Any]:
    """Read a ramp 0..63 with some elements changed."""

    def read(values: np.ndarray = RAMP, **elements: Any) -> Any:
        ds: Dataset = make_dataset(values)
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        return read_instance(Path(write_dataset(ds)), DecodeLimits())

    return read


@pytest.mark.parametrize(
    ("elements", "code", "words"),
    [
        ({"RescaleSlope": "1e300"}, RejectionCode.NON_FINITE, "RescaleSlope 1e+300"),
        ({"RescaleSlope": "-1e38", "RescaleIntercept": "0"}, RejectionCode.NON_FINITE, "RescaleSlope -1e+38"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1e300"}, RejectionCode.NON_FINITE, "RescaleIntercept -1e+300"),
        ({"RescaleSlope": "1e-60", "RescaleIntercept": "0"}, IN_ONE, "RescaleSlope 1e-60"),
        ({"RescaleSlope": "1", "RescaleIntercept": "1e12"}, IN_ONE, "RescaleIntercept 1e+12"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, MALFORMED, "RescaleSlope is malformed: it is 0"),
        ({"PixelSpacing": ["1e300", "1e300"]}, MALFORMED, "PixelSpacing is malformed: it is 1e+300 mm"),
        ({"PixelSpacing": ["1e-30", "1"]}, MALFORMED, "it is 1e-30 mm"),
        ({"ImagePositionPatient": ["0", "-1e300", "0"]}, MALFORMED, "it is -1e+300 mm"),
        ({"PixelPaddingValue": -5, "PixelPaddingRangeLimit": 5000}, RejectionCode.EMPTY_FOREGROUND, "-5 to"),
        ({"BitsStored": 12, "HighBit": 40}, MALFORMED, "HighBit is malformed: it is 40"),
        ({"NumberOfFrames": "1.5"}, MALFORMED, ""),
    ],
)
def test_what_no_image_survives_is_refused_by_name_and_value(
    read: Callable, elements: dict[str, Any], code: RejectionCode, words: str
) -> None:
    with pytest.raises(Rejected) as refused:
        read(**elements)
    assert refused.value.code == code and words in refused.value.sentence


@pytest.mark.parametrize(
    ("elements", "keyword"),
    [
        ({"WindowCenter": "1e300", "WindowWidth": "1e3"}, "WindowCenter"),
        ({"WindowCenter": "20", "WindowWidth": "1e300"}, "WindowCenter"),
        ({"WindowCenter": "20", "WindowWidth": "-5"}, "WindowCenter"),
        ({"SliceThickness": "1e300"}, "SliceThickness"),
        ({"SliceThickness": "-3"}, "SliceThickness"),
        ({"SpacingBetweenSlices": "1e9"}, "SpacingBetweenSlices"),
        ({"GantryDetectorTilt": "4000"}, "GantryDetectorTilt"),
        ({"ImagerPixelSpacing": ["-1", "-1"]}, "ImagerPixelSpacing"),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "CR"])
def test_what_an_image_can_do_without_is_ignored_and_recorded(
    read: Callable, elements: dict[str, Any], keyword: str, modality: str
) -> None:
    one = read(Modality=modality, **elements)
    assert f"ignored:{keyword}" in one.attributes.assumed
    physical = to_physical(one.stored, one.attributes)
    assert np.isfinite(physical.pixels).all() and np.ptp(physical.pixels) == 63
    assert np.ptp(for_display(physical, one.attributes)) == 255


def _table(values: np.ndarray, first: int, keyword: str) -> dict[str, Any]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, 16])
    item.add_new("LUTData", "US", values.astype(int).tolist())
    return {keyword: [item]} | ({"RescaleSlope": None, "RescaleIntercept": None} if "Modality" in keyword else {})


MANY = np.linspace(9, 4087, 64 * 64).astype(np.int16).reshape(64, 64)


def test_a_rescale_that_rounds_many_values_to_few_is_refused(read: Callable) -> None:
    with pytest.raises(Rejected, match=r"RescaleIntercept 1e\+10 takes all stored values, 9 to 4087, to 5 values"):
        read(MANY, RescaleSlope="1", RescaleIntercept="1e10")


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "4092", "WindowWidth": "8", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "2000", "WindowWidth": "200000", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "30000", "WindowWidth": "10"},
        {"WindowCenter": "2000", "WindowWidth": "1e6"},
        {"WindowCenter": "2000", "WindowWidth": "4e6"},
        _table(np.arange(4096), 0, "ModalityLUTSequence") | {"WindowCenter": "2000", "WindowWidth": "2"},
        _table(np.array([0, 65535]), 2000, "VOILUTSequence"),
        _table(np.repeat([0, 1, 65535], [4080, 8, 8]), 0, "VOILUTSequence"),
    ],
)
@pytest.mark.parametrize("modality", ["MR", "CR"])
def test_a_presentation_that_leaves_few_greys_is_not_used(read: Callable, modality: str, elements: dict) -> None:
    one = read(MANY, Modality=modality, **elements)
    if modality == "CR":
        assert {"ignored:WindowCenter", "ignored:VOILUTSequence"} & set(one.attributes.assumed)
    physical = to_physical(one.stored, one.attributes)
    assert len(np.unique(physical.pixels)) > 2000
    assert len(np.unique(for_display(physical, one.attributes))) >= (200 if modality == "CR" else 8)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "1e9", "RescaleIntercept": "0", "WindowCenter": "2e10", "WindowWidth": "400"},
        {"RescaleSlope": "-1e9", "RescaleIntercept": "0", "WindowCenter": "-2e10", "WindowWidth": "2e9"},
        {"RescaleSlope": "1", "RescaleIntercept": "0", "WindowCenter": "20", "WindowWidth": "1"},
        {"WindowCenter": "20", "WindowWidth": "3", "VOILUTFunction": "SIGMOID"},
    ],
)
@pytest.mark.parametrize("modality", ["MR", "CT", "CR"])
def test_a_window_that_shows_a_few_greys_is_ignored_and_recorded(
    read: Callable, elements: dict[str, Any], modality: str
) -> None:
    one = read(Modality=modality, **elements)
    assert "ignored:WindowCenter" in one.attributes.assumed and one.attributes.windows == ()
    picture = for_display(to_physical(one.stored, one.attributes), one.attributes)
    assert len(np.unique(picture)) > 40


@pytest.mark.parametrize(
    ("elements", "width"),
    [
        ({"RescaleSlope": "1e9", "RescaleIntercept": "0", "WindowCenter": "2e10", "WindowWidth": "2e10"}, 2e10),
        ({"WindowCenter": "20", "WindowWidth": "8"}, 8.0),
        ({"RescaleSlope": "1e-3", "RescaleIntercept": "0", "WindowCenter": "0.02", "WindowWidth": "0.02"}, 0.02),
        ({"BitsStored": 1, "HighBit": 0, "PixelRepresentation": 0, "WindowCenter": "1", "WindowWidth": "1"}, 1.0),
    ],
)
def test_a_narrow_window_of_several_greys_or_of_a_mask_is_used(
    read: Callable, elements: dict[str, Any], width: float
) -> None:
    assert [one[1] for one in read(Modality="MR", **elements).attributes.windows] == [width]


def _marked(low: int, high: int) -> np.ndarray:
    """A radiograph of 12 bits within [low, high], with a marker at the end of the range in 0.4 % of the pixels."""
    values = np.linspace(low, high, 64 * 64).astype(np.int16).reshape(64, 64)
    values[2:4, 2:10] = 4095
    return values


@pytest.mark.parametrize(
    ("values", "elements"),
    [
        (_marked(150, 1800), {"WindowCenter": "3500", "WindowWidth": "1000"}),
        (_marked(150, 1800), {"WindowCenter": "3900", "WindowWidth": "100", "VOILUTFunction": "SIGMOID"}),
        (_marked(150, 1800), _table(np.r_[np.zeros(3000), np.linspace(0, 65535, 1096)], 0, "VOILUTSequence")),
        (_marked(0, 49), {"WindowCenter": "2048", "WindowWidth": "4096"}),
        (np.arange(2500, dtype=np.int16).reshape(50, 50) // 50, {"WindowCenter": "2048", "WindowWidth": "4096"}),
    ],
)
def test_a_radiograph_that_is_black_but_for_a_marker_is_shown_without_its_window(
    read: Callable, values: np.ndarray, elements: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    one = read(values, Modality="DX", **elements)
    assert {"ignored:WindowCenter", "ignored:VOILUTSequence"} & set(one.attributes.assumed)
    picture = for_display(to_physical(one.stored, one.attributes), one.attributes)
    assert len(np.unique(picture)) >= 40 and not recwarn.list


def test_a_table_that_is_flat_but_for_a_marker_is_refused(read: Callable) -> None:
    table = _table(np.r_[np.zeros(2000), np.arange(2096)], 0, "ModalityLUTSequence")
    with pytest.raises(Rejected, match=r"Modality LUT takes 99% of the stored values, 150 to 4095, to one grey"):
        read(_marked(150, 1800), Modality="DX", **table)


@pytest.mark.parametrize(("centre", "width"), [("900", "400"), ("1500", "600"), ("2048", "4096"), ("500", "700")])
def test_a_window_of_part_of_a_marked_radiograph_is_used(read: Callable, centre: str, width: str) -> None:
    one = read(_marked(150, 1800), Modality="DX", WindowCenter=centre, WindowWidth=width)
    assert one.attributes.windows == ((float(centre), float(width)),) and one.attributes.assumed == ()


def test_the_next_window_is_used_where_the_first_shows_nothing(read: Callable) -> None:
    one = read(Modality="CR", WindowCenter=["1e6", "32"], WindowWidth=["10", "64"])
    assert one.attributes.windows == ((32.0, 64.0),)


def test_a_blank_image_and_a_partly_saturated_recording_are_not_lost(read: Callable) -> None:
    assert read(np.zeros((8, 8), np.int16), Modality="CR", WindowCenter="5", WindowWidth="2").stored.max() == 0
    frames = np.stack([RAMP, RAMP + 1000])  # the second frame is all white, as before an exposure settles
    assert read(frames, Modality="XA", WindowCenter="32", WindowWidth="64").stored.shape == (2, 8, 8)


@pytest.mark.parametrize(("value", "code"), [(1e300, "non-finite-pixels"), (np.inf, "non-finite-pixels")])
def test_float_pixels_beyond_32_bits_are_refused(
    value: float, code: str, make_dataset: Callable, write_dataset: Callable
) -> None:
    pixels = RAMP.astype(np.float64)
    pixels[0, 0] = value
    ds = make_dataset(RAMP)
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del ds[keyword]
    ds.BitsAllocated, ds.DoubleFloatPixelData = 64, pixels.tobytes()
    with pytest.raises(Rejected) as refused:
        read_instance(Path(write_dataset(ds)), DecodeLimits())
    assert refused.value.code == code and ("1e+300" in refused.value.sentence or "1 of 64" in refused.value.sentence)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("YBR_PARTIAL_420", "'YBR_PARTIAL_420'"),
        ("GREY", "4 characters"),
        ("PATIENT X", "9 characters"),
        ("RGB", "'RGB'"),
    ],
)
def test_an_unknown_photometric_interpretation_is_named_where_the_standard_defines_it(
    read: Callable, value: str, words: str
) -> None:
    with pytest.raises(Rejected) as refused:
        read(PhotometricInterpretation=value)
    assert refused.value.code == RejectionCode.UNSUPPORTED_PIXELS and words in refused.value.sentence
    assert "MONOCHROME2" in refused.value.sentence and "PATIENT" not in refused.value.sentence


@pytest.mark.parametrize(
    ("keyword", "code", "words"),
    [
        ("BitsStored", RejectionCode.MISSING_ATTRIBUTE, "BitsStored is missing"),
        ("PixelRepresentation", RejectionCode.MISSING_ATTRIBUTE, "PixelRepresentation is missing"),
        ("SamplesPerPixel", RejectionCode.MISSING_ATTRIBUTE, "SamplesPerPixel is missing"),
    ],
)
def test_a_missing_description_of_pixels_is_named(
    make_dataset: Callable, write_dataset: Callable, keyword: str, code: RejectionCode, words: str
) -> None:
    ds = make_dataset(RAMP)
    del ds[keyword]
    with pytest.raises(Rejected) as refused:
        read_instance(Path(write_dataset(ds)), DecodeLimits())
    assert refused.value.code == code and words in refused.value.sentence


@pytest.mark.parametrize("keyword", ["BitsStored", "BitsAllocated", "SamplesPerPixel", "Rows", "HighBit"])
@pytest.mark.parametrize("value", [0, 32768, 65535])
def test_a_wild_description_of_pixels_is_named_with_its_value(read: Callable, keyword: str, value: int) -> None:
    with pytest.raises(Rejected) as refused:
        read(Modality="CR", WindowCenter="10", WindowWidth="20", **{keyword: value})
    assert str(value) in refused.value.sentence
    assert keyword in refused.value.sentence or "pixel data holds" in refused.value.sentence


def test_lower_case_letters_are_read_as_capitals(read: Callable) -> None:
    one = read(PhotometricInterpretation="monochrome1")
    assert one.attributes.photometric == "MONOCHROME1" and np.array_equal(one.stored[0], RAMP)
    assert one.attributes.assumed == ("lower-case-photometric",)


@pytest.mark.parametrize("value", [["1e300", "1e300"], ["0.1", "0.1", "0.1"], "0.1"])
def test_a_malformed_spacing_at_the_detector_is_ignored(read: Callable, value: Any) -> None:
    one = read(ImagerPixelSpacing=value)
    assert one.attributes.imager_pixel_spacing_mm is None and "ignored:ImagerPixelSpacing" in one.attributes.assumed


def test_a_file_that_breaks_off_within_a_sequence_says_so(
    make_dataset: Callable, write_dataset: Callable, tmp_path: Path
) -> None:
    ds = make_dataset(RAMP)
    item = Dataset()
    item.CodeMeaning = "x" * 64
    ds.ViewCodeSequence = [item] * 8
    ds["ViewCodeSequence"].is_undefined_length = True
    whole = Path(write_dataset(ds)).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: whole.index(b"x" * 64) + 72])
    with pytest.raises(Rejected) as refused:
        read_instance(tmp_path / "cut.dcm", DecodeLimits())
    assert refused.value.code == MALFORMED and "Copy the whole file" in refused.value.sentence


NUMBERS = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "SliceThickness", "SpacingBetweenSlices"),
    *("GantryDetectorTilt", "EchoTime", "RepetitionTime", "TriggerTime", "InstanceNumber", "AcquisitionNumber"),
    *("PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames"),
)
EXTREMES = ("1e300", "-1e300", "1e-300", "-1", "0", "nan", "inf", "-inf", "abc", "", "9" * 20, "1\\2\\3\\4")


@pytest.mark.parametrize("modality", ["CT", "MR", "CR"])
@pytest.mark.parametrize("keyword", NUMBERS)
def test_every_extreme_of_a_number_is_refused_by_name_or_leaves_a_picture(
    make_dataset: Callable, write_dataset: Callable, modality: str, keyword: str
) -> None:
    tag = Tag(keyword)
    for text in EXTREMES:
        ds = make_dataset(RAMP, Modality=modality, RescaleSlope=1, RescaleIntercept=0, WindowCenter=32, WindowWidth=64)
        value = text.encode() + b" " * (len(text) % 2)
        held = b"8" * len(value)  # pydicom would not write the value itself
        ds._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), held, 0, False, True)
        path = Path(write_dataset(ds))
        whole = path.read_bytes()
        at = whole.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")) + 8
        path.write_bytes(whole[:at] + value + whole[at + len(value) :])
        try:
            one = read_instance(path, DecodeLimits())
        except Rejected as refused:
            words = refused.sentence
            assert keyword in words or (keyword == "NumberOfFrames" and "pixel data" in words), (text, words)
            continue
        physical = to_physical(one.stored, one.attributes)
        assert np.isfinite(physical.pixels).all() and np.ptp(physical.pixels) > 0, text
        assert np.ptp(for_display(physical, one.attributes)) > 100, text


def test_a_look_at_every_sixteenth_value_never_contradicts_the_whole() -> None:
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(400):
        values = rng.integers(0, rng.integers(1, 40), rng.integers(1, 3000)).astype(np.float32)
        values[rng.random(values.size) > rng.random()] = 0.0
        quick, many = _are_clearly_many(values), _bulk(values) >= FEWEST_GREYS
        assert many or not quick
        seen.add((quick, many))
    assert {(True, True), (False, False)} <= seen
