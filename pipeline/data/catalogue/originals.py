"""Find the original file of a catalogued instance, through the crosswalk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import select

from pipeline.config import DecodeLimits
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import SourceFile
from pipeline.dicom.decode.header import read_identity
from pipeline.dicom.decode.source import guard, open_dataset, quietly
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.intake.archive import is_archive
from pipeline.dicom.intake.find_files import Candidate, discover
from pipeline.errors import Rejected, RejectionCode

_GONE = Rejected(
    RejectionCode.UNREADABLE, "The original file was moved, deleted or replaced. Restore it or ingest its study again."
)


@contextmanager
def open_original(instance_id: str, catalogue: Catalogue, crosswalk: Crosswalk, limits: DecodeLimits) -> Iterator[Path]:
    """Yield the path of the file that an instance came from; a member of an archive is unpacked for the block.

    PHI: the path may name somebody.

    Raises:
        Rejected: none of its files exists any more, or they hold another object now.
    """
    sop_uid = crosswalk.find_identity(instance_id).sop_uid
    for name in _names(instance_id, catalogue, crosswalk):
        with _unpacked(name, limits) as path:
            if path is not None and _holds(path, sop_uid, limits):
                yield path
                return
    raise _GONE


def header_of(path: Path, limits: DecodeLimits) -> Dataset:
    """Return a file's data set without pixels.

    Raises:
        Rejected: it cannot be read.
    """
    with guard(RejectionCode.CORRUPT_HEADER), quietly():
        return open_dataset(path, limits, header_only=True).ds


def _names(instance_id: str, catalogue: Catalogue, crosswalk: Crosswalk) -> list[Path]:
    query = select(SourceFile.path_id).where(SourceFile.instance_id == instance_id).order_by(SourceFile.outcome)
    with catalogue.reading() as session:
        paths = [crosswalk.find_path(path_id) for path_id in session.scalars(query)]
    return [Path(path) for path in paths if path is not None]


@contextmanager
def _unpacked(name: Path, limits: DecodeLimits) -> Iterator[Path | None]:
    if name.is_file():
        yield name
        return
    archive = next((parent for parent in name.parents if parent.is_file()), None)
    if archive is None or not is_archive(archive):
        yield None
        return

    def is_other(one: Candidate) -> bool:
        return one.name != name and one.name not in name.parents  # an archive inside the archive is a parent

    members = (one for one in discover([archive], limits, is_other) if one.name == name and not one.unchanged)
    member = next((one for one in members if one.rejected is None), None)  # its temporary file lives as long
    yield None if member is None else member.path


def _holds(path: Path, sop_uid: str, limits: DecodeLimits) -> bool:
    try:
        return read_identity(header_of(path, limits)).sop_uid == sop_uid
    except Rejected:
        return False
