"""The report: complete, readable in a terminal, the same after a trip through JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from pipeline.detection.conformal import Threshold
from pipeline.evaluation.build import build_report
from pipeline.evaluation.compare import compare
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.pixel_alpha import choose_alpha
from pipeline.evaluation.pixel_metrics import PixelCase
from pipeline.evaluation.report import EvaluationReport, Opening

MakeScores = Callable[..., pd.DataFrame]
MakeCases = Callable[..., Iterator[PixelCase]]
CLUSTERED = "empirical, clustered, no guarantee"


@pytest.fixture
def report(make_scores: MakeScores, make_cases: MakeCases, quick: EvaluationConfig) -> EvaluationReport:
    """A report with everything in it."""
    frame = make_scores(patients=40, units=5, relative_position=[0.1, 0.4, 0.5, 0.6, 0.9] * 40)
    frame["sex"] = np.where(frame["patient_id"] < "p0020", "F", "M")
    frame["control:position"] = frame["score"] + 2.0 * (frame["label"] == "abnormal")
    frame["control:noise"] = np.random.default_rng(0).normal(size=len(frame))
    frame["p_value"] = 1 - frame["score"].rank() / (len(frame) + 1)
    alpha = choose_alpha(make_cases(seed=1), {0.01: 2.3, 0.05: 1.6})
    cases = (
        PixelCase(c.patient_id, c.slice_id, c.label, {"vae": c.maps["model"]}, c.body, c.mask) for c in make_cases()
    )
    return build_report(
        frame,
        quick,
        name="vae",
        title="LGG, vae",
        set_name="test",
        facts={"route": "mr-flair", "data sha256": "0123"},
        guarantee=CLUSTERED,
        thresholds=[Threshold(1.5, 0.05, 199, 10, 0.05, None, CLUSTERED)],
        n_calibration=199,
        cases=cases,
        pixel_alpha=alpha,
        openings=[Opening(opened_at="2025-01-02T03:04:05", purpose="final table")],
        notes=["A note."],
    ).model_copy(update={"comparisons": (compare(frame, "score", "control:noise", quick),)})


def test_the_dice_of_develop_does_not_pass_as_blind(
    make_scores: MakeScores, make_cases: MakeCases, quick: EvaluationConfig
) -> None:
    """Develop chooses the pixel alpha, so its Dice is measured on labels that were used."""
    alpha, pages = choose_alpha(make_cases(seed=1), {0.01: 2.3, 0.05: 1.6}), {}
    for name in ("develop", "test"):
        report = build_report(make_scores(), quick, name="model", set_name=name, cases=make_cases(), pixel_alpha=alpha)
        pages[name] = report.to_markdown()
    assert "whose alpha was chosen on these same labels" in pages["develop"]
    assert "chosen without these labels" in pages["test"] and "chosen without these labels" not in pages["develop"]


def test_markdown_says_everything(report: EvaluationReport) -> None:
    text = report.to_markdown()
    for expected in (
        "# Evaluation: LGG, vae",
        f"**{CLUSTERED}**",
        "## Slice level: all slices",
        "## Slice level: central slices (0.3 < relative_position < 0.7)",
        "## Pixel level: all slices",
        "vae loses to the control position",
        "vae beats the controls noise",
        "There are no trivial controls",  # the pixel table has none
        "best Dice (oracle)",
        "Obuchowski 1997 (units clustered by patient)",
        "## Thresholds",
        "chosen on 24 develop slices of 6 patients",
        "At the threshold for 0.05: realised false-positive rate",
        "## Subgroups",
        "## Openings of the test set: 1",
        "final table",
        "- A note.",
        "sensitivity at 90 % specificity |",
    ):
        assert expected in text, expected
    assert text.index("| vae ") < text.index("| control: position")


def test_every_metric_has_an_interval_beside_it(report: EvaluationReport) -> None:
    for line in report.to_markdown().splitlines():
        if line.startswith(("| vae ", "| control: ")):
            cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
            assert all(re.fullmatch(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)|-", cell) for cell in cells)


def test_tables_are_aligned_in_the_source(report: EvaluationReport) -> None:
    block: list[str] = []
    for line in [*report.to_markdown().splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            assert len({len(row) for row in block}) == 1
            block = []


def test_json_round_trip_keeps_all_but_the_frames(report: EvaluationReport) -> None:
    back = EvaluationReport.model_validate_json(report.model_dump_json())
    assert back.to_markdown() == report.to_markdown()
    assert back.summary() == report.summary()
    assert back.roc_points.empty and not report.roc_points.empty
    assert list(report.roc_points.columns) == ["score", "threshold", "fpr", "tpr", "precision"]
    assert len(report.p_values) > 50


def test_summary_has_names_that_a_tracker_takes(report: EvaluationReport) -> None:
    summary = report.summary()
    assert all(re.fullmatch(r"[a-z0-9_/]+", name) for name in summary)
    assert {
        "all_slices/vae/auroc",
        "all_slices/vae/auroc_low",
        "central_slices/vae/ap",
        "all_slices_pixels/vae/pro_at_30",
    } <= set(summary)
    assert all(np.isfinite(value) for value in summary.values())
    assert not any("control" in name or "noise" in name for name in summary)


def test_test_openings_are_printed_even_when_none_is_recorded(report: EvaluationReport) -> None:
    unrecorded = report.model_copy(update={"openings": ()})
    assert "## Openings of the test set: 0\n\nNo opening is recorded." in unrecorded.to_markdown()
    assert "Openings" not in report.model_copy(update={"set_name": "develop"}).to_markdown()


def test_studies_and_images_get_no_central_table(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores(units=1, relative_position=0.5)
    study = build_report(frame, quick, name="ae", set_name="develop", unit="study")
    image = build_report(frame.assign(image_is_subject=True), quick, name="ae", set_name="develop")
    assert [table.title for table in study.tables] == ["all studies"]
    assert [(table.title, table.level) for table in image.tables] == [("all images", "image level")]


def test_a_missing_central_table_is_explained(make_scores: MakeScores, quick: EvaluationConfig) -> None:
    frame = make_scores(units=2, patients=20, relative_position=[0.1, 0.9] * 20)
    report = build_report(frame, quick, name="ae", set_name="develop")
    assert len(report.tables) == 1
    assert report.notes == (
        "No table of central slices: None of 40 units has 0.3 < relative_position < 0.7. "
        "Widen the range evaluation.central.",
    )


def test_nothing_identifies_a_patient(report: EvaluationReport) -> None:
    written = report.model_dump_json() + report.to_markdown() + repr(report)
    assert not re.search(r"p\d{4}|u\d{5}", written)


def test_markdown_cells_are_escaped_and_numbers_are_right_aligned() -> None:
    table = markdown_table(["name", "n"], [["a|b\nc", 5], ["漢字", 123]])
    assert table.splitlines() == ["| name   |   n |", "| ------ | --: |", "| a\\|b c |   5 |", "| 漢字   | 123 |"]
    assert markdown_table(["only"], []).splitlines() == ["| only |", "| ---- |"]
