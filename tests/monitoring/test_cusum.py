"""CUSUM: the run lengths of the textbooks, the promise on simulated streams, and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.monitoring.cusum import Chart, run_length, to_normal


@pytest.mark.parametrize(
    ("h", "shift", "table"),
    # Montgomery, Introduction to Statistical Quality Control, table 9.3, k = 1/2
    [(4, 0.0, 168), (4, 0.5, 26.6), (4, 1.0, 8.38), (5, 0.0, 465), (5, 1.0, 10.4), (5, 2.0, 4.01)],
)
def test_run_lengths_are_those_of_the_textbook(h: float, shift: float, table: float) -> None:
    assert run_length(0.5, h, shift) == pytest.approx(table, rel=0.005)


def test_a_chart_keeps_its_run_length_without_and_with_a_shift() -> None:
    chart = Chart.design(200, 0.25)
    assert run_length(chart.k, chart.h) == pytest.approx(200, rel=1e-4)
    z = np.random.default_rng(2).normal(size=60_000)
    spacing = len(z) / len(chart.signals(z))  # about 300 signals, nearly exponential: standard error 12
    assert spacing == pytest.approx(200, abs=60)
    delays = [chart.signals(np.random.default_rng(seed).normal(size=300) + 0.8)[0] + 1 for seed in range(300)]
    assert np.mean(delays) == pytest.approx(chart.delay(0.8), abs=5 * np.std(delays) / np.sqrt(300))


def test_sums_by_hand() -> None:
    chart = Chart(0.5, 2.0, 100.0)
    # up: 1.0, 2.0, 3.0 > 2 signals and begins again; down: 1.5, 3.0 > 2 signals.
    assert chart.signals(np.array([1.5, 1.5, 1.5, 0.0, -2.0, -2.0])) == [2, 5]


def test_small_p_values_are_large_values() -> None:
    np.testing.assert_allclose(to_normal(np.array([0.975, 0.5, 0.025])), [-1.959964, 0, 1.959964], atol=1e-6)


def test_the_statement_prints_both_promises() -> None:
    text = Chart.design(10_000, 0.25).statement(0.5)
    assert "10,000 scans" in text and "0.5 standard deviations" in text
