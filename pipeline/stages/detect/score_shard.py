"""One worker's share of a scoring run: studies that it has taken, scored with the run's detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sqlalchemy import select

from pipeline.data.catalogue.schema import Series
from pipeline.data.catalogue.scoring_claims import DEATHS, Claims
from pipeline.data.sets.selection import NotScoredSeries, Selection
from pipeline.detection.domain_gate import DomainGate
from pipeline.detection.scorer import Scorer
from pipeline.errors import Rejected, RejectionCode
from pipeline.stages.detect.pending_maps import BestSlices, PendingMaps
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.route_gate import OUT_OF_DOMAIN, screen
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.scan_groups import rank_within_groups
from pipeline.stages.run.score_slices import OnProgress, Stop, find_unfinished, findings, score_dataset
from pipeline.types import Finding, SliceRef, SliceScore


@dataclass(frozen=True, slots=True)
class ShardScorer:
    """Scores share after share of a run.

    Attributes:
        opened: the run's detector, configuration and catalogue.
        gate: its out-of-domain gate, if it has one.
        claims: this worker's.
        again: also series that the gate held before.
        stop: asked again and again; once true, a share ends with the study in hand, and the rest of it is free again.
    """

    opened: OpenRun
    gate: DomainGate | None
    claims: Claims
    again: bool
    stop: Stop | None = None

    def score_next(self, on_progress: OnProgress | None = None) -> int | None:
        """Take the next studies and score them; return how many slices they had, None if no study is free."""
        taken = self.claims.take()
        self._give_up(taken.given_up)
        if not taken.studies:
            return None
        selection = unread(self.opened.choose(study_ids=taken.studies))[0]
        results, unfinished = self._score(selection, on_progress)
        self.claims.complete({study: results.get(study, {}) for study in taken.studies if study not in unfinished})
        if unfinished:
            self.claims.release()
        return len(selection.slices)

    def _score(
        self, selection: Selection, on_progress: OnProgress | None
    ) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Return the results by study, and the studies that a stop has left unfinished."""
        opened = self.opened
        strangers: tuple[NotScoredSeries, ...] = ()
        measures: dict[str, dict[str, float]] = {}
        if self.gate is not None:
            screened = screen(opened, self.gate, not_held(selection, opened, self.again))
            selection, strangers, measures = screened.selection, screened.held, screened.measures
        data = opened.dataset(selection, cache="none")
        best = BestSlices(data)
        scores, rejected = score_dataset(opened.detector, data, best.offer, on_progress, self.stop)
        unfinished = set() if self.stop is None or not self.stop() else find_unfinished(data, scores)
        scores = [score for score in scores if score.study_id not in unfinished]
        scored, refused = findings(opened.detector, scores)
        rows = [(s.series_id, s.code, s.sentence) for s in (*strangers, *rejected)] + _refused(refused, scores)
        opened.catalogue.add_not_scored(self.claims.run_id, rows)
        best.write(PendingMaps(opened.folder.path, self.claims.run_id))  # before the result that makes them needed
        results: dict[str, dict[str, Any]] = {study: {"measures": values} for study, values in measures.items()}
        for one in study_p_values(scored, opened.detector, opened.config, selection.slices):
            results.setdefault(one.study_id, {})["finding"] = asdict(one)
        return results, unfinished

    def _give_up(self, studies: tuple[str, ...]) -> None:
        if not studies:
            return
        sentence = (
            f"The worker died {DEATHS} times with this study in hand, so it is left out of this run. Look at the size "
            "of the study and the machine's memory; the next night tries it again."
        )
        with self.opened.catalogue.reading() as session:
            series = session.scalars(select(Series.series_id).where(Series.study_id.in_(studies))).all()
        code = RejectionCode.SCORING_CRASHED.value
        self.opened.catalogue.add_not_scored(self.claims.run_id, [(one, code, sentence) for one in series])


def read_finding(values: Mapping[str, Any]) -> Finding:
    """Return a finding from the result of a claim."""
    return Finding(**{**values, "evidence": tuple(SliceScore(**one) for one in values["evidence"])})


def unread(selection: Selection) -> tuple[Selection, int]:
    """Leave out studies that have any label; also return how many have."""
    read = {ref.study_id for ref in selection.slices if ref.label != "unknown"}
    return replace(selection, slices=tuple(ref for ref in selection.slices if ref.study_id not in read)), len(read)


def not_held(selection: Selection, opened: OpenRun, again: bool) -> Selection:
    """Leave out series that this very detector's gate held before, which would be held again each night."""
    if again:
        return selection
    held = opened.catalogue.list_held(opened.ref.sha256, OUT_OF_DOMAIN)
    return replace(selection, slices=tuple(ref for ref in selection.slices if ref.series_id not in held))


def study_p_values(
    results: list[Finding], detector: Scorer, config: RunConfig, slices: Sequence[SliceRef]
) -> list[Finding]:
    """Return the findings with the p-values that a night flags by.

    If the calibration unit is a slice, each study's smallest p-value is Bonferroni-corrected; if the calibration has
    groups, each study is ranked within its own. `slices` are those that were scored.
    """
    calibration = detector.calibration
    if calibration is not None and calibration.groups:
        return rank_within_groups(results, slices, calibration, detector.config.groups.by)
    if config.unit == "study" or calibration is None:
        return results
    merged = []
    for finding in results:
        best = float(np.min(calibration.p_values([slice_.score for slice_ in finding.evidence])))
        merged.append(replace(finding, p_value=min(1.0, best * len(finding.evidence))))
    return merged


def _refused(refused: dict[str, Rejected], scores: list[SliceScore]) -> list[tuple[str, str, str]]:
    series = {score.study_id: score.series_id for score in scores}
    return [(series[study], error.code.value, error.sentence) for study, error in refused.items()]
