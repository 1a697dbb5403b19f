"""The benchmark of many codes, with few of them: its codes are reproducible, and its recall is that of the index."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.retrieval.config import IndexConfig
from pipeline.stages.speed.million_codes import ask, build, draw_codes, stream_codes


def test_codes_are_drawn_again_from_their_seed() -> None:
    np.testing.assert_array_equal(draw_codes(5, 3), draw_codes(5, 3))
    assert np.abs(draw_codes(5, 3) - draw_codes(5, 4)).max() > 0.1
    pieces = list(stream_codes(60_000))
    assert [len(addresses) for addresses, _ in pieces] == [50_000, 10_000]
    assert len({name for addresses, _ in pieces for name in addresses}) == 60_000


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_sixteen_bytes_with_reranking_come_near_to_exact(tmp_path: Path) -> None:
    built = build(tmp_path, IndexConfig(), 6000)
    asked = ask(tmp_path)
    assert built["build_peak_mib"] > 0 and asked["bytes_per_code"] == 16
    assert asked["recall_at_10"] >= 0.9 > asked["recall_of_codes"] > 0.1
    assert asked["query_p95_ms"] >= asked["query_p50_ms"] > 0
