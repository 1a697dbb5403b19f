"""One durable write: whole or not at all, synced in the right order, and no code renames or fsyncs by hand."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import durable

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])

# Calls that replace or sync a file, by name. A method counts with exactly one positional argument: str.replace has
# two, and dataclasses.replace and DataFrame.rename have keywords.
BY_HAND = {"fsync", "fdatasync", "link", "hardlink_to", "renames"}
RENAMES = {"rename", "replace"}
# Files written in place. A new file of a folder that somebody else moves into place is written so, too.
IN_PLACE = {"write_text", "write_bytes"}

MAY_RENAME = {"pipeline/durable.py": "it is the one place"}
MAY_WRITE_IN_PLACE = {
    "pipeline/training/checkpoint.py": "into the temporary folder of durable.writing_folder",
    "pipeline/dicom/wrap/wrap.py": "a new folder for the user, made again by running the command again",
    "pipeline/dicom/phantom/broken.py": "phantoms, made again from their seed",
    "pipeline/dicom/phantom/folder.py": "phantoms, made again from their seed",
    "pipeline/dicom/phantom/waveform_folder.py": "phantoms, made again from their seed",
    "pipeline/cli/config_table.py": "a page of the source tree, under version control",
    "pipeline/tracking/served_model.py": "into a temporary folder of one request",
    "pipeline/stages/up/supervise.py": "into the temporary folder of one process manager",
    "flows/overhead.py": "one measurement's output",
    "pipeline/stages/speed/anomalib_half.py": "into the temporary folder of one measurement",
    "pipeline/stages/reliability/forked.py": "into the temporary folder of one measurement",
    "pipeline/stages/reliability/simulated_year.py": "into the temporary folder of one measurement",
    "pipeline/stages/reliability/whole_night.py": "into the temporary folder of one measurement",
    "pipeline/stages/speed/side_by_side.py": "into the temporary folder of one measurement",
}


def calls(file: Path) -> Iterator[str]:
    """Yield `name` for every call in a file that renames, syncs or writes in place by hand."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, owner = node.func.attr, node.func.value
        of_module = isinstance(owner, ast.Name) and owner.id in {"os", "shutil"}
        one = len(node.args) == 1 and not node.keywords
        if name in BY_HAND or (of_module and name in {*RENAMES, "move"}) or (name in RENAMES and one):
            yield "rename"
        if name in IN_PLACE and len(node.args) == 1 and not (isinstance(owner, ast.Name) and owner.id == "durable"):
            yield "in place"


@pytest.mark.parametrize(("kind", "allowed"), [("rename", MAY_RENAME), ("in place", MAY_WRITE_IN_PLACE)])
def test_nobody_writes_by_hand(kind: str, allowed: dict[str, str]) -> None:
    by_hand = {str(file.relative_to(ROOT)) for file in SOURCES if kind in calls(file)}
    assert by_hand == set(allowed)


def test_the_law_sees_each_way_to_do_it_by_hand(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "os.replace(a, b)\npart.replace(b)\nos.fsync(f)\npart.rename(b)\nshutil.move(a, b)\np.write_text(t)\n"
        "text.replace('a', 'b')\nreplace(row, x=1)\nframe.rename(columns=c)\nrun.write_text('a', t)\n"
    )
    assert list(calls(planted)) == ["rename"] * 5 + ["in place"]


def test_the_order_is_file_rename_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, bool]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append(("fsync", stat.S_ISDIR(os.fstat(descriptor).st_mode)))
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> Path:
        events.append(("rename", False))
        assert source.read_bytes() == b"new" and target.read_bytes() == b"old"
        return replace(source, target)

    target = tmp_path / "a" / "file"
    durable.write(target, "old")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    assert durable.write(target, "new").read_text() == "new"
    assert events == [("fsync", False), ("rename", False), ("fsync", True)]
    events.clear()
    monkeypatch.setattr(Path, "replace", replace)
    durable.write(target, b"cache", lasting=False)
    assert events == [] and target.read_bytes() == b"cache"


@pytest.mark.parametrize("moment", ["while writing", "fsync", "rename"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    target = durable.write(tmp_path / "file", "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        if moment != "while writing":
            patch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), full)
        with durable.writing(target) as part:
            part.write_text("half")
            if moment == "while writing":
                full()
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and target.read_text() == "old"


def test_a_private_file_is_private_from_the_first_byte(tmp_path: Path) -> None:
    with durable.writing(tmp_path / "secret", mode=0o600) as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        part.unlink()
        part.write_text("a library that replaces the file")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_library_that_replaces_the_file_does_not_change_who_may_read_it(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.write_text("as the umask says")
    with durable.writing(tmp_path / "weights") as part:
        part.unlink()
        part.touch(0o600)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_a_folder_appears_whole_and_is_never_replaced(tmp_path: Path) -> None:
    with durable.writing_folder(tmp_path / "run" / "one") as part:
        (part / "a").mkdir()
        (part / "a" / "file").write_text("1")
        assert not (tmp_path / "run" / "one").exists()
    with pytest.raises(OSError, match="not empty"), durable.writing_folder(tmp_path / "run" / "one") as part:
        (part / "other").write_text("2")
    with pytest.raises(ZeroDivisionError), durable.writing_folder(tmp_path / "run" / "two"):
        raise ZeroDivisionError
    assert [str(f.relative_to(tmp_path)) for f in sorted(tmp_path.rglob("*"))] == [
        "run", "run/one", "run/one/a", "run/one/a/file",
    ]  # fmt: skip


def test_create_never_replaces(tmp_path: Path) -> None:
    assert durable.create(tmp_path / "key", "first") and not durable.create(tmp_path / "key", "second")
    assert (tmp_path / "key").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


def test_sweep_takes_only_what_was_abandoned(tmp_path: Path) -> None:
    for name in ("old.part", "old", "fresh.part"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.part" / "in").mkdir(parents=True)
    for name in ("old.part", "old", "folder.part"):
        os.utime(tmp_path / name, (1, 1))
    durable.sweep(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fresh.part", "old"]
