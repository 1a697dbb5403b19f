"""The strip: millimetres per second and millivolt, peaks that thinning must keep, and bars where the map is high."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.review.ecg_strip import LEFT_MM, ROW_MM, TOP_MM, draw_strip, thin


def _points(svg: str) -> list[np.ndarray]:
    return [
        np.array([[float(n) for n in pair.split(",")] for pair in text.split()])
        for text in re.findall(r'points="([^"]+)"', svg)
    ]


@pytest.mark.parametrize("rate_hz", [250, 500, 1000])
def test_a_second_is_25_mm_and_a_millivolt_10(rate_hz: int) -> None:
    signal = np.zeros((2, 10 * rate_hz))
    signal[1, 4 * rate_hz] = 1.5
    svg = draw_strip(signal, ("I", "<b>"), rate_hz)
    flat, peak = _points(svg)
    assert np.allclose(flat[:, 1], TOP_MM + ROW_MM / 2)
    highest = peak[peak[:, 1].argmin()]
    assert highest == pytest.approx([LEFT_MM + 100, TOP_MM + 1.5 * ROW_MM - 15], abs=0.02)
    assert peak[-1, 0] == pytest.approx(LEFT_MM + 250, abs=0.5)
    assert len(peak) <= 2500
    assert "&lt;b&gt;" in svg
    ElementTree.fromstring(svg)


def test_thinning_keeps_both_extremes_in_order() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    at, thinned = thin(values, 1000)
    assert len(at) == 1000
    assert (np.diff(at) >= 0).all()
    assert np.array_equal(values[at], thinned)
    assert {values.max(), values.min()} <= set(thinned)


def test_bars_are_where_the_map_is_high_and_as_opaque() -> None:
    heat = np.zeros((1, 500))
    heat[0, 250:260] = 1.0
    svg = draw_strip(np.zeros((1, 5000)), ("I",), 500, heat)
    bars = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" [^>]+fill-opacity="([\d.]+)"', svg)
    assert all(opacity == "0.65" for _, _, opacity in bars)
    starts = [float(x) for x, _, _ in bars]
    assert min(starts) == pytest.approx(LEFT_MM + 125, abs=1.1)  # 5 s
    assert max(starts) < LEFT_MM + 131
    assert not re.findall("fill-opacity", draw_strip(np.zeros((1, 5000)), ("I",), 500))
