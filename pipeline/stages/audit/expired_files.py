"""Files of a workspace that are older than the policy of retention keeps them, by kind, and why others stay."""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.erase_rows import list_rows_of
from pipeline.data.catalogue.removed_pixels import list_patients_on_hold
from pipeline.data.catalogue.schema import Patient
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.crosswalk_erasure import list_identifiers
from pipeline.errors import ConfigError
from pipeline.stages.audit.choose_scans import HELD, list_runs_in_use
from pipeline.stages.audit.erase_files import CHARTS, PICTURES, files_with
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.operations.backup import HEAD
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.watch.components import FOLDER
from pipeline.tracking.evaluation_artefacts import list_evaluations

IN_USE = "of a model in use"
MAY_SHOW = "may show a patient on legal hold"
OPENED_TEST = "an opening of the test set"
NEWEST = "the newest backups"
UNFINISHED = "their training has not finished"
QUARANTINE, OUTBOX = "inbox/quarantine", "outbox"
_LOG = re.compile(r".*\.log(\.\d+)?")


@dataclass(slots=True)
class ExpiredFiles:
    """Files of one kind that go, how many stay for which reason, and MLflow runs that lose their artefacts."""

    files: list[Path] = field(default_factory=list)
    stays: Counter[str] = field(default_factory=Counter)
    tracked: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Holds:
    """What may belong to a patient on legal hold.

    Attributes:
        identifiers: the patients' real identifiers, in memory only.
        since: when the first of them was first seen (UTC): older files cannot show them; None without a hold.
    """

    identifiers: frozenset[bytes]
    since: datetime | None

    @classmethod
    def read(cls, catalogue: Catalogue, settings: Settings) -> Holds:
        """Read the holds that are in effect."""
        with Crosswalk.open(settings) as crosswalk, catalogue.reading() as session:
            patients = sorted(list_patients_on_hold(session))
            lists = [list_rows_of(session, one) for one in patients]
            identifiers = frozenset(one for each in lists for one in list_identifiers(crosswalk, each))
            since = min((session.get_one(Patient, one).first_seen_at for one in patients), default=None)
        return cls(identifiers, since)

    def may_show(self, file: Path) -> bool:
        """Whether a file is not older than the first of the patients."""
        return self.since is not None and _changed_at(file) >= self.since


def list_expired(
    catalogue: Catalogue, settings: Settings, policy: RetentionPolicy, at: datetime
) -> dict[str, ExpiredFiles]:
    """Return the expired files of each kind that the policy names, at a time (UTC without time zone).

    Raises:
        ArtefactError: the registry does not respond.
        ConfigError: the tracking store cannot be opened, or the folder of backups is missing.
    """
    holds = Holds.read(catalogue, settings)
    kinds: dict[str, tuple[int | None, Callable[[datetime], ExpiredFiles]]] = {
        "pictures": (policy.pictures_days, lambda before: _list_pictures(settings, holds, before)),
        "logs": (policy.logs_days, lambda before: _list_logs(settings, before)),
        "quarantine": (policy.quarantine_days, lambda before: _list_exchanged(settings, QUARANTINE, holds, before)),
        "outbox": (policy.outbox_days, lambda before: _list_exchanged(settings, OUTBOX, holds, before)),
        "evaluations": (policy.evaluations_days, lambda before: _list_evaluations(settings, holds, before)),
        "checkpoints": (policy.checkpoints_days, lambda before: _list_checkpoints(catalogue, settings, before)),
        "backups": (policy.backups_days, lambda before: _list_backups(policy, holds, before)),
    }
    return {name: list_files(at - timedelta(days=days)) for name, (days, list_files) in kinds.items() if days}


def _changed_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).replace(tzinfo=None)


def _files(folders: Iterable[Path], before: datetime) -> Iterator[Path]:
    """Yield the files below folders that were last changed before a moment; links are left alone."""
    for folder in folders:
        for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if file.is_file() and not file.is_symlink() and _changed_at(file) < before:
                yield file


