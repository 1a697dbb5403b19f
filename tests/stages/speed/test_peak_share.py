"""Training as a share of the peak: the operations that are counted, and the fields that are measured."""

from __future__ import annotations

import pytest

from pipeline.methods import METHODS
from pipeline.stages.speed import peak_share
from pipeline.stages.speed.peak_share import PRECISIONS, PrecisionName, measure_peak_share


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that take no time."""
    monkeypatch.setattr(peak_share, "EDGE", 64)
    monkeypatch.setattr(peak_share, "CONVOLUTION", (2, 8, 16))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_peaks_products_do_as_many_operations_as_they_are_credited_with(precision: PrecisionName) -> None:
    for run, work in peak_share._products(precision):
        assert peak_share._count(run) == work


def test_a_share_is_the_quotient_of_its_round() -> None:
    config = METHODS["ae"](widths=(4, 8), hidden=16, latent=4)
    measured = measure_peak_share(config, "fp32", 16, 4, rounds=1)
    assert (measured.method, measured.precision) == ("ae", "fp32")
    assert measured.share == pytest.approx(measured.training / measured.peak)
    assert 0 < measured.passes_share == pytest.approx(measured.passes / measured.peak)
