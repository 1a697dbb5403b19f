"""Entries of the reading list: all flagged findings and a random sample of the others, indistinguishable."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, chi2, chisquare, kstest, ncx2
from sqlalchemy import select

from pipeline.config import ReviewPolicy, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.reading_list import Drawn, chosen, draw_reading_lists, places, sample_probability
from pipeline.data.catalogue.review_schema import ReadingEntry, ReadingFrame
from pipeline.data.catalogue.schema import FindingRow


def frame(catalogue: Catalogue) -> list[ReadingFrame]:
    with catalogue.reading() as session:
        return list(session.scalars(select(ReadingFrame).order_by(ReadingFrame.finding_id)))


def entries(catalogue: Catalogue) -> list[ReadingEntry]:
    with catalogue.reading() as session:
        return list(session.scalars(select(ReadingEntry).order_by(ReadingEntry.place, ReadingEntry.tie)))


@pytest.mark.parametrize(
    ("flagged", "unflagged", "share", "least", "expected"),
    [(50, 1000, 0.02, 5, 0.02), (50, 100, 0.02, 5, 0.05), (6, 12, 0.02, 5, 3 / 12), (0, 4, 0.02, 5, 1 / 4),
     (2, 1, 0.02, 5, 1), (20, 3, 0.02, 5, 1), (1, 0, 0.02, 5, 0), (9, 50, 0, 0, 0), (9, 50, 1, 0, 1)],
)  # fmt: skip
def test_two_per_cent_at_least_five_but_half_of_the_flagged(
    flagged: int, unflagged: int, share: float, least: int, expected: float
) -> None:
    policy = ReviewPolicy(sample_share=share, sample_least=least)
    assert sample_probability(flagged, unflagged, policy) == pytest.approx(expected)


def test_flagged_are_all_listed_and_the_lot_is_kept_with_its_probability(nights: Any) -> None:
    nights.scans(range(40))
    nights.score({n: 0.01 if n < 4 else 0.5 for n in range(40)}, rng=np.random.default_rng(0))
    rows = frame(nights.catalogue)
    assert len(rows) == 40
    assert [(r.flagged, r.probability, r.selected) for r in rows if r.flagged] == [(True, 1.0, True)] * 4
    quiet = [r for r in rows if not r.flagged]
    assert 0 < sum(r.selected for r in quiet) < 9
    assert {r.probability for r in quiet} == {2 / 36}
    assert {e.finding_id for e in entries(nights.catalogue)} == {r.finding_id for r in rows if r.selected}


def test_drawing_again_adds_nothing_and_a_run_without_draw_is_made_good(nights: Any) -> None:
    nights.scans(range(10))
    run_id = nights.score({n: 0.5 for n in range(10)}, draw=False)
    policy = ReviewPolicy(sample_share=1, sample_least=0)
    assert draw_reading_lists(nights.catalogue, policy) == [Drawn(run_id, 0, 10, 10, 1.0)]
    assert draw_reading_lists(nights.catalogue, policy) == []
    assert len(entries(nights.catalogue)) == 10


@pytest.mark.parametrize("p_value", [0.01, 0.5])
def test_a_night_of_one_study_is_blinded_whatever_it_is(nights: Any, p_value: float) -> None:
    nights.scans(range(1))
    nights.score({0: p_value})
    (entry,) = entries(nights.catalogue)
    assert entry.blinded


def test_scored_again_and_flagged_now_it_is_listed_but_keeps_its_probability(nights: Any) -> None:
    nights.scans(range(3))
    policy = ReviewPolicy(sample_share=0, sample_least=0)
    nights.score(dict.fromkeys(range(3), 0.5), policy=policy)
    assert entries(nights.catalogue) == []
    nights.score({0: 0.01, 1: 0.5, 2: 0.5}, policy=policy)
    assert [e.finding_id for e in entries(nights.catalogue)] == [nights.finding(0)]
    assert [(r.flagged, r.selected) for r in frame(nights.catalogue)] == [(False, False)] * 3


def test_nothing_on_the_list_tells_a_sampled_row(nights: Any) -> None:
    """The list's own columns: places are those of flagged findings, and everything else is the same for all."""
    nights.scans(range(300))
    nights.score(
        {n: 0.001 * (n + 1) if n < 30 else 0.5 for n in range(300)},
        policy=ReviewPolicy(sample_share=0.2),
        rng=np.random.default_rng(0),
    )
    listed = entries(nights.catalogue)
    flagged = {r.finding_id for r in frame(nights.catalogue) if r.flagged}
    sampled = [e for e in listed if e.finding_id not in flagged]
    assert abs(len(sampled) - 54) < 4 * (270 * 0.2 * 0.8) ** 0.5
    assert {e.place for e in sampled} <= {e.place for e in listed if e.finding_id in flagged}
    for name in ("modality", "body_part", "route", "model_sha256", "blinded", "listed_at"):
        assert len({getattr(e, name) for e in listed}) == 1
    assert {e.blinded for e in listed} == {True}


