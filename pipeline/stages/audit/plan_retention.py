"""Plan of retention: what would be removed of each kind, with counts and bytes, and what stays for which reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.crosswalk_erasure import list_paths
from pipeline.errors import ConfigError
from pipeline.stages.audit.choose_scans import ChosenScans, choose_scans
from pipeline.stages.audit.expired_files import ExpiredFiles, list_expired
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.run.run_folder import RunFolder

PIXELS = "pixels"


@dataclass(slots=True)
class Removal:
    """What goes of one kind.

    Attributes:
        kind: a kind of data of the policy.
        scans: number of scans; 0 for other kinds than pixels.
        files: files, relative to the workspace where they are in it.
        size_bytes: of files and pixels together.
        stays: how many scans or files of the kind stay, by reason.
        pixels, series, tracked: keys of pixels, pseudonyms of series, MLflow runs that lose their artefacts.
    """

    kind: str
    scans: int = 0
    files: list[str] = field(default_factory=list)
    size_bytes: int = 0
    stays: dict[str, int] = field(default_factory=dict)
    pixels: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    tracked: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the numbers alone: no name of a file, since one may identify a patient."""
        return {"scans": self.scans, "images": len(self.pixels), "files": len(self.files), "bytes": self.size_bytes}

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not (self.files or self.series)


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a run removed, or would remove.

    Attributes:
        run: name of the run, made of its time (UTC).
        state: planned or finished.
        removals: one for each kind of the policy that has days.
        resumed: what an interrupted run had left, and this one finished or would finish first; None without one.
    """

    run: str
    state: str
    removals: tuple[Removal, ...]
    resumed: Removal | None = None

    def sentences(self) -> str:
        """Return lines for a terminal or a log: counts and reasons, without names."""
        verb = "would remove" if self.state == "planned" else "removed"
        lines = [] if self.resumed is None else [f"{_count(self.resumed, verb)} This was left by an interrupted run."]
        for one in self.removals:
            lines.append(_count(one, verb))
            lines += [f"  {count} stay: {reason}" for reason, count in one.stays.items()]
        return (
            "\n".join(lines) or "The policy removes nothing. Give days to a kind of data in <workspace>/retention.yaml"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [{"kind": one.kind, **one.counts(), "stays": one.stays} for one in self.removals]
        resumed = None if self.resumed is None else {"kind": self.resumed.kind, **self.resumed.counts()}
        return {"run": self.run, "state": self.state, "removals": rows, "resumed": resumed}


def _count(removal: Removal, verb: str) -> str:
    counts = {name: number for name, number in removal.counts().items() if number and name != "bytes"}
    named = ", ".join(f"{number} {name}" for name, number in counts.items()) or "nothing"
    return f"{removal.kind}: {verb} {named} ({removal.size_bytes / 2**20:.1f} MiB)."


def plan_retention(
    catalogue: Catalogue, settings: Settings, policy: RetentionPolicy, at: datetime | None = None
) -> RetentionReport:
    """Return what a run would remove; nothing is written.

    Args:
        catalogue: an open one.
        settings: the workspace.
        policy: of the site.
        at: the time to judge by (UTC without time zone); None for now.

    Raises:
        ArtefactError: the registry does not respond, so nobody can say which models are in use.
        ConfigError: the folder of backups is missing, or the policy removes more of the scans at once than it allows.
    """
    moment = at or now()
    scans = choose_scans(catalogue, settings, policy, moment)
    _refuse_everything(scans, policy)
    removals = [_plan_pixels(settings, scans)] if policy.pixels_days is not None else []
    taken = {name for one in removals for name in one.files}  # a heatmap goes with its scan, and counts there
    expired = list_expired(catalogue, settings, policy, moment)
    removals += [plan_files(settings, kind, one, taken) for kind, one in expired.items()]
    return RetentionReport(f"{moment:%Y%m%dT%H%M%S}", "planned", tuple(removals))


def plan_files(settings: Settings, kind: str, expired: ExpiredFiles, taken: Collection[str] = ()) -> Removal:
    """Return the removal of the expired files of one kind, without those that another kind has `taken`."""
    files = [file for file in expired.files if settings.relative(file) not in taken]
    names, stays = [settings.relative(file) for file in files], dict(sorted(expired.stays.items()))
    return Removal(kind, 0, names, _add_sizes(files), stays, tracked=expired.tracked)


def _refuse_everything(scans: ChosenScans, policy: RetentionPolicy) -> None:
    if scans.scored and len(scans.studies) > policy.largest_share * scans.scored:
        raise ConfigError(
            f"pixels_days: {policy.pixels_days} would remove the pixels of {len(scans.studies)} of {scans.scored} "
            f"scored scans at once, more than largest_share: {policy.largest_share:g} allows. Raise pixels_days; or, "
            "if it is meant, raise largest_share for this run"
        )


def _plan_pixels(settings: Settings, scans: ChosenScans) -> Removal:
    store = PixelStore(settings.store)
    runs = [RunFolder(folder) for folder in sorted(settings.runs.glob("*/"))]
    heatmaps = [run.path / "heatmaps" / f"{study}.npz" for run in runs for study in scans.studies]
    files = [*list_received(settings, scans.paths), *(file for file in heatmaps if file.is_file())]
    if scans.series:  # caches are built again where they are needed; their names do not tell whose they are
        folders = (settings.workspace / "cache", *(run.path / "grid" for run in runs))
        files += [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    return Removal(
        PIXELS,
        len(scans.studies),
        [settings.relative(file) for file in files],
        _add_sizes(files) + sum(map(store.size_bytes, scans.pixels)),
        dict(sorted(scans.stays.items())),
        list(scans.pixels),
        list(scans.series),
    )


def list_received(settings: Settings, paths: Iterable[str]) -> list[Path]:
    """Return the files in the inbox behind pseudonyms of paths; files elsewhere are the site's own."""
    with Crosswalk.open(settings) as crosswalk:
        sources = [settings.absolute(path) for path in list_paths(crosswalk, {"paths": list(paths)})]
    return [file for file in sources if file.is_relative_to(settings.inbox) and file.is_file()]


def _add_sizes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
