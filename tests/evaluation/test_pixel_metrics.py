"""Pixel metrics: exact against scikit-learn, golden PRO and Dice, what counts and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_metrics import PixelCase, evaluate_pixels
from pipeline.evaluation.pixel_point import PixelPoint

MakeCases = Callable[..., Iterator[PixelCase]]


def pooled(cases: Iterator[PixelCase], name: str = "model") -> tuple[np.ndarray, np.ndarray]:
    pairs = [(case.mask.ravel(), case.maps[name].ravel()) for case in cases]
    return np.concatenate([mask for mask, _ in pairs]), np.concatenate([values for _, values in pairs])


def golden_case(patient: str = "p1") -> PixelCase:
    """A 4 x 4 slice: region A of one pixel (value 10), B of two (9 and 1); of 13 normal pixels one is 5, the rest 0."""
    values, mask = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    values[0, 0], values[2, 2], values[3, 2], values[0, 3] = 10, 9, 1, 5
    mask[0, 0] = mask[2, 2] = mask[3, 2] = True
    return PixelCase(patient, f"slice-{patient}", "abnormal", {"model": values}, np.ones((4, 4), bool), mask)


def test_exact_figures_equal_scikit_learn(make_cases: MakeCases, quick: EvaluationConfig) -> None:
    result = evaluate_pixels(make_cases(), quick)
    for name, row_name in (("model", "model"), ("control:raw_brightness", "raw_brightness")):
        truth, values = pooled(make_cases(), name)
        metrics = result.row(row_name).metrics
        assert metrics["AP"].value == pytest.approx(average_precision_score(truth, values), abs=1e-12)
        assert metrics["AUROC"].value == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    assert result.level == "pixel level"
    assert not any("histogram cells" in note for note in result.notes)


def test_golden_pro_and_dice(quick: EvaluationConfig) -> None:
    # PRO curve: overlap mean(1, 1/2) = 0.75 until the false positive at rate 1/13, then 1; area to 0.3, over 0.3.
    # Dice above 4: 2 of 3 lesion pixels and one false positive: 4 / (3 + 3). Best Dice, above 0: 2 * 3 / (4 + 3).
    cases = [golden_case("p1"), golden_case("p2")]
    metrics = evaluate_pixels(cases, quick, thresholds={"model": 4.0}).row("model").metrics
    assert metrics["PRO@30"].value == pytest.approx((0.75 / 13 + 0.3 - 1 / 13) / 0.3)
    assert metrics["Dice"].value == pytest.approx(4 / 6)
    assert metrics["Dice per lesion slice"].value == pytest.approx(4 / 6)
    assert metrics["best Dice (oracle)"].value == pytest.approx(6 / 7)
    assert list(metrics) == ["AP", "AUROC", "PRO@30", "best Dice (oracle)", "Dice", "Dice per lesion slice"]


def test_diagonal_pixels_are_one_region(quick: EvaluationConfig) -> None:
    case = golden_case()
    case.mask[1, 1] = True  # touches region A and region B at corners
    assert evaluate_pixels([case, golden_case("p2")], quick).counts["regions"] == 1 + 2


def test_a_small_region_weighs_as_much_as_a_large_one_in_pro_only(quick: EvaluationConfig) -> None:
    # A region of 400 pixels is found, one of a single pixel is not: AUROC barely moves, PRO halves.
    values, mask = np.zeros((40, 40), np.float32), np.zeros((40, 40), bool)
    mask[:20, :20], values[:20, :20] = True, 9.0
    mask[30, 30], values[30, 30] = True, -1.0
    cases = [PixelCase(p, p, "abnormal", {"model": values}, np.ones_like(mask), mask) for p in ("p1", "p2")]
    metrics = evaluate_pixels(cases, quick).row("model").metrics
    assert metrics["AUROC"].value > 0.99
    assert metrics["PRO@30"].value == pytest.approx(0.5)


def test_a_threshold_itself_is_not_flagged(quick: EvaluationConfig) -> None:
    cases = [golden_case("p1"), golden_case("p2")]
    at = evaluate_pixels(cases, quick, thresholds={"model": 5.0}).row("model").metrics["Dice"].value
    assert at == pytest.approx(2 * 2 / (2 + 3))


def test_pooled_dice_counts_normal_slices_and_slice_dice_does_not(quick: EvaluationConfig) -> None:
    normal = replace(golden_case("p1"), slice_id="n", label="normal", mask=np.zeros((4, 4), bool))
    cases = [golden_case("p1"), normal, golden_case("p2")]
    metrics = evaluate_pixels(cases, quick, thresholds={"model": 4.0}).row("model").metrics
    assert metrics["Dice"].value == pytest.approx(2 * 4 / (4 + 2 + 3 + 6))  # 4 true, 2 + 3 false positives, 6 lesion
    assert metrics["Dice per lesion slice"].value == pytest.approx(4 / 6)


def test_a_lesion_outside_the_body_is_missed_not_forgotten(quick: EvaluationConfig) -> None:
    case = golden_case("p1")
    case.body[0, 0] = False  # the brightest lesion pixel
    case.maps["model"][0, 0] = np.nan  # outside the body a map may hold anything
    result = evaluate_pixels([case, golden_case("p2")], quick, thresholds={"model": 4.0})
    assert result.counts["lesion_pixels"] == 6 and result.counts["lesion_pixels_outside_body"] == 1
    assert result.row("model").metrics["Dice"].value == pytest.approx(2 * 3 / (3 + 2 + 6))
    assert any("count as missed" in note for note in result.notes)


def test_normal_pixels_outside_the_body_do_not_count(quick: EvaluationConfig) -> None:
    case = golden_case("p1")
    case.body[0, 3] = False  # the false positive
    result = evaluate_pixels([case, replace(case, patient_id="p2")], quick)
    assert result.counts["normal_pixels"] == 24
    assert result.row("model").metrics["AUROC"].value == 1


def test_abnormal_slices_without_mask_are_left_out_and_counted(quick: EvaluationConfig) -> None:
    bare = replace(golden_case("p3"), mask=np.zeros((4, 4), bool))
    result = evaluate_pixels([golden_case("p1"), bare, golden_case("p2")], quick)
    assert result.counts["slices"] == 2 and result.counts["patients"] == 2
    assert any("1 abnormal slices without a mask" in note for note in result.notes)


def test_controls_are_judged_in_the_same_pass(make_cases: MakeCases, quick: EvaluationConfig) -> None:
    passes = iter(make_cases())  # a generator: a second pass would find nothing
    result = evaluate_pixels(passes, quick)
    assert [row.control for row in result.rows] == [False, True]
    assert [(v.control, v.outcome, v.metric) for v in result.verdicts] == [("raw_brightness", "beats", "pixel AP")]
    assert next(passes, None) is None


def test_intervals_hold_the_value_and_are_reproducible(make_cases: MakeCases, quick: EvaluationConfig) -> None:
    result = evaluate_pixels(make_cases(patients=12), quick, thresholds={"model": 1.5})
    for estimate in result.row("model").metrics.values():
        assert estimate.low < estimate.value < estimate.high
    assert evaluate_pixels(make_cases(patients=12), quick, thresholds={"model": 1.5}) == result


def test_a_blind_map_has_no_skill(make_cases: MakeCases, quick: EvaluationConfig) -> None:
    metrics = evaluate_pixels(make_cases(patients=10, shift=0.0), quick).row("model").metrics
    assert metrics["AUROC"].low <= 0.5 <= metrics["AUROC"].high
    # PRO of a blind map: the integral of the diagonal to 0.3, over 0.3.
    assert metrics["PRO@30"].value == pytest.approx(0.15, abs=0.03)


BAD_CASES = {
    "NaN": (lambda c: replace(c, maps={"model": np.full((4, 4), np.nan, np.float32)}), "not finite"),
    "shape": (lambda c: replace(c, maps={"model": np.zeros((3, 4), np.float32)}), "native grid"),
    "label": (lambda c: replace(c, label="unknown"), "'unknown'"),
    "contradiction": (lambda c: replace(c, label="normal"), "labelled normal"),
    "maps": (lambda c: replace(c, maps={"another": np.zeros((4, 4), np.float32)}), "'another'.*'model'"),
}


@pytest.mark.parametrize("kind", BAD_CASES)
def test_bad_cases_are_refused(kind: str, quick: EvaluationConfig) -> None:
    spoil, message = BAD_CASES[kind]
    with pytest.raises(ConfigError, match=message):
        evaluate_pixels([golden_case("p1"), spoil(golden_case("p2"))], quick)


def test_empty_selections_are_refused(quick: EvaluationConfig) -> None:
    normal = replace(golden_case(), label="normal", mask=np.zeros((4, 4), bool))
    full = replace(golden_case(), mask=np.ones((4, 4), bool))
    for cases in ([], [normal, replace(normal, patient_id="p2")], [full, replace(full, patient_id="p2")]):
        with pytest.raises(EmptySelection, match=r"\b0 (lesion|normal)\b"):
            evaluate_pixels(cases, quick)
    with pytest.raises(EmptySelection, match="at least 2"):
        evaluate_pixels([golden_case()], quick)


def test_a_threshold_for_an_unknown_map_is_refused(quick: EvaluationConfig) -> None:
    with pytest.raises(ConfigError, match="typo"):
        evaluate_pixels([golden_case("p1"), golden_case("p2")], quick, thresholds={"typo": 1.0})


def test_a_point_of_a_grid_equals_the_full_evaluation(make_cases: MakeCases, quick: EvaluationConfig) -> None:
    point = PixelPoint(quick, "model")
    unmasked = replace(golden_case("p9"), mask=np.zeros((4, 4), bool))
    for case in [*make_cases(), unmasked]:
        point.add(case)
    metrics = evaluate_pixels(make_cases(), quick).row("model").metrics
    assert point.result() == pytest.approx((metrics["AP"].value, metrics["best Dice (oracle)"].value), rel=1e-3)


def test_a_point_without_pixels_is_not_a_number(quick: EvaluationConfig) -> None:
    assert np.isnan(PixelPoint(quick, "model").result()).all()
