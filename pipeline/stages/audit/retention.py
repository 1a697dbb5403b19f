"""Removal of what the policy of retention no longer keeps, in steps that a kill cannot halve.

Each kind of data is one step: its list goes into a journal, its series are marked, its files and pixels are removed,
and a line is added to the audit log. A run that was killed is finished by the next one from the journal, except for
what has been put on legal hold, or has come into use, since. Series are marked before their pixels go, so that a scan
says that it was removed rather than that it is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import select

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.removed_pixels import list_series_on_hold, mark_removed, unmark_removed
from pipeline.data.catalogue.review_schema import AuditEntry
from pipeline.data.catalogue.schema import now
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import ConfigError
from pipeline.stages.audit.choose_scans import list_pixels_and_paths
from pipeline.stages.audit.expired_files import list_expired
from pipeline.stages.audit.plan_retention import (
    PIXELS,
    Removal,
    RetentionReport,
    list_received,
    plan_files,
    plan_retention,
)
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.generate.retrieval.slice_index import forget_pixels
from pipeline.tracking.evaluation_artefacts import tag_removed

JOURNAL, LOCK = "retention.json", "retention.lock"
OnStep = Callable[[str], None]


def preview_retention(settings: Settings, policy: RetentionPolicy, at: datetime | None = None) -> RetentionReport:
    """Return what `retain` would remove, an interrupted removal included; nothing is removed.

    Raises:
        ArtefactError, ConfigError: see `plan_retention`.
    """
    with Catalogue.open(settings) as catalogue:
        report = plan_retention(catalogue, settings, policy, at)
    interrupted = _read_journal(settings)
    return report if interrupted is None else replace(report, resumed=interrupted[1])


def retain(
    settings: Settings, policy: RetentionPolicy, at: datetime | None = None, on_step: OnStep | None = None
) -> RetentionReport:
    """Remove what the policy no longer keeps; an interrupted removal is finished first.

    Args:
        settings: the workspace.
        policy: of the site.
        at: the time to judge by (UTC without time zone); None for now.
        on_step: called with the name of each kind that is done.

    Raises:
        ArtefactError, ConfigError: see `plan_retention`; or another run of retention is at work.
        CatalogueError: a store or a database cannot be written; what is done stays done, and the next run continues.
    """
    lock = FileLock(settings.workspace / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError("Retention is already running in this workspace. Wait until it ends") from None
    with lock, Catalogue.open(settings) as catalogue:
        work = _Work(catalogue, settings, on_step or (lambda _: None))
        resumed = work.resume(policy, at or now())
        report = plan_retention(catalogue, settings, policy, at)
        for removal in report.removals:
            if not removal.is_empty:
                work.carry_out(report.run, removal)
    return replace(report, state="finished", resumed=resumed)


def _journal(settings: Settings) -> Path:
    return settings.workspace / JOURNAL


def _read_journal(settings: Settings) -> tuple[str, Removal] | None:
    """Return the name of an interrupted run and what it was removing; None without one."""
    file = _journal(settings)
    if not file.exists():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    return values["run"], Removal(**values["removal"])


def _forget_journal(settings: Settings) -> None:
    _journal(settings).unlink()


def _delete_files(settings: Settings, names: Iterable[str]) -> None:
    for name in names:
        settings.absolute(name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Work:
    """The steps of one run."""

    catalogue: Catalogue
    settings: Settings
    on_step: OnStep

    def carry_out(self, run: str, removal: Removal) -> None:
        """Remove one kind; a repetition after a kill ends in the same state, and adds no second line to the audit."""
        durable.write(_journal(self.settings), json.dumps({"run": run, "removal": asdict(removal)}), mode=0o600)
        self._finish(run, removal)

    def resume(self, policy: RetentionPolicy, at: datetime) -> Removal | None:
        """Finish what an interrupted run was removing, and return it."""
        interrupted = _read_journal(self.settings)
        if interrupted is None:
            return None
        run, removal = interrupted
        removal = self._spare_held(removal) if removal.kind == PIXELS else self._spare_used(removal, policy, at)
        self._finish(run, removal)
        return removal

    def _finish(self, run: str, removal: Removal) -> None:
        subject = f"retention:{removal.kind}-{run}"
        with self.catalogue.reading() as session:
            recorded = session.scalar(select(AuditEntry.id).where(AuditEntry.subject == subject)) is not None
        if not recorded:
            self._remove(run, removal)
            self._record(subject, removal)
        _forget_journal(self.settings)
        self.on_step(removal.kind)

    def _remove(self, run: str, removal: Removal) -> None:
        with self.catalogue.session() as session:
            mark_removed(session, removal.series, run)
        forget_pixels(self.settings, removal.pixels)
        store = PixelStore(self.settings.store)
        for key in removal.pixels:
            store.delete(key)
        _delete_files(self.settings, removal.files)
        if removal.tracked:
            tag_removed(self.settings, removal.tracked, f"{now():%Y-%m-%d}")

    def _record(self, subject: str, removal: Removal) -> None:
        chain = Chain.open(self.settings, self.catalogue)
        row: dict[str, Any] = {"at": now(), "user_name": "retention", "role": "command-line", "address": "local"}
        with self.catalogue.session() as session:
            detail = removal.counts()
            chain.append(session, AuditEntry, {**row, "action": "retention", "subject": subject, "detail": detail})

    def _spare_used(self, removal: Removal, policy: RetentionPolicy, at: datetime) -> Removal:
        """Return an interrupted removal of files without those that would stay today; what is gone still counts."""
        expired = list_expired(self.catalogue, self.settings, policy, at).get(removal.kind)
        today = set() if expired is None else set(plan_files(self.settings, removal.kind, expired).files)
        files = [one for one in removal.files if one in today or not self.settings.absolute(one).exists()]
        return replace(removal, files=files, tracked=removal.tracked if len(files) == len(removal.files) else [])

    def _spare_held(self, removal: Removal) -> Removal:
        """Return an interrupted removal of scans without those of patients who are on legal hold by now."""
        with self.catalogue.session() as session:
            held = list_series_on_hold(session, removal.series)
            unmark_removed(session, held)
            pixels, paths = list_pixels_and_paths(session, set(held))
        if not held:
            return removal
        spared = {self.settings.relative(file) for file in list_received(self.settings, paths)}
        studies = set(held.values())
        return replace(
            removal,
            scans=removal.scans - len(studies),
            files=[one for one in removal.files if one not in spared and Path(one).stem not in studies],
            pixels=_without(removal.pixels, pixels),
            series=_without(removal.series, held),
        )


def _without(values: Iterable[str], others: Iterable[str]) -> list[str]:
    left_out = set(others)
    return [one for one in values if one not in left_out]
