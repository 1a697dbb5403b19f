"""Report of an evaluation as one page of HTML: charts first, tables folded below, for MLflow and any browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from pipeline.charts.html_page import write_document, write_list, write_table
from pipeline.charts.svg import element
from pipeline.evaluation.chart_data import ChartData
from pipeline.evaluation.headline import headline_sentence
from pipeline.evaluation.metric_words import describe_metric
from pipeline.evaluation.report import EvaluationReport, verdict_lines
from pipeline.evaluation.results import ResultTable
from pipeline.evaluation.subgroups import subgroup_frame

CAPTIONS = {
    "roc": "Each curve is a score. A model that is not above the best control is not needed.",
    "scores": "Share of normal and of abnormal units at each score; units right of a threshold are flagged.",
    "rates": "A point on the dotted line keeps its promise; above it, normals are flagged more often than promised.",
    "p_values": "Points within the band behave as promised; both axes are logarithmic.",
    "subgroups": "Where an interval does not reach the dashed line, the model probably works better or worse for this "
    "group. Intervals are not corrected for the number of groups.",
}
STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #111; background: #fff; }
body { margin: 24px auto; max-width: 1260px; padding: 0 20px; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 1.4em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 18px; }
figure { margin: 0; border: 1px solid #ddd; border-radius: 8px; padding: 12px; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; } figure.wide svg { max-width: 980px; }
figure svg { width: 100%; height: auto; display: block; } figcaption { color: #444; font-size: 0.9em; }
table { border-collapse: collapse; margin: 8px 0; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid #ddd; }
details { margin: 10px 0; } summary { cursor: pointer; font-weight: 600; }
@media print { details::details-content { content-visibility: visible; block-size: auto; } body { margin: 0; } }
"""


@dataclass(frozen=True, slots=True)
class PageTable:
    """One table of a page: its title, what is said above it, its head, its rows, and the lines below it."""

    title: str
    above: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()


def page_tables(report: EvaluationReport) -> Iterator[PageTable]:
    """Yield the tables of a report as text: results with their controls, thresholds, subgroups, openings of test."""
    yield from map(_result_table, report.tables)
    if report.operating_points or report.pixel_alpha:
        yield _threshold_table(report)
    if report.subgroups:
        frame = subgroup_frame(report.subgroups)
        rows = tuple(tuple(map(str, row)) for row in frame.to_numpy().tolist())
        note = "Intervals are not corrected for the number of groups."
        yield PageTable("Subgroups", "", tuple(map(str, frame.columns)), rows, (note,))
    if report.openings:
        openings = tuple((one.opened_at, one.purpose) for one in report.openings)
        yield PageTable("Openings of the test set", "", ("opened at", "purpose"), openings)


def _result_table(table: ResultTable) -> PageTable:
    metrics = list(dict.fromkeys(name for row in table.rows for name in row.metrics))
    rows = tuple(
        (
            f"control: {row.name}" if row.control else row.name,
            *(row.metrics[name].text() if name in row.metrics else "" for name in metrics),
        )
        for row in table.rows
    )
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in table.counts.items() if count)
    return PageTable(
        f"{table.level.capitalize()}: {table.title}",
        f"{counts}. {table.interval}.",
        ("score", *map(describe_metric, metrics)),
        rows,
        (*verdict_lines(table), *table.notes),
    )


def _threshold_table(report: EvaluationReport) -> PageTable:
    rows = tuple(
        (
            f"{point.threshold.alpha:.3g}",
            f"{point.threshold.value:.5g}",
            f"{point.threshold.n}",
            "-" if point.realised is None else point.realised.rate.text(),
        )
        for point in report.operating_points
    )
    lines = [point.sentence for point in report.operating_points if point.sentence]
    lines += [report.pixel_alpha.sentence] if report.pixel_alpha else []
    heads = ("target false-positive rate", "threshold", "calibration normals", "realised false-positive rate")
    return PageTable("Thresholds", f"p-values and thresholds: {report.guarantee}.", heads, rows, tuple(lines))


def write_page(report: EvaluationReport, charts: ChartData) -> str:
    """Return the page; it loads nothing from elsewhere."""
    title = f"Evaluation: {report.title}"
    figures = "".join(_figure(name, svg) for name, svg in charts.draw("chart").items())
    body = [
        element("h1", escape(title)),
        *(f"<p>{escape(line)}</p>" for line in (headline_sentence(report), *_facts(report))),
        f'<div class="charts">{figures}</div>',
        "<h2>Tables</h2>",
        *map(_folded, page_tables(report)),
        *(["<h2>Notes</h2>", write_list(report.notes)] if report.notes else []),
        "<p>Research software. Not a medical device; not for diagnosis.</p>",
    ]
    return write_document(title, STYLE, body)


def _facts(report: EvaluationReport) -> Iterator[str]:
    yield ", ".join(f"{name} {value}" for name, value in {"set": report.set_name, **report.facts}.items()) + "."


def _figure(name: str, svg: str) -> str:
    wide = ' class="wide"' if name == "subgroups" else ""
    return f"<figure{wide}>{svg}{element('figcaption', escape(CAPTIONS[name]))}</figure>"


def _folded(table: PageTable) -> str:
    above = element("p", escape(table.above)) if table.above else ""
    summary = element("summary", escape(table.title))
    return f"<details>{summary}{above}{write_table(table.heads, table.rows)}{write_list(table.lines)}</details>"
