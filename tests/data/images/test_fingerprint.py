"""The fingerprint of a selection: how the run's record describes its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from pipeline.data.images.dataset import fingerprint
from pipeline.types import SliceRef

MakeSeries = Callable[..., list[SliceRef]]


def test_counts(mr_series: MakeSeries) -> None:
    train, test = mr_series("one", count=3), mr_series("two", set_name="test", label="abnormal")
    record = fingerprint(train + test)
    assert {key: record[key] for key in ("patients", "studies", "series", "slices")} == {
        "patients": 2,
        "studies": 2,
        "series": 2,
        "slices": 7,
    }
    assert record["labels"] == {"abnormal": 4, "normal": 3}
    assert record["by_set"]["train"]["slices"] == 3
    assert record["by_set"]["test"]["labels"] == {"abnormal": 4}
    text = json.dumps(record)
    assert "p-one" not in text
    assert "i-one" not in text


def test_hash_ignores_order_and_sees_every_change(mr_series: MakeSeries) -> None:
    refs = mr_series("one")
    plain = fingerprint(refs)["sha256"]
    assert fingerprint(refs[::-1])["sha256"] == plain
    changed = [
        refs[:3],
        [replace(refs[0], label="abnormal"), *refs[1:]],
        [replace(refs[0], pixel_key="e" * 64), *refs[1:]],
        [replace(refs[0], mask_key="e" * 64), *refs[1:]],
        [replace(refs[0], set_name="gate"), *refs[1:]],
        [replace(refs[0], patient_id="p"), *refs[1:]],
        [replace(refs[0], frame=1), *refs[1:]],
    ]
    hashes = {fingerprint(other)["sha256"] for other in changed}
    assert len(hashes | {plain}) == len(changed) + 1


def test_nothing_has_a_fingerprint_too() -> None:
    assert fingerprint([])["slices"] == 0
    assert fingerprint([])["by_set"] == {}
