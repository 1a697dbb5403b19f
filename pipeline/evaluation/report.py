"""Report of an evaluation: every result with its interval, its controls, and its limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
from pydantic import ConfigDict, Field

from pipeline.config import Config
from pipeline.detection.conformal import Threshold
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.compare import Comparison
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.matched import IN_STRATA
from pipeline.evaluation.metric_words import SENSITIVITY, describe_metric
from pipeline.evaluation.pixel_alpha import AlphaChoice
from pipeline.evaluation.realised import RealisedRate, excess
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.subgroups import Subgroup, subgroup_frame


class Opening(Config):
    """One opening of the test set, as the catalogue recorded it."""

    opened_at: str
    purpose: str


class OperatingPoint(Config):
    """A threshold from held-out normals, and its realised rate on the normals of this set."""

    threshold: Threshold
    realised: RealisedRate | None = None

    @property
    def sentence(self) -> str:
        """Return the realised rate and any warning that it exceeds the target; "" if it was not measured."""
        if self.realised is None:
            return ""
        sentence = f"At the threshold for {self.threshold.alpha:.3g}: {self.realised.sentence}"
        if self.threshold.interval is None:  # there is no guarantee
            return sentence
        return f"{sentence} {excess(self.realised, self.threshold.n, self.threshold.k)}".strip()


class EvaluationReport(Config):
    """Results of an evaluation, as JSON and as Markdown.

    Attributes:
        title: e.g. the run's name.
        set_name: develop, gate or test.
        facts: description of the evaluated detector and data: data set, route, method, fingerprints.
        guarantee: guarantee of p-values and thresholds (`detection.calibrate.GUARANTEES`).
        tables: image level first, then pixel level; each has its controls.
        comparisons: comparisons of models.
        operating_points: thresholds with their n, alpha and interval.
        pixel_alpha: choice of the pixel threshold.
        subgroups: by scanner, site, sex and age band.
        openings: openings of the test set; empty for other sets.
        notes: further notes for the reader.
        roc_points, p_values: for CSV and figures; not part of the JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    title: str
    set_name: str
    facts: dict[str, str | int | float] = Field(default_factory=dict)
    guarantee: str = ""
    tables: tuple[ResultTable, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    pixel_alpha: AlphaChoice | None = None
    subgroups: tuple[Subgroup, ...] = ()
    openings: tuple[Opening, ...] = ()
    notes: tuple[str, ...] = ()
    roc_points: pd.DataFrame = Field(default_factory=pd.DataFrame, exclude=True, repr=False)
    p_values: pd.DataFrame = Field(default_factory=pd.DataFrame, exclude=True, repr=False)

    def summary(self) -> dict[str, float]:
        """Return the models' results under flat names for a tracker: `all_slices/ae/auroc`, with `_low` and `_high`."""
        flat: dict[str, float] = {}
        for table in self.tables:
            selection = table.title.partition(" (")[0] + (" pixels" if table.level == "pixel level" else "")
            for row in (row for row in table.rows if not row.control):
                for metric, estimate in row.metrics.items():
                    name = "/".join(map(_slug, (selection, row.name, metric)))
                    bounds = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
                    flat |= {f"{name}{end}": value for end, value in bounds.items() if value is not None}
        return flat

    def to_markdown(self) -> str:
        """Return the whole report."""
        sections = [f"# Evaluation: {self.title}", *self._head(), *map(_table_section, self.tables)]
        if self.comparisons:
            sections.append(f"## Comparison of models\n\n{_bullets(c.sentence for c in self.comparisons)}")
        if self.operating_points or self.pixel_alpha:
            sections.append(self._thresholds())
        if self.subgroups:
            sections.append(self._subgroups())
        if self.set_name == "test":
            sections.append(self._openings())
        if self.notes:
            sections.append(f"## Notes\n\n{_bullets(self.notes)}")
        return "\n\n".join(sections) + "\n"

    def _head(self) -> Iterator[str]:
        facts = {"set": self.set_name, **self.facts}
        yield markdown_table(["fact", "value"], [(name, str(value)) for name, value in facts.items()])
        if self.guarantee:
            yield f"p-values and thresholds: **{self.guarantee}**."

    def _thresholds(self) -> str:
        parts = ["## Thresholds"]
        if self.operating_points:
            headers = ["target FPR", "threshold", "normals n", "k", "expected FPR", "95 % of calibrations", "guarantee"]
            parts.append(markdown_table(headers, [_threshold_row(p.threshold) for p in self.operating_points]))
            parts.append(_bullets(p.sentence for p in self.operating_points if p.sentence))
        parts += [self.pixel_alpha.sentence] if self.pixel_alpha else []
        return "\n\n".join(part for part in parts if part)

    def _subgroups(self) -> str:
        frame = subgroup_frame(self.subgroups)
        table = markdown_table(list(frame.columns), frame.to_numpy().tolist())
        return f"## Subgroups\n\n{table}\n\nIntervals are not corrected for the number of groups."

    def _openings(self) -> str:
        rows = [(number, o.opened_at, o.purpose) for number, o in enumerate(self.openings, 1)]
        table = markdown_table(["no.", "opened at", "purpose"], rows) if rows else "No opening is recorded."
        return f"## Openings of the test set: {len(rows)}\n\n{table}"


def _table_section(table: ResultTable) -> str:
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in table.counts.items() if value)
    parts = [f"## {table.level.capitalize()}: {table.title}", f"{counts}. {table.interval}."]
    metrics = list(dict.fromkeys(metric for row in table.rows for metric in row.metrics))
    rows = [
        (f"control: {row.name}" if row.control else row.name, *(_shown(row.metrics.get(m)) for m in metrics))
        for row in table.rows
    ]
    parts.append(markdown_table(["score", *map(describe_metric, metrics)], rows))
    parts.append(_bullets([*verdict_lines(table), *table.notes, *_legend(metrics)]))
    return "\n\n".join(part for part in parts if part)


