"""Files of a workspace that show or name one patient, and their removal."""

from __future__ import annotations

import mmap
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.stages.run.learned_patients import read_patients_of
from pipeline.stages.run.run_folder import RunFolder

PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".gif")
# Curves and histograms, which show numbers of many patients; every other picture may show a scan.
CHARTS = {"roc", "precision_recall", "scores", "p_values", "kid", "sweep", "history"}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z")
EXCHANGED = ("inbox", "outbox")
SHORTEST = 8  # bytes of an identifier that a search is made for: a shorter one occurs by chance
LONGEST_PATTERN = 20_000  # identifiers in one search


def list_files_of(
    settings: Settings, lists: Mapping[str, Any], identifiers: Collection[bytes], since: datetime
) -> dict[str, list[Path]]:
    """Return the files and folders to remove, by what they are.

    Args:
        settings: the workspace.
        lists: pseudonyms by kind, see `list_rows_of`.
        identifiers: the real ones, for the files that are exchanged with a PACS.
        since: when the patient was first seen (UTC without zone): older pictures cannot show them.
    """
    runs = [RunFolder(folder) for folder in sorted(settings.runs.glob("*/"))]
    folders = (settings.runs, settings.generated, settings.workspace / "mlflow")
    return {
        "heatmaps": [file for run in runs for one in lists["studies"] for file in _heatmaps(run, one)],
        "cached": [one for one in (settings.workspace / "cache", *(run.path / "grid" for run in runs)) if one.is_dir()],
        "harvested": [file for run in runs for file in _harvested(run, lists["patients"])],
        "pictures": [file for folder in folders for file in _pictures(folder, since)],
        "exchanged": list(_naming(settings, identifiers)),
    }


def erase_files(files: Mapping[str, Iterable[Path]]) -> dict[str, int]:
    """Remove files and folders, and return how many of each kind; what is gone already is not counted."""
    counts: Counter[str] = Counter()
    for name, paths in files.items():
        counts[name] = 0
        for path in paths:
            if path.is_dir():
                counts[name] += sum(1 for one in path.rglob("*") if one.is_file())
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
                counts[name] += 1
    return dict(counts)


def _heatmaps(run: RunFolder, study_id: str) -> list[Path]:
    """Return a study's file of heatmaps, and those of scoring runs that have not ended."""
    name = f"{study_id}.npz"
    return [file for folder in ("heatmaps", "scoring/*") for file in run.path.glob(f"{folder}/{name}")]


def _harvested(run: RunFolder, patients: Collection[str]) -> Iterator[Path]:
    """Yield what a run cut out of unlabelled scans, if this patient's may be among them."""
    recorded = read_patients_of(run)
    if recorded and not any(set(ids) & set(patients) for ids in recorded.values()):
        return
    yield from (file for name in ("findings.safetensors", "findings.png") if (file := run.path / name).is_file())


def _pictures(folder: Path, since: datetime) -> Iterator[Path]:
    """Yield pictures below a folder that may show a scan and are not older than the patient's first one."""
    earliest = since.replace(tzinfo=UTC).timestamp()
    for file in sorted(folder.rglob("*")) if folder.is_dir() else []:
        shows_scans = file.suffix.lower() in PICTURES and file.stem not in CHARTS
        if shows_scans and file.is_file() and file.stat().st_mtime >= earliest:
            yield file


def _naming(settings: Settings, identifiers: Collection[bytes]) -> Iterator[Path]:
    folders = (settings.workspace / name for name in EXCHANGED)
    yield from (file for folder in folders for file in files_with(folder, identifiers, alone=True))


def list_archives(settings: Settings) -> int:
    """Return the number of archives in inbox and outbox, in which a search does not see."""
    folders = (settings.workspace / name for name in EXCHANGED)
    return sum(1 for folder in folders for file in folder.rglob("*") if file.suffix.lower() in ARCHIVES)


def files_with(
    folder: Path, identifiers: Collection[bytes], alone: bool, left_out: Collection[Path] = ()
) -> Iterator[Path]:
    """Yield the files below a folder whose bytes, or whose names, hold one of the identifiers.

    Args:
        folder: searched with all that is below it.
        identifiers: real ones.
        alone: only UIDs are searched for, and only where they are not part of a longer word, so that nobody else's file
            is taken for the patient's. Without it, other identifiers too, as databases hold them: side by side.
        left_out: folders.
    """
    words = [one for one in identifiers if _is_uid(one) or (not alone and len(one) >= SHORTEST)]
    patterns = _patterns(words, alone)
    for file in sorted(folder.rglob("*")) if folder.is_dir() and patterns else []:
        if file.is_file() and not any(file.is_relative_to(one) for one in left_out) and _holds(file, patterns):
            yield file


def _is_uid(identifier: bytes) -> bool:
    return len(identifier) >= SHORTEST and identifier.count(b".") >= 2 and set(identifier) <= set(b"0123456789.")


def _patterns(words: Collection[bytes], alone: bool) -> list[re.Pattern[bytes]]:
    """Return expressions that match a word, but not a UID that only begins with it."""
    escaped = sorted({re.escape(one) for one in words})
    parts = (escaped[start : start + LONGEST_PATTERN] for start in range(0, len(escaped), LONGEST_PATTERN))
    before = rb"(?<![0-9A-Za-z.])" if alone else b""
    return [re.compile(before + b"(?:" + b"|".join(part) + rb")(?![0-9]|\.[0-9])") for part in parts]


def _holds(file: Path, patterns: Iterable[re.Pattern[bytes]]) -> bool:
    if any(one.search(str(file.name).encode()) for one in patterns):
        return True
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(one.search(content) for one in patterns)