def _list_pictures(settings: Settings, holds: Holds, before: datetime) -> ExpiredFiles:
    """Return heatmaps and pictures; those of a model in use document it, and heatmaps of others are computed again."""
    expired, runs = ExpiredFiles(), list_runs_in_use(settings)
    in_use = {*runs, *(run.read_tracked().get("run_id", "") for run in runs.values())}
    for file in _files((settings.runs, settings.generated, settings.workspace / "mlflow" / "artifacts"), before):
        is_heatmap = file.parent.name == "heatmaps" and file.suffix == ".npz"
        if not is_heatmap and (file.suffix.lower() not in PICTURES or file.stem in CHARTS):
            continue
        if holds.may_show(file):
            expired.stays[MAY_SHOW] += 1
        elif not is_heatmap and not in_use.isdisjoint(file.parts):
            expired.stays[IN_USE] += 1
        else:
            expired.files.append(file)
    return expired


def _list_logs(settings: Settings, before: datetime) -> ExpiredFiles:
    folders = (settings.workspace / FOLDER / "logs", settings.workspace / "prefect")
    return ExpiredFiles([file for file in _files(folders, before) if _LOG.fullmatch(file.name)])


def _list_exchanged(settings: Settings, place: str, holds: Holds, before: datetime) -> ExpiredFiles:
    folder = settings.workspace / place
    held = set(files_with(folder, holds.identifiers, alone=True)) if holds.identifiers else set()
    files = list(_files([folder], before))
    return ExpiredFiles([file for file in files if file not in held], +Counter({HELD: len(held & set(files))}))


def _list_evaluations(settings: Settings, holds: Holds, before: datetime) -> ExpiredFiles:
    expired = ExpiredFiles()
    if settings.mlflow_server is not None:  # which keeps the artefacts
        return expired
    in_use = {run.read_tracked().get("run_id", "") for run in list_runs_in_use(settings).values()}
    for one in list_evaluations(settings):
        files = [file for file in sorted(one.folder.rglob("*")) if file.is_file()] if one.folder.is_dir() else []
        if one.ended_at >= before or not files:
            continue
        reason = OPENED_TEST * (one.set_name == "test") or IN_USE * (one.training_run in in_use)
        reason = reason or MAY_SHOW * any(holds.may_show(file) for file in files)
        if reason:
            expired.stays[reason] += 1
        else:
            expired.files += files
            expired.tracked.append(one.run_id)
    return expired


def _list_checkpoints(catalogue: Catalogue, settings: Settings, before: datetime) -> ExpiredFiles:
    """Return the training states of runs that are done; a model is another folder, and stays."""
    expired, in_use = ExpiredFiles(), list_runs_in_use(settings)
    for run in catalogue.list_runs("train"):
        folder = RunFolder(settings.absolute(run.folder))
        files = [file for file in _files([folder.training], before) if file.parent != folder.training]
        if not files or (run.ended_at or run.started_at) >= before:
            continue
        reason = IN_USE * (run.run_id in in_use) or UNFINISHED * (run.state != "done")
        if reason:
            expired.stays[reason] += 1
        else:
            expired.files += files
    return expired


def _list_backups(policy: RetentionPolicy, holds: Holds, before: datetime) -> ExpiredFiles:
    folder = policy.backups_folder
    if folder is None or not folder.is_dir():
        raise ConfigError(f"backups_folder: {folder} is not a folder. Correct it in the policy of retention")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.is_symlink()]
    backups = sorted((file for file in files if _is_backup(file)), key=_changed_at, reverse=True)
    newest, rest = backups[: policy.backups_least], backups[policy.backups_least :]
    old = [file for file in rest if _changed_at(file) < before]
    held = [file for file in old if holds.may_show(file)]
    stays = +Counter({NEWEST: sum(_changed_at(file) < before for file in newest), MAY_SHOW: len(held)})
    return ExpiredFiles([file for file in old if file not in held], stays)


def _is_backup(file: Path) -> bool:
    try:
        with tarfile.open(file) as archive:
            first = archive.next()
            return first is not None and first.name == HEAD
    except (tarfile.TarError, OSError, EOFError):
        return False
