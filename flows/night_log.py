"""Log of a night in Prefect's pages: what each part did, in sentences made of counts, routes, codes and pseudonyms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run, task_run

from flows.json_console import WRITTEN
from pipeline.progress import Advance, progress_into, show_progress
from pipeline.stages.watch.json_log import is_json_log, write_json_line


def log_lines(lines: Iterable[str]) -> None:
    """Write lines into the log of the flow run, without what libraries would add to them."""
    try:
        logger = get_run_logger()
    except MissingContextError:  # a flow's function that a test calls by itself
        return
    for line in lines:
        logger.info(line, extra={WRITTEN: is_json_log()})
        _write("info", line)


def log_text(text: str) -> None:
    """Write a text of one or more lines into the log of the run."""
    log_lines(text.splitlines())


def log_failures(failures: Iterable[str]) -> None:
    """Write the errors of a part into the log, as errors; they hold no path and no identity (`keep_discreet`)."""
    try:
        logger = get_run_logger()
    except MissingContextError:
        return
    for failure in failures:
        logger.error(failure, extra={WRITTEN: is_json_log()})
        _write("error", failure)


def _write(level: str, line: str) -> None:
    """Write a line as JSON too, with the ids of the run, if the environment asks for it (NIGHTREAD_LOG)."""
    write_json_line(level, "night", line, flow_run_id=flow_run.id, flow_run_name=flow_run.name, task_run_id=task_run.id)


def progress_into_log() -> AbstractContextManager[None]:
    """Write the progress of stages that report by themselves, such as a training, into the log of the task run."""
    return progress_into(lambda line: log_lines([line]))


@contextmanager
def log_progress(label: str, unit: str) -> Iterator[Advance]:
    """Write the progress of long work into the log of the task run; yield `advance(done, total)`."""
    with progress_into_log(), show_progress(label, unit) as advance:
        yield advance


def ingest_lines(reports: Sequence[Mapping[str, Any]], labels: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per folder or archive, by number since its name may identify somebody, and one per label file."""
    lines = []
    for number, report in enumerate(reports, start=1):
        before, refused = report["skipped"] + report["same"], report["rejected"]
        codes = ", ".join(f"{count} {code}" for code, count in refused.items()) or "none"
        lines.append(f"Source {number}: {report['added']} new images, {before} seen before; refused: {codes}.")
    lines += [f"Label file {number}: {_counts(report)}." for number, report in enumerate(labels, start=1)]
    return lines or ["There was nothing to read."]


def train_lines(configs: Sequence[str], trained: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on the routes without a champion, and one per trained detector."""
    if not configs:
        return ["Every configured route has a champion, so nothing is trained."]
    return [f"{len(configs)} route{' had' if len(configs) == 1 else 's had'} no champion."] + [
        f"Trained {report['route']}, version {report['version'] or 'none'}. {report.get('cut_short') or ''}".rstrip()
        for report in trained
    ]


def score_lines(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per route with what its rule promised."""
    lines = [
        f"{report['route']}: {report['studies']} studies scored, {report['flagged']} flagged, {report['not_scored']} "
        f"series not scored. {report['statement']}"
        for report in reports
    ]
    return lines or ["No route has a champion, so nothing was scored."]


def evaluate_lines(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the headline of each route."""
    return [str(report["sentence"]) for report in reports] or ["No detector was evaluated."]


def cut_lines(cut_short: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for every training behind tonight's scores that its cap ended early."""
    return [f"{route}: {cut}" for route, cuts in cut_short.items() for cut in cuts]


def _counts(report: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in report.items() if isinstance(value, int) and not isinstance(value, bool)}
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in numbers.items())
