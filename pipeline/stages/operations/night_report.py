"""One-page report of the night: received, rejected, scored and flagged scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.notices import list_notices
from pipeline.data.sets.routes import load_routes
from pipeline.data.sets.selection import count_studies_by_route
from pipeline.data.sets.series_kind import SeriesKind
from pipeline.detection.detector_file import check_detector
from pipeline.errors import ArtefactError
from pipeline.stages.detect.score import REPORT, list_unreported
from pipeline.stages.detect.usable_champion import find_usable_champion
from pipeline.stages.operations.drift import read_drift_of_runs
from pipeline.stages.operations.drift_log import log_drift
from pipeline.stages.operations.drift_watch import read_policy, update_drift
from pipeline.stages.operations.flagged_list import list_flagged
from pipeline.stages.run.auto_config import load_run
from pipeline.stages.run.budget import list_cuts
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import list_routes_with_champions
from pipeline.types import RunRef

SHOWN = 25  # number of flagged scans on the page; `nightread flagged` lists all


def find_untrained(configs: Sequence[str], settings: Settings) -> list[str]:
    """Return the configurations whose route has no champion yet, or only ones whose files are missing or damaged."""
    routes = {path: load_run(path).data.route for path in configs}
    return [path for path, route in routes.items() if not _is_whole(find_usable_champion(settings, route))]


def _is_whole(run: RunRef | None) -> bool:
    """Whether there is such a run, and every byte of its detector and models is there."""
    try:
        return run is not None and bool(check_detector(RunFolder(Path(run.path)).detector, run.sha256))
    except ArtefactError:
        return False


def count_without_model(settings: Settings) -> dict[str, int]:
    """Return the routes without a detector, with the number of studies waiting on each.

    Routes for secondary captures only are left out: they are for wrapped images, and screen captures would be counted.
    """
    routes = load_routes(settings.routes_folder)
    with Catalogue.open(settings) as catalogue:
        counts = count_studies_by_route(
            catalogue, [route for route in routes if set(route.kinds) != {SeriesKind.SECONDARY}]
        )
    read = set(list_routes_with_champions(settings))
    return {route: count for route, count in sorted(counts.items()) if route not in read}


def in_words(waiting: dict[str, int]) -> str:
    """Return a sentence on routes with studies but no model; "" if every route has one."""
    named = ", ".join(f"{route} ({count})" for route, count in waiting.items())
    return f"Studies on routes that have no model yet: {named}. Train one with nightread train CONFIG." if named else ""


def build_night_report(
    settings: Settings,
    ingested: Sequence[dict[str, Any]],
    scored: Sequence[dict[str, Any]],
    evaluated: Sequence[dict[str, Any]],
    failures: Sequence[str] = (),
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the night's report as JSON: counts, flagged scans, and the page itself as `markdown`.

    It also shows what an earlier night scored that was stopped before its own report. `skipped` names what the night
    did not begin because its deadline had passed.
    """
    scored = [*list_unreported(settings, {report["run_id"] for report in scored}), *scored]
    with Catalogue.open(settings) as catalogue:
        flagged = [row for report in scored for row in list_flagged(catalogue, report["run_id"])]
        refused = catalogue.count_rejections()
        run_ids = [report["run_id"] for report in scored]
        not_scored = Counter(row.code for run_id in run_ids for row in catalogue.list_not_scored(run_id))
        drifts = read_drift_of_runs(catalogue, run_ids)
        cuts = _list_cuts(catalogue, settings, scored)
        watch = update_drift(catalogue, read_policy(settings))
        notices = list_notices(catalogue)
    left = sum({report["route"]: report.get("left", 0) for report in scored}.values())  # tonight's run is the last
    log_drift(settings, watch, {report["route"] for report in scored if report.get("studies")})
    report: dict[str, Any] = {
        "files": sum(r["files"] for r in ingested),
        "new": sum(r["added"] for r in ingested),
        "seen_before": sum(r["skipped"] + r["same"] for r in ingested),
        "rejected_tonight": dict(sum((Counter(r["rejected"]) for r in ingested), Counter())),
        "rejected_ever": refused,
        "not_scored": dict(not_scored),
        "without_model": count_without_model(settings),
        "scored": list(scored),
        "cut_short": cuts,
        "drift": {one.route: one.tail for one in drifts},
        "drift_sentences": [*(one.sentence() for one in drifts), *watch.sentences()],
        "drift_watch": watch.to_json(),
        "flagged": flagged,
        "evaluated": [r["sentence"] for r in evaluated],
        "failures": list(failures),
        "left": left,
        "stopped": _tell_stop(left, skipped),
        "notices": [notice.to_json() for notice in notices],
    }
    with Catalogue.open(settings) as catalogue:
        catalogue.settle(run_ids, REPORT)
    return report | {"markdown": _page(report)}


def _tell_stop(left: int, skipped: Sequence[str]) -> str:
    """Return what a night that reached its deadline left to the next one; "" for one that did not."""
    studies = [f"{left} {'study' if left == 1 else 'studies'} without a score"] if left else []
    rest = ", ".join([*studies, *skipped])
    return f"The night stopped at its deadline. Left to the next one: {rest}." if rest else ""


def _list_cuts(catalogue: Catalogue, settings: Settings, scored: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the trainings behind the night's scores that their cap ended early, by route."""
    folders = {report["route"]: catalogue.run(report["run_id"]).folder for report in scored}
    cuts = {route: list_cuts(RunFolder(settings.absolute(folder))) for route, folder in folders.items()}
    return {route: sentences for route, sentences in cuts.items() if sentences}


def _page(report: dict[str, Any]) -> str:
    counts = f"{report['files']} files: {report['new']} new, {report['seen_before']} seen before"
    parts = ["# The night", f"{counts}, {sum(report['rejected_tonight'].values())} rejected."]
    parts += [_codes("Rejected so far", report["rejected_ever"]), _codes("Series not scored", report["not_scored"])]
    parts += [report["stopped"], in_words(report["without_model"])]
    parts += [f"**{route['route']}**: {route['statement']}" for route in report["scored"]]
    parts += [f"**{route}**: {cut}" for route, cuts in report["cut_short"].items() for cut in cuts]
    parts += report["drift_sentences"]
    parts += [f"**{notice['severity'].capitalize()}**: {notice['sentence']}" for notice in report["notices"]]
    parts += [f"**Failed**: {failure}" for failure in report["failures"]]
    parts += [_flagged(report["flagged"])] + report["evaluated"]
    return "\n\n".join(part for part in parts if part)


def _codes(title: str, counts: dict[str, int]) -> str:
    return f"{title}: " + ", ".join(f"{n} {code}" for code, n in sorted(counts.items())) + "." if counts else ""


def _flagged(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "No scan is flagged."
    names = ("study", "route", "how unusual", "p", "score")
    head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines = ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows[:SHOWN]]
    more = [f"\n... and {len(rows) - SHOWN} more: `nightread flagged`"] if len(rows) > SHOWN else []
    return "\n".join(head + lines + more)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
