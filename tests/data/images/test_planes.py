"""From a reference to physical values and to a mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.data.images.load_slice import frame_attributes, load_mask, load_plane
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import CatalogueError
from pipeline.types import SliceRef


def ref_to(key: str, frame: int = 0, **attributes: Any) -> SliceRef:
    values = InstanceAttributes(**attributes).to_json()
    return SliceRef("i", frame, "s", "t", "p", key, values, 0.5)


def test_rescale_and_padding_reach_the_plane(store: Any) -> None:
    stored = np.array([[[-2000, 0, 1000], [1064, 1100, -2000]]], np.int16)
    ref = ref_to(store.put(stored), modality="CT", rows=2, columns=3, rescale=((1.0, -1024.0),), padding_value=-2000)
    plane = load_plane(store, ref)
    np.testing.assert_array_equal(plane.pixels[plane.valid], [-1024, -24, 40, 76])
    np.testing.assert_array_equal(plane.valid, [[False, True, True], [True, True, False]])
    assert plane.pixels.dtype == np.float32


def test_a_frame_takes_its_own_rescale_and_nothing_else_is_read(store: Any) -> None:
    key = store.put(np.stack([np.full((2, 2), 10), np.full((2, 2), 20), np.full((2, 2), 30)]).astype(np.uint16))
    fields: dict[str, Any] = {
        "modality": "MR",
        "rows": 2,
        "columns": 2,
        "frames": 3,
        "rescale": ((1.0, 0.0), (2.0, 5.0), (3.0, 0.0)),
        "positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, 2.0)),
    }
    values = [float(load_plane(store, ref_to(key, frame, **fields)).pixels[0, 0]) for frame in range(3)]
    assert values == [10, 45, 90]
    assert store.reads == 3
    third = frame_attributes(InstanceAttributes(**fields).to_json(), 2)
    assert (third.frames, third.rescale, third.positions) == (1, ((3.0, 0.0),), ((0.0, 0.0, 2.0),))


def test_a_window_moves_a_radiograph_and_never_a_ct(store: Any) -> None:
    key = store.put(np.array([[[0, 100, 200]]], np.uint16))
    ct, cr = (ref_to(key, modality=m, rows=1, columns=3, windows=((100.5, 101.0),)) for m in ("CT", "CR"))
    np.testing.assert_array_equal(load_plane(store, ct).pixels, [[0, 100, 200]])
    np.testing.assert_allclose(load_plane(store, cr).pixels, [[0, 0.5, 1]], atol=1e-6)


def test_masks(store: Any) -> None:
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[1, 1:3, 1:3] = 255
    ref = ref_to("0" * 64, 1, rows=4, columns=4, frames=2)
    assert load_mask(store, ref) is None
    loaded = load_mask(store, replace(ref, mask_key=store.put(mask)))
    assert loaded.dtype == bool
    assert loaded.sum() == 4


def test_a_size_that_contradicts_the_catalogue_is_refused(store: Any) -> None:
    ref = ref_to(store.put(np.zeros((1, 5, 4), np.uint8)), modality="CT", rows=4, columns=5)
    with pytest.raises(CatalogueError, match=r"\(4, 5\).*\(5, 4\)"):
        load_plane(store, ref)
    with pytest.raises(CatalogueError, match="i/0"):
        load_mask(store, replace(ref, mask_key=ref.pixel_key))
