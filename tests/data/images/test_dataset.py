"""The data set: equal values through every cache, and independence from what else is selected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.images.dataset import SliceDataset, collate, iterate_batches
from pipeline.data.images.load_slice import load_plane
from pipeline.data.images.normalise import FixedRange, MRPercentile, Normaliser, RobustRange
from pipeline.errors import ConfigError
from pipeline.types import SliceRef

MakeSeries = Callable[..., list[SliceRef]]
CACHES = ["ram", "disk", "none"]


@pytest.fixture
def normaliser() -> Normaliser:
    return Normaliser(MRPercentile(image_size=32))


def members(*series: list[SliceRef]) -> dict[str, list[SliceRef]]:
    return {refs[0].series_id: refs for refs in series}


@pytest.mark.parametrize("cache", CACHES)
def test_items_equal_the_output_of_the_normaliser(
    cache: str, store: Any, mr_series: MakeSeries, normaliser: Normaliser, tmp_path: Path
) -> None:
    one, two = mr_series("one"), mr_series("two", gain=30)
    data = SliceDataset(one + two, store, normaliser, cache, tmp_path, members(one, two))
    expected = [item for refs in (one, two) for item in normaliser.series([load_plane(store, ref) for ref in refs])]
    assert len(data) == 8
    for index, (ref, item) in enumerate(zip(one + two, expected, strict=True)):
        read = data[index]
        assert read["id"] == ref.slice_id
        assert (read["image"].dtype, read["body"].dtype) == (torch.float32, torch.bool)
        np.testing.assert_array_equal(read["image"], item.image)
        np.testing.assert_array_equal(read["body"], item.body)
        assert data.step(ref.slice_id).to_json() == item.step.to_json()
        assert data.ref(ref.slice_id) == ref
    assert data.rejected == ()
    with pytest.raises(IndexError):
        data[8]
    assert data[-1]["id"] == two[-1].slice_id


@pytest.mark.parametrize("cache", CACHES)
def test_a_slice_does_not_depend_on_other_selected_slices(
    cache: str, store: Any, mr_series: MakeSeries, normaliser: Normaliser, tmp_path: Path
) -> None:
    one, two = mr_series("one"), mr_series("two", gain=30)
    whole = members(one, two)
    everything = SliceDataset(one + two, store, normaliser, cache, tmp_path / "a", whole)
    few = SliceDataset([two[3], one[2], two[0]], store, normaliser, cache, tmp_path / "b", whole)
    assert [ref.slice_id for ref in few.slices] == [two[3].slice_id, two[0].slice_id, one[2].slice_id]
    place = {ref.slice_id: index for index, ref in enumerate(everything.slices)}
    for index, ref in enumerate(few.slices):
        torch.testing.assert_close(few[index]["image"], everything[place[ref.slice_id]]["image"], rtol=0, atol=0)
        assert few.step(ref.slice_id).to_json() == everything.step(ref.slice_id).to_json()


def test_statistics_over_a_part_of_a_series_would_differ(
    store: Any, mr_series: MakeSeries, normaliser: Normaliser
) -> None:
    refs = mr_series("one")
    part = SliceDataset(refs[:1], store, normaliser, members={refs[0].series_id: refs[:1]})
    whole = SliceDataset(refs[:1], store, normaliser, members=members(refs))
    assert not torch.equal(part[0]["image"], whole[0]["image"])


def test_members_are_required_where_they_matter(store: Any, mr_series: MakeSeries, normaliser: Normaliser) -> None:
    refs = mr_series("one")
    with pytest.raises(ConfigError, match="members=selection.members"):
        SliceDataset(refs, store, normaliser)
    with pytest.raises(ConfigError, match="same selection"):
        SliceDataset(refs, store, normaliser, members={refs[0].series_id: refs[:2]})
    assert len(SliceDataset(refs, store, Normaliser(RobustRange()))) == 4
    assert len(SliceDataset([], store, normaliser)) == 0


def test_memory_is_preallocated_once_and_a_limit_holds(
    store: Any, mr_series: MakeSeries, normaliser: Normaliser, tmp_path: Path
) -> None:
    refs = mr_series("one")
    needed = 4 * 32 * 32 * 5
    fits = SliceDataset(refs, store, normaliser, members=members(refs), ram_bytes=needed)
    assert fits.cache == "ram"
    assert fits[0]["image"].untyped_storage().data_ptr() == fits[3]["image"].untyped_storage().data_ptr()
    moved = SliceDataset(refs, store, normaliser, "ram", tmp_path, members(refs), ram_bytes=needed - 1)
    assert moved.cache == "disk"
    torch.testing.assert_close(moved[2]["image"], fits[2]["image"], rtol=0, atol=0)
    with pytest.raises(ConfigError, match="cache folder"):
        SliceDataset(refs, store, normaliser, members=members(refs), ram_bytes=needed - 1)
    with pytest.raises(ConfigError, match="cache_dir"):
        SliceDataset(refs, store, normaliser, "disk", members=members(refs))


def test_each_slice_is_read_once_for_a_cache_and_in_order_without(
    store: Any, mr_series: MakeSeries, normaliser: Normaliser
) -> None:
    one, two = mr_series("one"), mr_series("two")
    SliceDataset(one + two, store, normaliser, members=members(one, two))
    assert store.reads == 8
    data = SliceDataset(one + two, store, normaliser, "none", members=members(one, two))
    assert store.reads == 8
    assert sum(len(batch.ids) for batch in iterate_batches(data, 3)) == 8
    assert store.reads == 16


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_in_order(
    cache: str, batch_size: int, store: Any, mr_series: MakeSeries, normaliser: Normaliser, tmp_path: Path
) -> None:
    one, two = mr_series("one"), mr_series("two")
    data = SliceDataset(one + two, store, normaliser, cache, tmp_path, members(one, two))
    read = list(iterate_batches(data, batch_size))
    assert [i for batch in read for i in batch.ids] == [ref.slice_id for ref in one + two]
    assert all(len(batch.ids) == batch_size for batch in read[:-1])
    images = torch.cat([batch.images for batch in read])
    assert images.shape == (8, 1, 32, 32)
    gathered = data.batch([5, 0, 5])
    torch.testing.assert_close(gathered.images, images[[5, 0, 5]], rtol=0, atol=0)
    assert gathered.body.dtype == torch.bool
    assert gathered.ids == (two[1].slice_id, one[0].slice_id, two[1].slice_id)
    gathered.images.zero_()  # a batch is the caller's own
    assert data[5]["image"].abs().sum() > 0
    chosen = [i for batch in iterate_batches(data, batch_size, indices=[7, 2]) for i in batch.ids]
    assert chosen == [two[3].slice_id, one[2].slice_id]


def test_batches_of_nothing_and_of_no_size(store: Any, normaliser: Normaliser) -> None:
    data = SliceDataset([], store, normaliser)
    assert list(iterate_batches(data, 4)) == []
    with pytest.raises(ConfigError, match="at least 1"):
        list(iterate_batches(data, 0))


def test_collate_takes_arrays_too() -> None:
    items = [{"image": np.zeros((1, 4, 4), np.float32), "body": np.ones((1, 4, 4), bool), "id": str(i)} for i in (1, 2)]
    batch = collate(items)
    assert batch.images.shape == (2, 1, 4, 4)
    assert batch.ids == ("1", "2")


def test_native_values_and_masks_are_at_hand(store: Any, mr_series: MakeSeries) -> None:
    refs = mr_series("one")
    data = SliceDataset(refs, store, Normaliser(FixedRange(high=1000)))
    plane = data.read_plane(refs[1].slice_id)
    assert plane.pixels.shape == (48, 40)
    assert data.read_mask(refs[1].slice_id) is None
    back = data.normaliser.invert(data[1]["image"][0].numpy(), data.step(refs[1].slice_id))
    assert back.shape == plane.pixels.shape
    assert np.abs(back - plane.pixels).mean() < 10  # the edge of the disc is blurred


def test_progress_is_reported(store: Any, mr_series: MakeSeries, normaliser: Normaliser) -> None:
    one, two = mr_series("one"), mr_series("two")
    seen: list[tuple[int, int]] = []
    SliceDataset(
        one + two,
        store,
        normaliser,
        members=members(one, two),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
