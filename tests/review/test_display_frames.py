"""Stored pixels reach the browser with every value, at every depth and size."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dicom.decode.attributes import InstanceAttributes, LookupTable
from pipeline.errors import CatalogueError
from pipeline.review.display_frames import LARGEST_EDGE, Frames, in_16_bits
from pipeline.types import SliceRef


class Store:
    """One object, in memory; counts how often it is decoded."""

    def __init__(self, stored: np.ndarray) -> None:
        self.stored, self.reads = stored, 0

    def get(self, key: str, frame: int | None = None) -> np.ndarray:
        """Return the frame."""
        self.reads += 1
        return self.stored


def ref(stored: np.ndarray, **attributes: object) -> SliceRef:
    header = InstanceAttributes(rows=stored.shape[0], columns=stored.shape[1], **attributes).to_json()
    return SliceRef("i", 0, "s", "t", "p", "k" * 64, header, 0.5)


def physical(stored: np.ndarray, **attributes: object) -> np.ndarray:
    """Compute the values that the browser derives from the bytes it receives."""
    frame = Frames(Store(stored)).read(ref(stored, **attributes))
    about = frame.about()
    sent = np.frombuffer(frame.payload(), np.dtype(about["dtype"]).newbyteorder("<"))
    return sent.reshape(about["rows"], about["columns"]) * about["slope"] + about["intercept"]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_every_stored_value_arrives(dtype: str) -> None:
    info = np.iinfo(dtype) if dtype != "bool" else None
    low, high = (0, 2) if info is None else (max(info.min, -32768), min(info.max, 32767))
    stored = np.linspace(low, high - 1, 12).astype(dtype).reshape(3, 4)
    np.testing.assert_array_equal(physical(stored), stored.astype(float))
    np.testing.assert_array_equal(physical(stored, rescale=((2.0, -1024.0),)), stored.astype(float) * 2 - 1024)


def test_sixteen_bits_keep_their_ends() -> None:
    stored = np.array([[0, 65535], [32768, 1]], np.uint16)
    np.testing.assert_array_equal(physical(stored), stored)


def test_wide_values_are_quantised_and_the_page_receives_the_step() -> None:
    stored = np.array([[0, 2**31 - 1], [2**30, 12345]], np.int32)
    frame = Frames(Store(stored)).read(ref(stored))
    assert not frame.exact
    assert np.abs(frame.values * frame.slope + frame.intercept - stored).max() <= (2**31 - 1) / 65535 / 2 + 1e-6


def test_not_a_number_is_shown_as_the_lowest_value() -> None:
    values, step, first, exact = in_16_bits(np.array([[1.0, np.nan], [3.0, np.inf]], np.float32))
    assert not exact
    np.testing.assert_allclose(values * step + first, [[1.0, 1.0], [3.0, 3.0]], atol=1e-4)


def test_a_modality_table_is_applied_before_the_window() -> None:
    table = LookupTable.pack(10, 12, np.array([100, 200, 4000]))
    np.testing.assert_array_equal(physical(np.array([[9, 10, 11, 12, 13]], np.int16), modality_lut=table),
                                  [[100, 100, 200, 4000, 4000]])  # fmt: skip


def test_window_is_the_files_or_the_range_without_padding() -> None:
    stored = np.full((10, 10), -2000, np.int16)
    stored[2:8, 2:8] = np.arange(36).reshape(6, 6) * 10
    named = Frames(Store(stored)).read(ref(stored, windows=((40.0, 400.0), (600.0, 1500.0))))
    assert named.window == (40.0, 400.0)
    centre, width = Frames(Store(stored)).read(ref(stored, padding_value=-2000)).window
    assert 0 <= centre - width / 2 <= 10
    assert 340 <= centre + width / 2 <= 350


def test_a_window_that_shows_nothing_is_passed_over() -> None:
    stored = np.arange(-500, 524, dtype=np.int16).reshape(32, 32)
    black = (30000.0, 60.0)
    assert Frames(Store(stored)).read(ref(stored, windows=(black, (40.0, 400.0)))).window == (40.0, 400.0)
    centre, width = Frames(Store(stored)).read(ref(stored, windows=(black,))).window
    assert abs(centre - 11.5) < 1 and 1000 <= width <= 1023
    mask = (stored > 0).astype(np.int16)
    assert Frames(Store(mask)).read(ref(mask, windows=((0.5, 1.0),))).window == (0.5, 1.0), "it has two values only"


def test_low_values_are_bright_where_the_file_says_so() -> None:
    stored = np.arange(4, dtype=np.uint8).reshape(2, 2)
    assert Frames(Store(stored)).read(ref(stored, photometric="MONOCHROME1")).invert
    assert not Frames(Store(stored)).read(ref(stored)).invert


def test_a_very_large_image_is_reduced_and_its_parts_are_whole() -> None:
    edge = 10_000
    stored = (np.arange(edge, dtype=np.uint32)[:, None] * 7 + np.arange(edge, dtype=np.uint32)).astype(np.uint16)
    store = Store(stored)
    frames = Frames(store)
    whole = frames.read(ref(stored))
    assert whole.reduced == 3
    assert max(whole.values.shape) <= LARGEST_EDGE
    assert whole.values[5, 7] == round(stored[15:18, 21:24].mean())
    part = frames.read(ref(stored), box=(9_000, 8_999, 2_048, 512))
    np.testing.assert_array_equal(part.values, stored[9_000:, 8_999 : 8_999 + 512])
    assert part.box == (9_000, 8_999, 1_000, 512)
    assert part.exact
    assert part.reduced == 1
    assert store.reads == 1  # a part does not decode the whole again


def test_an_object_of_another_size_is_refused_by_pseudonym() -> None:
    stored = np.zeros((4, 4), np.int16)
    with pytest.raises(CatalogueError, match=r"\(4, 4\).*\(4, 5\)"):
        Frames(Store(stored)).read(ref(np.zeros((4, 5), np.int16)))