def _legend(metrics: Sequence[str]) -> Iterator[str]:
    """Explain the short column names."""
    if any(metric.startswith(SENSITIVITY) for metric in metrics):
        yield (
            "Sensitivity at S % specificity: best sensitivity of any threshold with at least that specificity on these "
            "units."
        )
    if any(metric.startswith(IN_STRATA) for metric in metrics):
        yield (
            "In strata of a control: only pairs of units within one quantile stratum of it. Given a control: of the "
            "residuals of a regression on it, fitted on normals. A score that only reads the control is near 0.5."
        )
    if any(metric.startswith("PRO@") for metric in metrics):
        yield "PRO@F: mean overlap with a lesion region, up to F % false positives. Oracle: chosen on these labels."


def verdict_lines(table: ResultTable) -> list[str]:
    """Return a sentence for every control that a model does not beat, and one listing those that it beats."""
    lines = [verdict.sentence for verdict in table.verdicts if verdict.outcome != "beats"]
    for model in dict.fromkeys(verdict.model for verdict in table.verdicts):
        beaten = [v.control for v in table.verdicts if v.model == model and v.outcome == "beats"]
        if beaten:
            lines.append(f"{model} beats the controls {', '.join(beaten)} ({table.verdicts[0].metric}).")
    return lines or ["There are no trivial controls, so nothing shows that these results need a model."]


def _threshold_row(threshold: Threshold) -> tuple[object, ...]:
    spread = f"{threshold.interval[0]:.3f} to {threshold.interval[1]:.3f}" if threshold.interval else "none"
    value, expected = f"{threshold.value:.5g}", f"{threshold.expected_fpr:.4f}"
    return f"{threshold.alpha:g}", value, threshold.n, threshold.k, expected, spread, threshold.guarantee


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else estimate.text()


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.replace("@", " at ").lower()).strip("_")
