"""Report of one night as one page of HTML: no script, nothing from elsewhere, readable aloud and printable on A4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from html import escape
from typing import Any

from pipeline.charts.html_page import write_document, write_list, write_table
from pipeline.charts.svg import element
from pipeline.review.night_charts import EVIDENCE
from pipeline.review.night_facts import NightFacts

COUNTS = {
    "files": "files read",
    "new": "new images",
    "rejected": "rejected",
    "scored": "studies scored",
    "flagged": "flagged",
    "not_scored": "series not scored",
}
HELD_BACK = (
    "Some scans are still being read blind. Everything that would reveal their results is left out: the numbers of "
    "flagged scans of their days, and the p-values and drift of their runs. Write the report again once they are "
    "decided."
)
SCREEN = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #111; background: #fff; }
body { margin: 24px auto; max-width: 1000px; padding: 0 20px; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 1.6em 0 0.4em; }
.dim { color: #444; }
.counts { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0; padding: 0; list-style: none; }
.counts li { flex: 1 1 110px; border: 1px solid #bbb; border-radius: 8px; padding: 8px 12px; color: #444; }
.counts b { display: block; font-size: 1.5rem; color: #111; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; }
.charts { margin-top: 10px; }
figure { margin: 0; border: 1px solid #ddd; border-radius: 8px; padding: 10px; break-inside: avoid; max-width: 640px; }
figure svg { width: 100%; height: auto; display: block; } figcaption { font-weight: 600; font-size: 0.9em; }
table { border-collapse: collapse; width: 100%; margin: 6px 0; }
caption { text-align: left; color: #444; font-size: 0.9em; }
th, td { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid #ddd; }
td { overflow-wrap: break-word; } td.short { white-space: nowrap; }
ul { padding-left: 1.2em; }
.notice { border-left: 4px solid #a66300; padding: 6px 12px; background: #fff6e5; }
"""
PRINT = """
@page { size: A4; margin: 15mm 14mm 17mm; font: 8pt "DejaVu Sans", sans-serif; color: #444; }
@page { @bottom-left { content: string(night); } @bottom-right { content: counter(page) " / " counter(pages); } }
@media print {
  h1 { string-set: night content(); }
  body { margin: 0; padding: 0; max-width: none; font-size: 9pt; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } thead { display: table-header-group; }
  .charts { display: block; } figure { margin-top: 8px; padding: 5px 8px; width: 130mm; }
  .counts { gap: 6px; } .counts li { flex: 1 1 24mm; padding: 3px 5px; font-size: 8pt; } .counts b { font-size: 13pt; }
}
"""


def name_report(day: date) -> str:
    """Return the name of the report of a night, without an ending."""
    return f"nightread-night-{day}"


def write_night_document(facts: NightFacts) -> str:
    """Return the page."""
    title = f"Night of {facts.day:%A %d %B %Y}"
    body = [_head(title, facts), "<main>", *_body(facts), "</main>", FOOT]
    return write_document(f"{title} · Nightread", SCREEN + PRINT, body)


FOOT = "<footer><p>Research software. Not a medical device; not for diagnosis. Days and times are UTC.</p></footer>"


def _head(title: str, facts: NightFacts) -> str:
    when = f"Written {facts.written_at:%d %B %Y %H:%M} UTC. It holds counts and codes; nothing names a patient."
    return f"<header>{element('h1', escape(title))}<p class='dim'>{escape(when)}</p></header>"


def _body(facts: NightFacts) -> Iterator[str]:
    if facts.held_back:
        yield f"<p class='notice' role='note'>{escape(HELD_BACK)}</p>"
    yield _counts(facts.counts)
    yield _section("The four weeks up to this night", _figures(facts.charts) + _legend(facts.legend))
    heads: tuple[str, ...] = ("Time", "Route", "State", "Took", "Result")
    yield _section("Scoring", _rows(heads, facts.scoring, "Nothing was scored on this day."))
    yield _section("Refused", _reasons(facts.refusals))
    yield _section("Series not scored", _reasons(facts.unscored))
    heads = ("Route", "Method", "Run", "Version", "Detector")
    yield _section("Models in use", _rows(heads, facts.models, "No model scored on this day."))
    nothing = "<p class='dim'>No route has enough scores to tell.</p>" if not (facts.drift or facts.evidence) else ""
    legend = _legend([EVIDENCE] if facts.evidence else [])
    yield _section("Drift", write_list(facts.drift) + _figures(facts.evidence) + legend + nothing)
    heads = ("Since", "Severity", "State", "What")
    yield _section("Alerts", _rows(heads, facts.alerts, "No alert was open on this day."))
    heads = ("Schedule", "Due", "Began", "Took", "State", "Errors")
    yield _section("Timings", _rows(heads, facts.schedules, "No schedule ran on this day."))
    yield _section("Versions", _rows(("What", "Version"), facts.versions, ""))


def _counts(counts: dict[str, Any]) -> str:
    cells = [
        element("li", element("b", str(counts[name])), f" {escape(words)}")
        if counts[name] is not None
        else element("li", element("b", "?"), f" {escape(words)}, held back")
        for name, words in COUNTS.items()
    ]
    return element("ul", *cells, class_="counts")


def _section(title: str, content: str) -> str:
    key = title.lower().replace(" ", "-")
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(title)}</h2>{content}</section>'


def _figures(charts: Iterable[dict[str, str]]) -> str:
    figures = [f"<figure><figcaption>{escape(one['caption'])}</figcaption>{one['svg']}</figure>" for one in charts]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _legend(lines: Sequence[str]) -> str:
    return "".join(f"<p class='dim'>{escape(line)}</p>" for line in lines)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> str:
    return write_table(heads, rows) if rows else f"<p class='dim'>{escape(empty)}</p>"


def _reasons(kinds: Sequence[dict[str, Any]]) -> str:
    rows = [
        (str(row["count"]), one["kind"], str(row["code"]), str(row["sentence"])) for one in kinds for row in one["rows"]
    ]
    return _rows(("Count", "Kind", "Code", "Example"), rows, "None.")
