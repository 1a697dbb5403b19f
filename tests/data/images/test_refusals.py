"""One bad series never stops a night: it is left out whole, with its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.images.dataset import SliceDataset, iterate_batches
from pipeline.data.images.normalise import CTWindow, MRPercentile, Normaliser, RobustRange
from pipeline.types import SliceRef

MakeSeries = Callable[..., list[SliceRef]]


def scored(data: SliceDataset) -> list[str]:
    return [i for batch in iterate_batches(data, 3) for i in batch.ids]


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
@pytest.mark.parametrize("fault", ["damaged", "constant", "nan"])
def test_a_bad_series_is_left_out_whole(
    cache: str, fault: str, store: Any, mr_series: MakeSeries, tmp_path: Path
) -> None:
    one, bad, two = mr_series("one"), mr_series("bad"), mr_series("two")
    if fault == "damaged":
        store.lost.add(bad[2].pixel_key)
    elif fault == "constant":
        key = store.put(np.full((1, 48, 40), 7, np.uint16))
        bad = [replace(ref, pixel_key=key) for ref in bad]
    else:
        bad[3] = replace(bad[3], pixel_key=store.put(np.full((1, 48, 40), np.nan, np.float32)))
    groups = {refs[0].series_id: refs for refs in (one, bad, two)}
    data = SliceDataset(one + bad + two, store, Normaliser(MRPercentile()), cache, tmp_path, groups)
    assert scored(data) == [ref.slice_id for ref in one + two]
    (refused,) = data.rejected
    codes = {"damaged": "unreadable", "constant": "empty-foreground", "nan": "non-finite-pixels"}
    assert (refused.series_id, refused.study_id, refused.code) == ("s-bad", "t-bad", codes[fault])
    assert len(refused.sentence) > 20
    if cache != "none":
        assert len(data) == 8


def test_without_a_cache_nothing_of_a_bad_series_is_given_out(store: Any, mr_series: MakeSeries) -> None:
    bad = mr_series("bad")
    bad[3] = replace(bad[3], pixel_key=store.put(np.full((1, 48, 40), 9, np.uint16)))
    data = SliceDataset(bad, store, Normaliser(RobustRange()), "none")
    assert scored(data) == []
    assert [refused.code for refused in data.rejected] == ["no-contrast"]


@pytest.mark.parametrize("cache", ["ram", "disk", "none"])
def test_a_series_of_air_is_not_scored(cache: str, store: Any, mr_series: MakeSeries, tmp_path: Path) -> None:
    refs = mr_series("one")
    key = store.put(np.full((1, 48, 40), -1000, np.int16))
    air = [replace(ref, series_id="s-air", pixel_key=key, instance_id=f"a{i}") for i, ref in enumerate(refs)]
    for _ in range(2):  # the second time from the files of the first
        data = SliceDataset(air + refs, store, Normaliser(CTWindow()), cache, tmp_path)
        assert scored(data) == [ref.slice_id for ref in refs]
        assert [refused.code for refused in data.rejected] == ["empty-foreground"]


def test_one_slice_of_air_among_others_stays(store: Any, mr_series: MakeSeries) -> None:
    refs = mr_series("one")
    refs[0] = replace(refs[0], pixel_key=store.put(np.full((1, 48, 40), -1000, np.int16)))
    data = SliceDataset(refs, store, Normaliser(CTWindow()))
    assert len(data) == 4
    assert not data[0]["body"].any()
    assert data[1]["body"].any()
