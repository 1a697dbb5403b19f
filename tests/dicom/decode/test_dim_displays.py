"""A window or VOI LUT that leaves a radiograph almost black or almost white is ignored; one that shows it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.physical import for_display, to_physical
from pipeline.dicom.decode.read import read_instance

N = 128


def _body(low: int, high: int, shape: tuple[int, int] = (N, N)) -> np.ndarray:
    """A picture without a constant part: waves and noise within [low, high]."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / N
    image = np.cos(6 * x) * np.cos(4 * y) + 0.1 * np.random.default_rng(3).normal(size=shape)
    return np.rint(low + (high - low) * (image - image.min()) / np.ptp(image)).astype(np.uint16)


def _placed(background: int, body: np.ndarray, size: int = N) -> np.ndarray:
    whole = np.full((size, size), background, np.uint16)
    whole[8 : 8 + body.shape[0], 8 : 8 + body.shape[1]] = body
    return whole


def _marked(body: np.ndarray, marker: np.ndarray) -> np.ndarray:
    body[: marker.shape[0], : marker.shape[1]] = marker
    return body


def _window(centre: float, width: float, **more: Any) -> dict[str, Any]:
    return {"WindowCenter": str(centre), "WindowWidth": str(width)} | more


def _table(entries: Any, first: int = 0, keyword: str = "VOILUTSequence", bits: int = 16) -> dict[str, Any]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", np.asarray(entries).astype(int).tolist())
    return {keyword: [item]}


def _modality_table(entries: Any, bits: int) -> dict[str, Any]:
    return _table(entries, keyword="ModalityLUTSequence", bits=bits) | {"RescaleSlope": None, "RescaleIntercept": None}


WIDE, TWELVE = _body(300, 3500), np.arange(4096)
SCALED = {"RescaleSlope": "0.0625", "RescaleIntercept": "0"}
ONE = {"PhotometricInterpretation": "MONOCHROME1"}
GRADED = np.linspace(3000, 4095, 324).reshape(18, 18)
NOISE = np.random.default_rng(4).integers(3000, 4095, (N, 20))


@pytest.fixture
def read(make_dataset: Callable, write_dataset: Callable) -> Callable[..., Any]:
    def read(values: np.ndarray, elements: dict[str, Any]) -> Any:
        bits = 12 if values.max() < 4096 else 16
        ds: Dataset = make_dataset(values, Modality="DX", BitsStored=bits, HighBit=bits - 1, PixelRepresentation=0)
        ds.RescaleIntercept = "0"
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        return read_instance(Path(write_dataset(ds)), DecodeLimits())

    return read


