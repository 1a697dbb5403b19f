"""Finding files, and archives that try to write outside their folder."""

from __future__ import annotations

import gc
import gzip
import io
import os
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.intake.archive import Member, extract_members
from pipeline.dicom.intake.expansion_limits import BOMB_BYTES
from pipeline.dicom.intake.find_files import Candidate, discover
from pipeline.errors import Rejected, RejectionCode

LIMITS = DecodeLimits()


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _tar(path: Path, *infos: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def _info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "/etc/passwd"
    return info


def _codes(candidates: list[Candidate] | list[Member]) -> list[str]:
    return [item.rejected.code.value if item.rejected else "" for item in candidates]


def test_a_folder_is_walked_in_order_and_links_are_reported(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("c", "b/2", "b/1", "a"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d-link").symlink_to(tmp_path / "a")
    (tmp_path / "e-loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "f-pipe")
    (tmp_path / "g-empty").touch()
    candidates = list(discover([tmp_path], LIMITS))
    names = [item.path.relative_to(tmp_path).as_posix() for item in candidates]
    assert names == ["a", "b/1", "b/2", "c", "d-link", "e-loop", "f-pipe", "g-empty"]
    assert _codes(candidates) == ["", "", "", "", "symlink", "symlink", "not-a-regular-file", "empty-file"]
    assert all(item.name == item.path for item in candidates)
    assert (candidates[0].size, candidates[0].mtime_ns) == (1, (tmp_path / "a").stat().st_mtime_ns)


def test_a_folder_named_twice_is_walked_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "sub")
    assert len(list(discover([tmp_path / "sub", tmp_path / "sub", link], LIMITS))) == 1


def test_missing_paths_and_paths_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _codes(list(discover([tmp_path / "nothing"], LIMITS))) == ["unreadable"]

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    assert _codes(list(discover([tmp_path], LIMITS))) == ["permission-denied"]


def test_members_are_read_and_then_deleted(tmp_path: Path, real_files: dict[str, Path]) -> None:
    data = real_files["pydicom/CT_small.dcm"].read_bytes()
    _zip(tmp_path / "a.zip", {"x/ct.dcm": data, "readme": b"hello"})
    candidates = list(discover([tmp_path], LIMITS))
    assert [item.name for item in candidates] == [tmp_path / "a.zip" / "x" / "ct.dcm", tmp_path / "a.zip" / "readme"]
    assert candidates[0].mtime_ns == (tmp_path / "a.zip").stat().st_mtime_ns == candidates[0].path.stat().st_mtime_ns
    assert candidates[0].path.stat().st_mode & 0o777 == 0o600
    assert read_instance(candidates[0].path, LIMITS).stored.shape == (1, 128, 128)
    extracted = [str(item.path) for item in candidates]
    del candidates
    gc.collect()
    assert not any(Path(path).exists() for path in extracted)


@pytest.mark.parametrize("pack", ["gz", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_kinds_of_archive(pack: str, tmp_path: Path, real_files: dict[str, Path]) -> None:
    source = real_files["pydicom/MR_small.dcm"]
    target = tmp_path / "archive"
    if pack == "gz":
        target.write_bytes(gzip.compress(source.read_bytes()))
    else:
        with tarfile.open(target, f"w:{pack[4:]}") as archive:
            archive.add(source, "folder/mr")
    (candidate,) = discover([target], LIMITS)
    assert candidate.path.read_bytes() == source.read_bytes()


def test_the_gzip_of_pydicom(real_files: dict[str, Path]) -> None:
    (candidate,) = discover([real_files["pydicom/zipMR.gz"]], LIMITS)
    assert read_instance(candidate.path, LIMITS).attributes.modality == "MR"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    packed = [
        _zip(tmp_path / "a.zip", {name: b"evil", "good": b"x"}),
        _tar(tmp_path / "b.tgz", _info(name, size=4), _info("good", size=1)),
    ]
    for archive in packed:
        assert _codes(list(extract_members(archive, LIMITS))) == ["archive-path-traversal", ""]
    assert not list(tmp_path.parent.glob("evil*"))


def test_links_and_devices_in_archives(tmp_path: Path) -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    packed = _tar(tmp_path / "a.tgz", *(_info(f"m{i}", kind) for i, kind in enumerate(kinds)), _info("good", size=3))
    codes = ["symlink", "symlink", "not-a-regular-file", "not-a-regular-file", ""]
    assert _codes(list(extract_members(packed, LIMITS))) == codes
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert _codes(list(extract_members(tmp_path / "b.zip", LIMITS))) == ["symlink"]


@pytest.mark.parametrize("kind", ["zip", "gz", "tar.xz"])
def test_bombs_stop_early_and_leave_nothing(kind: str, tmp_path: Path) -> None:
    """72 MiB from less than 100 kilobytes: refused after 64 MiB, below which swelling is allowed."""
    packed, size = tmp_path / "bomb", BOMB_BYTES + 2**23
    if kind == "zip":
        _zip(packed, {"b": bytes(size)})
    elif kind == "gz":
        packed.write_bytes(gzip.compress(bytes(size)))
    else:
        with tarfile.open(packed, "w:xz", preset=0) as archive:
            info = _info("b", size=size)
            archive.addfile(info, io.BytesIO(bytes(size)))
    before = set(Path(tempfile.gettempdir()).glob(f"nightread-member-{os.getpid()}-*"))
    assert _codes(list(discover([packed], LIMITS))) == ["archive-bomb"]
    gc.collect()
    assert set(Path(tempfile.gettempdir()).glob(f"nightread-member-{os.getpid()}-*")) <= before


def test_a_member_beyond_the_file_limit(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "a.zip", {"small": b"x", "large": os.urandom(5000)})
    candidates = list(discover([packed], DecodeLimits(file_bytes=4000)))
    assert _codes(candidates) == ["", "archive-bomb"]


def test_members_before_the_break_of_an_archive_are_read(tmp_path: Path) -> None:
    packed = _tar(tmp_path / "a.tar", _info("one", size=4000), _info("two", size=4000), mode="w")
    packed.write_bytes(packed.read_bytes()[:6000])
    assert _codes(list(discover([packed], LIMITS))) == ["", "archive-unreadable"]
    broken = tmp_path / "b.zip"
    broken.write_bytes(b"PK\x03\x04" + os.urandom(300))
    with pytest.raises(Rejected) as caught:
        list(extract_members(broken, LIMITS))
    assert caught.value.code == RejectionCode.ARCHIVE_UNREADABLE


def test_an_archive_still_being_written_is_left_alone(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "a.zip", {"a": b"x"})
    settle = DecodeLimits(settle_seconds=60)
    (candidate,) = discover([packed], settle)
    with pytest.raises(Rejected) as caught:
        read_instance(candidate.path, settle)
    assert caught.value.code == RejectionCode.STILL_WRITING
    os.utime(packed, (time.time() - 120,) * 2)
    (candidate,) = discover([packed], settle)
    with pytest.raises(Rejected) as caught:
        read_instance(candidate.path, settle)  # the member has the archive's time, so it is settled
    assert caught.value.code == RejectionCode.NOT_DICOM


def test_a_dicom_file_with_a_zip_for_a_preamble_is_dicom(
    tmp_path: Path, make_dataset: Callable, real_files: dict[str, Path]
) -> None:
    data = real_files["pydicom/CT_small.dcm"].read_bytes()
    (tmp_path / "polyglot").write_bytes(b"PK\x03\x04" + data[4:])
    (candidate,) = discover([tmp_path / "polyglot"], LIMITS)
    assert candidate.path == tmp_path / "polyglot"
    assert read_instance(candidate.path, LIMITS).stored.size


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    leftover = Path(tempfile.gettempdir()) / "nightread-member-4194999-abc"  # beyond the largest process id of Linux
    leftover.write_bytes(b"x")
    list(extract_members(_zip(tmp_path / "a.zip", {"a": b"x"}), LIMITS))
    assert not leftover.exists()
