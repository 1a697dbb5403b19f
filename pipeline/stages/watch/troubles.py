"""Conditions that are worth an alert: what is wrong now, each with a key, a severity and a sentence without names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.exports import count_unsent
from pipeline.data.catalogue.notices import list_notices
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import NightRow
from pipeline.stages.watch.nights import has_received_since, has_run_since, last_night, list_schedules
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.site_config import SiteConfig, WatchConfig

CRITICAL, WARNING = "critical", "warning"
SENDING_MINUTES = 15  # an object that has been pending for longer was being sent by a process that died


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is wrong. `key` is the same while it lasts; `severity` is critical or warning."""

    key: str
    severity: str
    sentence: str


def find_conditions(
    settings: Settings, site: SiteConfig, down: Sequence[str], at: datetime | None = None
) -> list[Condition]:
    """Return what is wrong, the critical ones first.

    Args:
        settings: settings of the workspace.
        site: rules of the watch.
        down: names of the components that are down.
        at: the time to judge by (UTC without time zone); None for now.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    moment = at or now()
    conditions = [Condition(f"down:{name}", CRITICAL, f"The component {name} does not answer.") for name in down]
    conditions += _disk(settings, site.watch)
    with Catalogue.open(settings) as catalogue:
        conditions += [Condition(one.key, one.severity, one.sentence) for one in list_notices(catalogue)]
        conditions += _unsent(catalogue, moment)
        schedules = list_schedules(catalogue)
        for schedule, since in schedules:
            conditions += _missed(catalogue, schedule, since, moment)
        names = {"nightly": Schedule(), **{schedule.name: schedule for schedule, _ in schedules}}
        for name, schedule in names.items():
            if night := last_night(catalogue, name):
                firing = schedule.last_firing(max(night.due_at, night.started_at)) or night.started_at
                rules = site.watch if not has_received_since(catalogue, name, firing) else _without_empty(site.watch)
                conditions += judge_night(night, schedule, rules, moment)
    return sorted(conditions, key=lambda one: (one.severity != CRITICAL, one.key))


def _without_empty(watch: WatchConfig) -> WatchConfig:
    """Return the rules for a run that came after another one of the same night, such as to make up for what failed."""
    return watch.model_copy(update={"expect_scans": False})


def _disk(settings: Settings, watch: WatchConfig) -> list[Condition]:
    if not settings.workspace.exists():
        return []
    free = shutil.disk_usage(settings.workspace).free / 2**30
    if free >= watch.least_free_gib:
        return []
    rule = f"{free:.1f} GiB are free on the disk of the workspace, fewer than {watch.least_free_gib:g}"
    return [Condition("disk", CRITICAL, f"{rule}. Free some space, or the next night cannot store what it reads.")]


def _unsent(catalogue: Catalogue, moment: datetime) -> Iterator[Condition]:
    """Yield a condition for each destination that has not taken an object, however often it was sent since."""
    waiting = count_unsent(catalogue, moment - timedelta(minutes=SENDING_MINUTES))
    for destination, (objects, run_id) in waiting.items():
        sentence = f"{objects} object{'s' * (objects != 1)} of flagged findings did not reach {destination}."
        step = f"Send them again: nightread push {run_id} --to {destination}"
        yield Condition(f"unsent:{destination}", WARNING, f"{sentence} {step}")


def _missed(catalogue: Catalogue, schedule: Schedule, since: datetime, moment: datetime) -> Iterator[Condition]:
    due = schedule.last_firing(moment - timedelta(minutes=schedule.grace_minutes))
    if due is None or due < since or has_run_since(catalogue, schedule.name, schedule.counts_from(due)):
        return
    yield Condition(
        f"missed:{schedule.name}",
        CRITICAL,
        f"The run of {schedule.name} that was due at {due:%Y-%m-%d %H:%M} UTC has not begun. Run it now: nightread "
        f"nightly --date {schedule.local_day(due)}"
        if schedule.flow == "nightly"
        else f"The run of {schedule.name} that was due at {due:%Y-%m-%d %H:%M} UTC has not begun.",
    )


def judge_night(night: NightRow, schedule: Schedule, watch: WatchConfig, moment: datetime) -> Iterator[Condition]:
    """Yield what is wrong with the newest night of a schedule."""
    name, began = night.schedule, f"The run of {night.schedule} that began at {night.started_at:%Y-%m-%d %H:%M} UTC"
    late = timedelta(hours=schedule.deadline_hours)
    silent = (moment - night.beat_at).total_seconds() / 60
    if night.state == "crashed" or (night.state == "running" and silent > watch.stalled_minutes):
        yield Condition(f"stalled:{name}", CRITICAL, f"{began} ended without a word: its process is dead.")
    elif night.state == "running" and moment - night.started_at > late:
        yield Condition(f"late:{name}", WARNING, f"{began} is still running after {schedule.deadline_hours:g} hours.")
    elif night.summary.get("stopped"):
        yield Condition(f"late:{name}", WARNING, f"{began} was too short. {night.summary['stopped']}")
    if night.state == "failed":
        errors = ", ".join(night.summary.get("errors", ())) or "no details"
        failures = night.summary.get("failures") or 1
        parts = f"{failures} part{'s' * (failures != 1)} failed"
        yield Condition(f"failed:{name}", CRITICAL, f"{began} ended with failures: {parts} ({errors}).")
    if night.ended_at is not None and "files" in night.summary:
        yield from _content(night.summary, name, began, watch)


def _content(summary: Mapping[str, int], name: str, began: str, watch: WatchConfig) -> Iterator[Condition]:
    refused, judged = summary["refused"], summary["refused"] + summary["new"]
    if judged and refused / judged > watch.refused_share:
        share = f"{refused} of {judged} new files"
        yield Condition(f"refused:{name}", CRITICAL, f"{began} refused {share}. List them: nightread rejections")
    elif not summary["new"] and watch.expect_scans:
        yield Condition(f"empty:{name}", WARNING, f"{began} received no new scan.")
