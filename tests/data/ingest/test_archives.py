"""Archives: unchanged members are not extracted again, changed ones are read, and equal names are distinguished."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zstandard
from sqlalchemy import select

from pipeline.config import DecodeLimits, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance, SourceFile
from pipeline.data.ingest.ingest import ingest
from pipeline.dicom.intake import archive as archive_module
from pipeline.dicom.intake.archive import extract_members
from pipeline.errors import Rejected

WriteFile = Callable[..., Path]


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the extracted members."""
    names: list[str] = []
    really = archive_module._Sink._extract

    def noted(sink: Any, name: str, source: Any) -> Any:
        names.append(name)
        return really(sink, name, source)

    monkeypatch.setattr(archive_module._Sink, "_extract", noted)
    return names


def pack(target: Path, files: list[tuple[str, Path]]) -> Path:
    """Write a zip or tar of (name, file); a name may occur twice."""
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, file in files:
                archive.writestr(name, file.read_bytes())
        return target
    with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
        for name, file in files:
            archive.add(file, name)
    return target


def count(settings: Settings, table: type) -> int:
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        return len(session.scalars(select(table)).all())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_unchanged_archive_is_left_alone_and_a_changed_one_read(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, extracted: list[str], name: str
) -> None:
    files = [(f"CD/{number}.dcm", write_file(tmp_path / f"{number}.dcm", number)) for number in (1, 2, 3)]
    archive = pack(tmp_path / name, files[:2])
    assert ingest([archive], settings).added == 2
    extracted.clear()
    again = ingest([archive], settings)
    assert (again.files, again.skipped, extracted) == (2, 2, [])
    pack(archive, files)
    changed = ingest([archive], settings)
    assert (changed.added, changed.same) == (1, 2)
    assert extracted == ["CD/1.dcm", "CD/2.dcm", "CD/3.dcm"]
    assert count(settings, SourceFile) == count(settings, Instance) == 3


def test_lost_pixels_are_taken_from_an_unchanged_archive(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, extracted: list[str]
) -> None:
    files = [(f"{number}.dcm", write_file(tmp_path / f"{number}.dcm", number)) for number in (1, 2)]
    archive = pack(tmp_path / "a.zip", files)
    ingest([archive], settings)
    next(Path(settings.store).glob("*/*.zarr.zip")).unlink()
    extracted.clear()
    again = ingest([archive], settings)
    assert (again.same, again.skipped, len(extracted)) == (1, 1, 1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_members_of_one_name_are_two_files(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, name: str
) -> None:
    one, two = (write_file(tmp_path / f"{number}.dcm", number) for number in (1, 2))
    assert one.stat().st_size == two.stat().st_size
    archive = pack(tmp_path / name, [("x.dcm", one), ("x.dcm", two)])
    assert ingest([archive], settings).added == 2
    assert count(settings, SourceFile) == 2
    assert ingest([archive], settings).skipped == 2


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_looks_like_a_number_is_not_taken_twice(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    archive = pack(tmp_path / "a.zip", [(name, tmp_path / "f") for name in ("a#2", "a", "a", "a#2", "a")])
    names = [member.name for member in extract_members(archive, DecodeLimits())]
    assert names == ["a#2", "a", "a#3", "a#2#2", "a#4"]


def test_a_bomb_remains_one_when_its_first_members_are_known(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(40 * 2**20))
    archive = pack(tmp_path / "a.zip", [(f"{number}", tmp_path / "zeros") for number in range(3)])
    for skip in (False, True):
        taken = extract_members(archive, DecodeLimits(), lambda name, size, skip=skip: skip and name == "0")
        assert next(taken).unchanged is skip
        with pytest.raises(Rejected, match="expands beyond"):
            list(taken)


def nest(folder: Path, file: Path, *suffixes: str) -> Path:
    """Pack a file into an archive, that into another, and so on."""
    for number, suffix in enumerate(suffixes):
        target = folder / f"level{number}{suffix}"
        if suffix == ".zst":
            target.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
        elif suffix == ".tar.zst":
            plain = pack(folder / f"level{number}.tar", [("x", file)])
            target.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
        else:
            pack(target, [(file.name, file)])
        file = target
    return file


@pytest.mark.parametrize(
    "suffixes",
    [(".zip", ".zip"), (".tar.gz", ".zip", ".tar"), (".zst",), (".tar.zst",), (".zst", ".zip"), (".zip", ".tar.zst")],
)
def test_archives_in_archives_are_read_once(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile, suffixes: tuple[str, ...]
) -> None:
    packed = nest(tmp_path, write_file(tmp_path / "a.dcm"), *suffixes)
    assert ingest([packed], settings).to_json() | {"seconds": 0} == {
        **{"files": 1, "added": 1, "same": 0, "new_versions": 0, "skipped": 0, "rejected": {}, "seconds": 0},
    }
    again = ingest([packed], settings)
    assert (again.skipped, again.added, again.rejected) == (1, 0, {})


def test_archives_nested_too_deep_have_a_code(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: WriteFile
) -> None:
    packed = nest(tmp_path, write_file(tmp_path / "a.dcm"), *[".zip"] * 6)
    assert ingest([packed], settings).rejected == {"nested-too-deep": 1}


def test_a_bomb_in_an_archive_is_measured_by_the_outermost(
    in_process: ModuleType, tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(30 * 2**20))
    inner = pack(tmp_path / "inner.zip", [("zeros", tmp_path / "zeros")])
    packed = pack(tmp_path / "a.zip", [(f"{number}.zip", inner) for number in range(4)])
    assert ingest([packed], settings).rejected["archive-bomb"] == 1


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.dcm", data)
    return stream.getvalue()


FOREIGN = [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01\x00", b"\x04\x22\x4d\x18", b"PK\x05\x06"]
FOREIGN += [bytes(32769) + b"CD001", b"MZ" + bytes(300) + zipped(bytes(40))]


@pytest.mark.parametrize("head", FOREIGN)
@pytest.mark.parametrize("inside", [False, True])
def test_archives_of_other_formats_are_named(
    in_process: ModuleType, tmp_path: Path, settings: Settings, head: bytes, inside: bool
) -> None:
    (tmp_path / "a.bin").write_bytes(head + bytes(600))
    path = pack(tmp_path / "a.zip", [("a.bin", tmp_path / "a.bin")]) if inside else tmp_path / "a.bin"
    assert ingest([path], settings).rejected == {"archive-unreadable": 1}
