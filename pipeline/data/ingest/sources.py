"""Sources of an ingest: the files that the search finds, under pseudonyms of their paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Settings
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.intake.find_files import Candidate, discover
from pipeline.errors import Rejected


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
    """A file at the time of its discovery. PHI: its names go only to the crosswalk.

    Attributes:
        name: stable name across runs: its path, or `<archive>/<member>`; below the workspace (the inbox) relative to
            it, so that a copied or moved workspace recognises its files.
        path_id: pseudonym of the name.
        size_bytes, modified_ns: tell whether the file has changed since it was last seen.
        path: location of its bytes; the temporary file of an archive's member lives as long as this object.
    """

    name: Path
    path_id: str
    size_bytes: int
    modified_ns: int
    path: Path


@dataclass(frozen=True, slots=True, repr=False)
class Refused:
    """A file that cannot be used, with the reason."""

    seen: Seen
    reason: Rejected


@dataclass(frozen=True, slots=True, repr=False)
class Unchanged:
    """A member of an archive that has not changed since it was last entered, and was not extracted."""

    seen: Seen


Item = Seen | Refused | Unchanged
Known = Callable[[Seen], bool]


def seen_of(item: Item) -> Seen:
    """Return the file that an item is about."""
    return item if isinstance(item, Seen) else item.seen


def find(
    paths: Sequence[Path], pseudonyms: Pseudonyms, settings: Settings, is_known: Known = lambda seen: False
) -> Iterator[Item]:
    """Walk paths in a fixed order, into folders and archives; known members of archives are not extracted again."""

    def seen_as(candidate: Candidate) -> Seen:
        name = Path(settings.relative(candidate.name))
        return Seen(name, pseudonyms.path(name), candidate.size, candidate.mtime_ns, candidate.path)

    # Absolute, so that a file has the same pseudonym from any working directory; links are refused, not resolved.
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    for candidate in discover(absolute, settings.decode, lambda one: is_known(seen_as(one))):
        seen = seen_as(candidate)
        if candidate.rejected is not None:
            yield Refused(seen, candidate.rejected)
        else:
            yield Unchanged(seen) if candidate.unchanged else seen
