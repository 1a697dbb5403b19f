"""Where an ingest's files come from: what the search finds, under the pseudonyms of its paths."""

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
    """A file as it was found. PHI: its names go to the crosswalk only.

    Attributes:
        name: what it is known by from run to run: its path, or `<archive>/<member>`; beneath the workspace (the inbox)
            relative to it, so that a copied or moved workspace knows its files again.
        path_id: the pseudonym of the name.
        size_bytes, modified_ns: they tell whether it was seen before.
        path: where its bytes are; the temporary file of an archive's member lives as long as this object.
    """

    name: Path
    path_id: str
    size_bytes: int
    modified_ns: int
    path: Path


@dataclass(frozen=True, slots=True, repr=False)
class Refused:
    """A file that cannot be used, and why."""

    seen: Seen
    reason: Rejected


@dataclass(frozen=True, slots=True, repr=False)
class Unchanged:
    """A member of an archive that is as it was when it was last entered, and was left in it."""

    seen: Seen


Item = Seen | Refused | Unchanged
Known = Callable[[Seen], bool]


def seen_of(item: Item) -> Seen:
    """Return the file that an item is about."""
    return item if isinstance(item, Seen) else item.seen


def find(
    paths: Sequence[Path], pseudonyms: Pseudonyms, settings: Settings, is_known: Known = lambda seen: False
) -> Iterator[Item]:
    """Walk paths in a fixed order, into folders and archives; a known member of an archive is not extracted again."""

    def seen_as(found: Candidate) -> Seen:
        name = Path(settings.relative(found.name))
        return Seen(name, pseudonyms.path(name), found.size, found.mtime_ns, found.path)

    # Absolute, so that a file has one pseudonym from wherever the command is run; links are not resolved but refused.
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    for found in discover(absolute, settings.decode, lambda candidate: is_known(seen_as(candidate))):
        seen = seen_as(found)
        if found.rejected is not None:
            yield Refused(seen, found.rejected)
        else:
            yield Unchanged(seen) if found.unchanged else seen