@pytest.mark.parametrize(
    ("values", "elements"),
    [
        pytest.param(WIDE, _table(np.r_[TWELVE[:-1], 65535]), id="12 of 16 bits and one entry at the top"),
        pytest.param(WIDE, _table(np.r_[65535, TWELVE[1:]]), id="12 of 16 bits and one entry at the bottom"),
        pytest.param(WIDE, _table(np.r_[TWELVE[:-1], 65535]) | ONE, id="almost white"),
        pytest.param(WIDE, _window(32768, 65536), id="window of 16 bits on 12"),
        pytest.param(_body(0, 255), _window(2048, 4096), id="window of 12 bits on 8"),
        pytest.param(WIDE, _window(2048, 4096, **SCALED), id="window of 12 bits after a small slope"),
        pytest.param(WIDE, _modality_table(TWELVE // 16, 8) | _window(2048, 4096), id="behind a table of 8 bits"),
        pytest.param(_body(1000, 1400), _window(2048, 12000), id="wide window on little contrast"),
        pytest.param(_body(100, 114), _window(2048, 4096), id="15 values in 2 greys"),
        pytest.param(_marked(_body(200, 1800), GRADED), _window(3500, 1000), id="graded marker"),
        pytest.param(_marked(_body(200, 1800), NOISE), _window(3500, 1000), id="noisy border"),
        pytest.param(WIDE, _table(np.linspace(0, 65535, 4096), first=3000), id="table that starts at 3000"),
        pytest.param(WIDE, _table(np.linspace(0, 65535, 1024)), id="table of 10 bits on 12"),
        pytest.param(WIDE, _window(np.percentile(WIDE, 97) + 300, 600), id="97 % black"),
        pytest.param(np.stack([_body(200, 1800)] * 9 + [WIDE]), _window(3500, 800), id="9 of 10 frames black"),
    ],
)
def test_a_display_that_leaves_a_radiograph_nearly_black_or_white_is_ignored(
    read: Callable, values: np.ndarray, elements: dict[str, Any]
) -> None:
    one = read(values, elements)
    assert {"ignored:WindowCenter", "ignored:VOILUTSequence"} & set(one.attributes.assumed)
    low, high = np.percentile(for_display(to_physical(one.stored, one.attributes), one.attributes), (5, 95))
    assert high - low >= 20


COLLIMATED = _placed(0, _body(300, 3500, (11, 12)))  # 99.2 % border
MAMMOGRAM = _placed(0, _body(800, 3000, (50, 15)), 256)  # 98.9 % air
FINGER = _placed(4095, _body(500, 3000, (50, 7)))  # 97.9 % directly exposed
ROUGH = np.where(FINGER == 4095, 3900 + np.random.default_rng(5).integers(0, 20, FINGER.shape), FINGER)
VESSELS = _placed(2048, _body(600, 2000, (30, 30)))
FILM = (_body(0, 6) * 40).astype(np.uint16)


@pytest.mark.parametrize(
    ("values", "elements"),
    [
        pytest.param(COLLIMATED, _window(1900, 3400), id="collimated"),
        pytest.param(COLLIMATED, _window(1900, 3400, PixelPaddingValue=0), id="padding"),
        pytest.param(4095 - COLLIMATED, _window(2195, 3400, **ONE), id="collimated, inverted"),
        pytest.param(MAMMOGRAM, _window(1900, 2600), id="mammogram"),
        pytest.param(MAMMOGRAM, _window(1900, 800, VOILUTFunction="SIGMOID"), id="mammogram, sigmoid"),
        pytest.param(MAMMOGRAM, _table(np.r_[np.zeros(1500), np.linspace(0, 65535, 2596)]), id="mammogram, table"),
        pytest.param(FINGER, _window(1600, 2800), id="finger, saturated around"),
        pytest.param(ROUGH, _window(1750, 2500), id="finger, noisy around"),
        pytest.param(VESSELS, _window(1300, 1600), id="subtraction"),
        pytest.param(np.stack([np.full((N, N), 2048)] * 3 + [VESSELS]), _window(1300, 1600), id="subtraction, late"),
        pytest.param(FILM, _window(128, 256), id="film of 7 greys"),
        pytest.param(_marked(_body(100, 900), np.full((5, 8), 65535)), _window(500, 800), id="bright marker"),
        pytest.param(WIDE, _window(1900, 320), id="high contrast"),
        pytest.param(_body(1700, 2100), _window(2048, 4096), id="soft tissue, low contrast"),
        pytest.param(_body(0, 600), _window(2048, 4096), id="underexposed"),
    ],
)
def test_a_display_that_shows_a_radiograph_is_used(
    read: Callable, values: np.ndarray, elements: dict[str, Any]
) -> None:
    assert not any(one.startswith("ignored") for one in read(values.astype(np.uint16), elements).attributes.assumed)


FLAT = _table([0] * 4095 + [4095], bits=12)["VOILUTSequence"]
RAMP = _table(TWELVE, bits=12)["VOILUTSequence"]
SHORT = Dataset()
SHORT.add_new("LUTDescriptor", "US", [4096, 0, 16])
SHORT.add_new("LUTData", "US", [1, 2, 3])
SECOND = {"WindowCenter": ["60000", "2048"], "WindowWidth": ["120000", "4096"]}


@pytest.mark.parametrize("modality", ["DX", "CT"])
def test_the_next_window_is_tried_after_a_dim_one(modality: str, read: Callable[..., Any]) -> None:
    instance = read(WIDE, {"Modality": modality, **SECOND})
    picture = for_display(to_physical(instance.stored, instance.attributes), instance.attributes)
    expected = np.clip((instance.stored - 2047.5) / 4095 + 0.5, 0, 1) * 255
    assert np.abs(picture - expected).max() <= 1


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"VOILUTSequence": [*FLAT, *RAMP]}, (1, 0)),
        ({"VOILUTSequence": FLAT, **_window(2048, 4096)}, (0, 1)),
        ({"VOILUTSequence": FLAT, **SECOND}, (0, 1)),
        ({"VOILUTSequence": FLAT, **_window(60000, 120000)}, (0, 0)),
        ({"VOILUTSequence": [*RAMP, SHORT]}, (1, 0)),
    ],
)
def test_the_next_alternative_is_tried_after_a_flat_table(
    more: dict[str, Any], left: tuple[int, int], read: Callable[..., Any]
) -> None:
    attributes = read(WIDE, more).attributes
    assert (len(attributes.voi_luts), len(attributes.windows)) == left
