"""Cubes for training: parts of the grid that scoring sees, at places that never change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.training_cubes import PatchDataset
from pipeline.data.images.volume import VolumeConfig
from pipeline.data.store.pixel_store import PixelStore
from pipeline.types import SliceRef

Refs = Callable[..., list[SliceRef]]
Slices = Callable[..., SliceDataset]
GRIDS = [{}, {"slice_mm": 3.0}, {"slice_mm": 9.0}, {"slices": 16}]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_cube_is_a_part_of_the_volumes_grid(volume: Refs, slices: Slices, grid: dict) -> None:
    config = VolumeConfig(tile=16, patches=5, **grid)
    data = slices([*volume("a"), *volume("b", 24, seed=1)])
    patches = PatchDataset(data, config)
    assert len(patches) == 10 and len({patches[i]["id"] for i in range(10)}) == 10
    for number, stack in enumerate(data.stacks()):
        depth = config.depth(len(stack.batch.ids), 5.0)
        image, body = depth.to_grid(stack.batch.images), depth.to_grid(stack.batch.body.float()) >= 0.5
        for index in range(5 * number, 5 * number + 5):
            item, (z, y, x) = patches[index], patches._patches[index].start
            place = (slice(max(z, 0), z + 16), slice(y, y + 16), slice(x, x + 16))
            short = max(0, 16 - depth.grid)
            inner = slice(short // 2, 16 - (short - short // 2))
            torch.testing.assert_close(item["image"][0, inner], image[:, 0][place], rtol=0, atol=1e-6)
            assert torch.equal(item["body"][0, inner], body[:, 0][place])
            assert item["image"].shape == item["body"].shape == (1, 16, 16, 16) and item["body"].any()


def test_caches_and_company_change_no_cube(volume: Refs, slices: Slices, tmp_path: Path) -> None:
    config, refs, others = VolumeConfig(tile=16, slice_mm=4.0), volume("a"), volume("b", seed=1)
    alone = PatchDataset(slices(refs), config)
    for options in ({"cache": "ram"}, {"cache": "disk", "cache_dir": tmp_path / "cache"}):
        together = PatchDataset(slices([*others, *refs], **options), config)
        for i in range(len(alone)):
            assert torch.equal(alone[i]["image"], together[config.patches + i]["image"])
            assert alone[i]["id"] == together[config.patches + i]["id"]
    assert not torch.equal(alone[0]["image"], together[0]["image"])


def test_centres_are_drawn_over_the_whole_body(volume: Refs, slices: Slices) -> None:
    patches = PatchDataset(slices(volume(count=40)), VolumeConfig(tile=16, patches=64))
    starts = np.array([patch.start for patch in patches._patches])
    assert starts.min() >= 0 and (starts.max(axis=0) <= (24, 16, 16)).all()
    assert (np.ptp(starts, axis=0) >= (16, 12, 12)).all()


def test_a_thin_series_is_padded_with_air(volume: Refs, slices: Slices) -> None:
    item = PatchDataset(slices(volume(count=9)), VolumeConfig(tile=16, patches=1))[0]
    assert (item["image"][:, :3] == -1).all() and (item["image"][:, 12:] == -1).all()
    assert not item["body"][:, :3].any() and item["body"][:, 3:12].any()


def test_attributes_of_a_cube_are_those_of_its_middle_slice(volume: Refs, slices: Slices) -> None:
    patches = PatchDataset(slices(volume(count=40)), VolumeConfig(tile=16))
    for i, patch in enumerate(patches._patches):
        assert patches[i]["about"] == {"modality": "CT", "relative_position": (patch.start[0] + 8) / 39}


def test_a_series_that_cannot_be_read_is_noted(volume: Refs, slices: Slices, store: PixelStore) -> None:
    refs, lost = volume("a"), volume("b", seed=1)
    broken = [SliceRef(**{**{n: getattr(r, n) for n in r.__slots__}, "pixel_key": "0" * 64}) for r in lost]
    patches = PatchDataset(slices([*refs, *broken]), VolumeConfig(tile=16, patches=3))
    assert len(patches) == 3
    assert [(s.series_id, s.code) for s in patches.data.rejected] == [("b", "unreadable")]


def test_a_stack_is_the_whole_series_and_says_what_is_wanted(volume: Refs, slices: Slices) -> None:
    refs = volume("a")
    data = slices(refs, selected=refs[3:5])
    (stack,) = data.stacks()
    assert len(stack.batch.ids) == 20 and stack.selected == {3: "a3/0", 4: "a4/0"}
    assert stack.batch.slice_mm == 5.0 and stack.batch.ids[3] == f"{refs[3].pixel_key}/0"
    assert torch.equal(stack.batch.images[3], data[0]["image"]) and data.step("a3/0").name == "normalise"
    with pytest.raises(IndexError):
        data[2]
