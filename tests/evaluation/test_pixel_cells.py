"""Bounded memory: what dropping bits costs, and what it never changes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_alpha import choose_alpha
from pipeline.evaluation.pixel_cells import PixelPool, edges_of, sortable
from pipeline.evaluation.pixel_metrics import PixelCase, evaluate_pixels

MakeCases = Callable[..., Iterator[PixelCase]]
floats = st.floats(width=32, allow_nan=False)

SHAPES = {
    "normal": lambda x: x,
    "skewed": lambda x: np.exp(2 * x),
    "offset": lambda x: 1000 + 0.1 * x,
    "negative": lambda x: x - 50,
    "many zeros": lambda x: np.maximum(x - 1, 0),
}


@given(st.lists(floats, min_size=2, max_size=50))
@settings(max_examples=100, deadline=None)
def test_keys_sort_as_the_numbers_do(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    keys = sortable(numbers)
    assert np.array_equal(
        np.sign(np.subtract.outer(keys.astype(float), keys.astype(float))),
        (numbers[:, None] > numbers).astype(float) - (numbers[:, None] < numbers),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [1000, 60_000])
def test_compressed_figures_are_within_a_thousandth(make_cases: MakeCases, shape: str, limit: int) -> None:
    cases = [_reshaped(case, SHAPES[shape]) for case in make_cases(patients=8, slices=6, side=64)]
    config = EvaluationConfig(resamples=100, pixel_values=limit)
    result = evaluate_pixels(cases, config)
    truth = np.concatenate([case.mask.ravel() for case in cases])
    values = np.concatenate([case.maps["model"].ravel() for case in cases])
    metrics = result.row("model").metrics
    assert metrics["AP"].value == pytest.approx(average_precision_score(truth, values), abs=1e-3)
    assert metrics["AUROC"].value == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    exact = evaluate_pixels(cases, EvaluationConfig(resamples=100)).row("model").metrics
    for name in ("PRO@30", "best Dice (oracle)"):
        assert metrics[name].value == pytest.approx(exact[name].value, abs=1e-3)
        assert metrics[name].low == pytest.approx(exact[name].low, abs=2e-3)


def _reshaped(case: PixelCase, shape: Callable[[np.ndarray], np.ndarray]) -> PixelCase:
    values = shape(case.maps["model"].astype(float)).astype(np.float32)
    return PixelCase(case.patient_id, case.slice_id, case.label, {"model": values}, case.body, case.mask)


def test_compression_is_said(make_cases: MakeCases) -> None:
    cases = list(make_cases(patients=3, slices=30, side=64))
    result = evaluate_pixels(cases, EvaluationConfig(resamples=100, pixel_values=1000, pixel_cells=1024))
    assert any("histogram cells" in note for note in result.notes)


def test_dropped_bits_tie_values_and_never_swap_them() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=5000).astype(np.float32), rng.normal(size=5000).astype(np.float32) + 0.5
    pool = PixelPool(limit=1000, per_patient=10)
    for part in range(10):
        chosen = slice(500 * part, 500 * part + 500)
        pool.add("p", low[chosen], high[chosen], np.full(500, 0.5))
    keys, weights = pool.totals()
    assert pool.dropped > 0 and pool.held <= 1500
    assert weights[:, 0].sum() == weights[:, 1].sum() == 5000 and weights[:, 2].sum() == 2500
    expected = np.unique(sortable(low) >> np.uint32(pool.dropped), return_counts=True)
    assert np.array_equal(keys[weights[:, 0] > 0], expected[0])
    assert np.array_equal(weights[weights[:, 0] > 0, 0], expected[1])


def test_edges_cut_rare_lesions_as_finely_as_common_normals() -> None:
    keys = np.arange(10_000, dtype=np.uint32)
    weights = np.zeros((10_000, 3))
    weights[:9900, 0], weights[9900:, 1] = 1, 1
    edges = edges_of(keys, weights, 100)
    assert len(edges) <= 100 and edges[0] == 0
    assert np.sum(edges >= 9900) >= 45 and np.sum(edges < 9900) >= 45


def test_memory_does_not_grow_with_the_pixels(make_cases: MakeCases) -> None:
    config = EvaluationConfig(resamples=100, pixel_values=50_000, pixel_cells=256)

    def peak(slices: int) -> int:
        tracemalloc.start()
        evaluate_pixels(make_cases(patients=4, slices=slices, side=64), config)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(100) < 1.3 * peak(20)


def test_alpha_is_chosen_by_dice_on_develop(make_cases: MakeCases) -> None:
    # Thresholds of a standard normal: 0.5 floods, 4 finds nothing.
    thresholds = {0.3085: 0.5, 0.0228: 2.0, 0.00003: 4.0}
    choice = choose_alpha(make_cases(shift=3.0), thresholds)
    assert choice.alpha == 0.0228 and choice.threshold == 2.0
    assert choice.dice[0.0228] > max(choice.dice[0.3085], choice.dice[0.00003])
    assert choice.slices == 24 and choice.patients == 6
    assert "alpha 0.0228 chosen on 24 develop slices of 6 patients" in choice.sentence
    dice = evaluate_pixels(make_cases(shift=3.0), EvaluationConfig(resamples=100), thresholds={"model": 2.0})
    assert dice.row("model").metrics["Dice"].value == pytest.approx(choice.dice[0.0228])


def test_alpha_needs_lesions_thresholds_and_a_known_map(make_cases: MakeCases) -> None:
    normals = [case for case in make_cases() if case.label == "normal"]
    with pytest.raises(EmptySelection, match=rf"\b{len(normals)} develop"):
        choose_alpha(normals, {0.01: 2.0})
    with pytest.raises(EmptySelection, match="0 develop slices"):
        choose_alpha([], {0.01: 2.0})
    with pytest.raises(ConfigError, match="alphas"):
        choose_alpha(make_cases(), {})
    with pytest.raises(ConfigError, match="'typo'"):
        choose_alpha(make_cases(), {0.01: 2.0}, "typo")
