"""A name planted in files, folders and headers appears only in the identity folder."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Settings
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.identity.pseudonyms import Pseudonyms

NAME, NUMBER, ACCESSION, UID = "ZWIEBELFISCH", "MRN7749001", "ACC5512345", "1.2.826.99.4711"
# Free text of the header, and names of files and folders.
ELSEWHERE = ("KARTOFFELPUFFER", "Zwiebelfisch_Anna")
SECRETS = (NAME, NUMBER, ACCESSION, UID, *ELSEWHERE)


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, and the members of every zip object, decompressed."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield file, str(file).encode() + file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    yield file, member.filename.encode() + member.comment + member.extra + archive.read(member)


def planted(folder: Path, write_file: Callable[..., Path]) -> Path:
    inbox = folder / "Zwiebelfisch_Anna"
    header = {
        "PatientName": f"{NAME}^Anna", "PatientID": NUMBER, "AccessionNumber": ACCESSION, "StudyInstanceUID": UID,
        "SeriesInstanceUID": f"{UID}.1", "SeriesDescription": f"AX {ELSEWHERE[0]}", "StudyDescription": ELSEWHERE[0],
        "InstitutionName": ELSEWHERE[0], "PatientComments": ELSEWHERE[0], "OtherPatientIDs": NUMBER,
        "ReferringPhysicianName": NAME, "ImageComments": ELSEWHERE[0], "PatientBirthDate": "19440404",
    }  # fmt: skip
    for number in (1, 2, 3):
        write_file(inbox / f"{NAME}{number}.dcm", number, **header, SOPInstanceUID=f"{UID}.1.{number}")
    write_file(inbox / "conflict.dcm", 1, **header, SOPInstanceUID=f"{UID}.1.1", pixels=np.ones((16, 16), "<u2"))
    corrected = header | {"ConvolutionKernel": "B70f"}
    write_file(inbox / "corrected.dcm", 2, **corrected, SOPInstanceUID=f"{UID}.1.2")
    (inbox / f"{NAME}.txt").write_text(f"{NAME} " * 50)
    (inbox / f"{NAME}-empty").touch()
    whole = (inbox / f"{NAME}3.dcm").read_bytes()
    (inbox / f"{NAME}-cut.dcm").write_bytes(whole[:-100])
    with zipfile.ZipFile(inbox / f"{NAME}.zip", "w") as archive:
        archive.writestr(f"../{NAME}/traversal.dcm", whole)
        archive.writestr(f"{NAME}/member.dcm", whole)
    return inbox


def test_the_planted_name_appears_nowhere(
    tmp_path: Path,
    settings: Settings,
    write_file: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    inbox = planted(tmp_path, write_file)
    before = {path: path.stat().st_mtime_ns for path in inbox.rglob("*")}
    report = ingest([inbox], settings)
    assert (report.added, report.same, report.new_versions) == (3, 1, 1)
    assert sum(report.rejected.values()) == 5
    identity = settings.key_file.parent
    outside = [(file, data) for file, data in written(settings.workspace) if identity not in file.parents]
    assert len(outside) > 8  # database, and four objects with their members
    everything = [
        *outside,
        (Path("log"), caplog.text.encode()),
        (Path("console"), "".join(capfd.readouterr()).encode()),
    ]
    everything.append((Path("report"), repr(report.to_json()).encode()))
    for secret in SECRETS:
        for encoding in ("utf-8", "utf-16-le"):
            needle = secret.encode(encoding).lower()
            assert [file.name for file, data in everything if needle in data.lower()] == [], secret
    assert {path: path.stat().st_mtime_ns for path in inbox.rglob("*")} == before


def test_the_search_would_find_it(tmp_path: Path, settings: Settings, write_file: Callable[..., Path]) -> None:
    ingest([planted(tmp_path, write_file)], settings)
    inside = b"".join(data for _, data in written(settings.key_file.parent))
    assert [secret for secret in SECRETS if secret.encode() not in inside] == [ELSEWHERE[0]]


def test_errors_and_reprs_show_nothing(tmp_path: Path, write_file: Callable[..., Path], settings: Settings) -> None:
    from pipeline.data.ingest.sources import find

    inbox = planted(tmp_path, write_file)
    with Pseudonyms.open(settings) as pseudonyms:
        reprs = " ".join(repr(item) for item in find([inbox], pseudonyms, settings))
    assert not any(secret in reprs for secret in SECRETS)
