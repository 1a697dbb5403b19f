"""Files of normalised series: named by everything that affects their content, whole or missing, and no pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.data.images.cache import SeriesCache, series_key
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import CTWindow, MRPercentile, Normaliser
from pipeline.types import SliceRef

MakeSeries = Callable[..., list[SliceRef]]
NORMALISER = Normaliser(MRPercentile(image_size=32))


def dataset(refs: list[SliceRef], store: Any, folder: Path, normaliser: Normaliser = NORMALISER) -> SliceDataset:
    return SliceDataset(refs, store, normaliser, "disk", folder, {refs[0].series_id: refs})


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_second_time_nothing_is_read_from_the_store(store: Any, mr_series: MakeSeries, tmp_path: Path) -> None:
    refs, folder = mr_series("one"), tmp_path / "cache"
    first = dataset(refs, store, folder)
    reads = store.reads
    again = dataset(refs, store, folder)
    assert store.reads == reads
    torch.testing.assert_close(again[3]["image"], first[3]["image"], rtol=0, atol=0)
    assert [path.suffix for path in files(folder)] == [".safetensors"]


def test_a_truncated_file_is_made_again(store: Any, mr_series: MakeSeries, tmp_path: Path) -> None:
    refs, folder = mr_series("one"), tmp_path / "cache"
    image = dataset(refs, store, folder)[0]["image"].clone()
    (path,) = files(folder)
    whole = path.read_bytes()
    for keep in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:keep])
        torch.testing.assert_close(dataset(refs, store, folder)[0]["image"], image, rtol=0, atol=0)
    assert path.read_bytes() == whole


def test_the_key_covers_normaliser_pixels_and_attributes(mr_series: MakeSeries) -> None:
    refs = mr_series("one")
    changed = {**refs[1].attributes, "rescale": [[2.0, 0.0]]}
    keys = {
        series_key(NORMALISER, refs),
        series_key(Normaliser(CTWindow(image_size=32)), refs),
        series_key(Normaliser(MRPercentile(image_size=33)), refs),
        series_key(NORMALISER, refs[:3]),
        series_key(NORMALISER, refs[::-1]),
        series_key(NORMALISER, [refs[0], replace(refs[1], attributes=changed), *refs[2:]]),
        series_key(NORMALISER, [refs[0], replace(refs[1], pixel_key="f" * 64), *refs[2:]]),
        series_key(NORMALISER, [replace(refs[0], frame=1), *refs[1:]]),
    }
    assert len(keys) == 8
    relabelled = [replace(ref, label="abnormal", set_name="test") for ref in refs]
    assert series_key(NORMALISER, relabelled) == series_key(NORMALISER, refs)


def test_labels_do_not_enter_the_files_and_no_id_does(store: Any, mr_series: MakeSeries, tmp_path: Path) -> None:
    refs, folder = mr_series("one"), tmp_path / "cache"
    dataset(refs, store, folder)
    (path,) = files(folder)
    content = path.read_bytes()
    for ref in refs:
        assert ref.instance_id.encode() not in content
        assert ref.patient_id.encode() not in content


def test_an_absent_series_has_no_steps(tmp_path: Path) -> None:
    assert SeriesCache(tmp_path).steps("0" * 64) is None