def test_sampled_rows_lie_anywhere_among_the_flagged() -> None:
    """Ranks of sampled rows are uniform: 40 nights of 25, Kolmogorov-Smirnov at 1e-4.

    Power: were they sorted last, or by finding id, D would be near 0.5, and the p-value below 1e-100.
    """
    ranks = []
    for night in range(40):
        listed, sampled = _one_night(night, flagged=25, unflagged=25)
        ranks += [(listed.index(finding) + 0.5) / len(listed) for finding in sampled]
    assert kstest(ranks, "uniform").pvalue > 1e-4


def test_every_unflagged_finding_is_as_likely_as_any_other_and_their_number_varies() -> None:
    """2 000 draws out of 20 with probability 1/4: how often each came, and how many at once, by chi-square at 1e-4.

    Power: a draw that favours one finding by two fifths (0.35 instead of 0.25) is seen with probability above 0.99.
    """
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    rng, rows = np.random.default_rng(3), [FindingRow(id=n) for n in range(20)]
    for _ in range(2_000):
        sampled = chosen(rows, 0.25, rng)
        counts.update(sampled)
        sizes[min(max(len(sampled), 2), 8)] += 1
    spread, critical = 2_000 * 0.25 * 0.75, chi2.isf(1e-4, 20)
    assert sum((counts[n] - 500) ** 2 for n in range(20)) / spread < critical
    assert ncx2.sf(critical, 20, 200**2 / spread) > 0.99
    at_most = binom.cdf(np.arange(2, 8), 20, 0.25)
    expected = 2_000 * np.diff(np.concatenate([[0], at_most, [1]]))
    assert chisquare([sizes[n] for n in range(2, 9)], expected).pvalue > 1e-4


def _one_night(seed: int, flagged: int, unflagged: int) -> tuple[list[int], list[int]]:
    """Return the ids of a night in the list's order, and those of its sampled rows, without a database."""
    rows = [
        FindingRow(id=n, study_id=str(n), flagged=n < flagged, p_value=0.001 * (n + 1), score=-n, evidence=[])
        for n in range(flagged + unflagged)
    ]
    placed = places(rows[:flagged], rows[flagged:], [], np.random.default_rng(seed))
    ordered = [row.id for row, place, tie in sorted(placed, key=lambda item: (item[1], item[2]))]
    return ordered, [n for n in ordered if n >= flagged]


def test_the_score_stage_draws(trained: Any, tmp_path: Path) -> None:
    """The hook: after a scoring run everything flagged is on the list, and the run has its draw."""
    from pipeline.stages.detect.score import find_detectors_to_run, score

    workspace = tmp_path / "workspace"
    shutil.copytree(trained.settings.workspace, workspace)
    settings = Settings(workspace=workspace)
    (run,) = find_detectors_to_run(settings)
    report = score(run, settings)
    with Catalogue.open(settings) as catalogue:
        rows = frame(catalogue)
        assert len(rows) == report.studies > 0
        assert sum(r.flagged for r in rows) == report.flagged
        assert {e.finding_id for e in entries(catalogue)} == {r.finding_id for r in rows if r.selected}
