"""A backup holds everything but what names a person, and comes back only when every byte is right."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.errors import ArtefactError, ConfigError, IdentityError
from pipeline.stages.operations.backup import HEAD, MANIFEST, back_up
from pipeline.stages.operations.restore import restore
from pipeline.stages.operations.workspace_parts import is_identifying, is_passing, parts


@pytest.fixture(scope="module")
def saved(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A backup of the trained workspace, and its identity."""
    folder = tmp_path_factory.mktemp("saved")
    back_up(trained.settings, folder / "workspace.tar", folder / "identity.tar")
    return folder / "workspace.tar", folder / "identity.tar"


def dump(database: Path) -> list[str]:
    with sqlite3.connect(database) as store:
        return list(store.iterdump())


def test_everything_comes_back(
    saved: tuple[Path, Path], trained: Any, hashes: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    report = restore(saved[0], tmp_path / "restored", saved[1])
    original = {n: h for n, h in hashes(trained.settings.workspace).items() if not is_passing(PurePosixPath(n))}
    back = hashes(tmp_path / "restored")
    assert report.identity and report.files == len(original) and back.keys() == original.keys()
    for name in original:
        if name.endswith(".db"):
            assert dump(tmp_path / "restored" / name) == dump(trained.settings.workspace / name)
        else:
            assert back[name] == original[name], name
            old, new = ((folder / name).stat() for folder in (trained.settings.workspace, tmp_path / "restored"))
            assert (new.st_mtime_ns, new.st_mode) == (old.st_mtime_ns, old.st_mode)
    for folder in (tmp_path / "restored", tmp_path / "restored" / "identity"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_in_it_names_a_person(saved: tuple[Path, Path], trained: Any, phantom_night: Any) -> None:
    file, identity = (path.read_bytes() for path in saved)
    secret = trained.settings.key_file.read_bytes().split()[1]
    for word in (phantom_night.planted.encode(), secret):
        assert word not in file and word in identity
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in saved)


def test_without_its_identity_it_takes_in_nothing_until_that_is_given(
    saved: tuple[Path, Path], phantom_night: Any, tmp_path: Path
) -> None:
    from pipeline.data.ingest.ingest import ingest
    from pipeline.stages.detect.score import find_detectors_to_run, score

    settings = Settings(workspace=tmp_path / "restored")
    assert not restore(saved[0], settings.workspace).identity
    (run,) = find_detectors_to_run(settings)
    assert score(run, settings).studies == 6
    with pytest.raises(IdentityError, match="restore IDENTITY"):
        ingest([phantom_night.inbox], settings)
    assert restore(saved[1], settings.workspace).identity
    assert ingest([phantom_night.inbox], settings).skipped == 6
    with pytest.raises(ConfigError, match="--identity"):
        restore(saved[1], settings.workspace)


def test_another_backups_identity_is_refused(saved: tuple[Path, Path], trained: Any, tmp_path: Path) -> None:
    back_up(trained.settings, tmp_path / "other.tar")
    with pytest.raises(ConfigError, match="created together"):
        restore(tmp_path / "other.tar", tmp_path / "restored", saved[1])
    with pytest.raises(ConfigError, match="created together"):
        restore(saved[0], tmp_path / "restored", saved[0])
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_backup_is_refused(saved: tuple[Path, Path], tmp_path: Path, share: float) -> None:
    whole = saved[0].read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: int(share * len(whole)) // 512 * 512])
    with pytest.raises((ArtefactError, ConfigError)):
        restore(tmp_path / "cut.tar", tmp_path / "restored")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tar"]


def test_a_changed_byte_is_found(saved: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(saved[0]) as tar:
        member = next(info for info in tar if info.name.endswith("config.json"))
    data = bytearray(saved[0].read_bytes())
    data[member.offset_data] ^= 1
    (tmp_path / "changed.tar").write_bytes(data)
    with pytest.raises(ArtefactError, match=r"config\.json"):
        restore(tmp_path / "changed.tar", tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "runs/../../escaped", "identity/pseudonym.key", "link"])
def test_an_archive_writes_only_where_it_may(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "hostile.tar", "w") as tar:
        head = json.dumps({"format": 1, "kind": "workspace", "token": "t", "has_key": False}).encode()
        for what, data in ((HEAD, head), (name, b"x"), (MANIFEST, b"")):
            info = tarfile.TarInfo(what)
            info.size = len(data)
            if what == "link":
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ArtefactError):
        restore(tmp_path / "hostile.tar", tmp_path / "below" / "restored")
    assert not any(path.name == "escaped" for path in tmp_path.rglob("*")) and not Path("/escaped").exists()
    assert not (tmp_path / "below" / "restored").exists()


def test_nothing_is_replaced(saved: tuple[Path, Path], copied: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        restore(saved[0], copied.workspace)
    with pytest.raises(ConfigError, match="exists"):
        back_up(copied, saved[0])
    with pytest.raises(ConfigError, match="inside"):
        back_up(copied, copied.workspace / "backup.tar")
    with pytest.raises(ConfigError, match="not a workspace"):
        back_up(Settings(workspace=tmp_path), tmp_path / "backup.tar")
    (tmp_path / "empty").mkdir()
    assert restore(saved[0], tmp_path / "empty").files > 0


def test_parts_outside_are_named_and_left_out_only_on_request(copied: Settings, tmp_path: Path) -> None:
    url = "postgresql://nightread:secret@db.example/catalogue"
    settings = copied.model_copy(update={"catalogue_url": url})
    with pytest.raises(ConfigError, match="pg_dump") as refused:
        back_up(settings, tmp_path / "backup.tar")
    assert "secret" not in str(refused.value) and "db.example" in str(refused.value)
    assert back_up(settings, tmp_path / "backup.tar", without_outside=True).left_out == ["catalogue"]
    assert [part.name for part in parts(settings) if part.outside] == ["catalogue"]


def test_a_writer_does_not_disturb_it(copied: Settings, tmp_path: Path) -> None:
    """A snapshot of a database is that of one moment, though a transaction is open."""
    with sqlite3.connect(copied.workspace / "catalogue.db") as writer:
        writer.execute("CREATE TABLE half_done (number INTEGER)")
        writer.commit()
        writer.execute("INSERT INTO half_done VALUES (1)")
        back_up(copied, tmp_path / "backup.tar")
        writer.commit()
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    with sqlite3.connect(tmp_path / "restored" / "catalogue.db") as restored:
        assert restored.execute("SELECT count(*) FROM half_done").fetchone() == (0,)
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_memory_does_not_grow_with_the_workspace(settings: Settings, tmp_path: Path) -> None:
    sqlite3.connect(settings.workspace / "catalogue.db").close()
    (settings.workspace / "catalogue.db").touch()
    (settings.workspace / "pixels").mkdir()
    for number in range(2000):
        (settings.workspace / "pixels" / f"{number}.zarr").write_bytes(b"x")
    with (settings.workspace / "large.bin").open("wb") as file:
        file.truncate(64 * 2**20)
    tracemalloc.start()
    back_up(settings, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20  # threads of other tests allocate as well; half of the one large file
    assert (tmp_path / "restored" / "large.bin").stat().st_size == 64 * 2**20


def test_a_store_on_another_disk_is_saved_through_its_link(settings: Settings, tmp_path: Path) -> None:
    (settings.workspace / "catalogue.db").touch()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "object").write_bytes(b"pixels")
    (settings.workspace / "pixels").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(settings.workspace)
    assert back_up(settings, tmp_path / "backup.tar").files == 2
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    assert (tmp_path / "restored" / "pixels" / "object").read_bytes() == b"pixels"


def test_identifying_and_passing_files_are_recognised() -> None:
    def kind(name: str) -> tuple[bool, bool]:
        path = PurePosixPath(name)
        return is_identifying(path), is_passing(path)

    assert kind("identity/pseudonym.key") == kind("inbox/complete/a/b.dcm") == kind("outbox/x/y.dcm") == (True, False)
    assert kind("catalogue.db") == kind("runs/a/trained/weights.safetensors") == (False, False)
    for name in ("cache/x", "catalogue.db-wal", "pixels/.writing/x", "runs/a/.config.json.0a.part", "x.lock"):
        assert kind(name) == (False, True)
    assert kind("inbox/part/0a") == (True, True)


def test_the_commands_say_what_was_done(copied: Settings, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pipeline.cli import group

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(group, ["-w", str(copied.workspace), *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    made = json.loads(run("backup", str(tmp_path / "b.tar"), "--json"))
    assert made["identity"] is False and made["files"] > 10 and made["left_out"] == []
    back = json.loads(run("restore", str(tmp_path / "b.tar"), str(tmp_path / "restored"), "--json"))
    assert back["identity"] is False and back["files"] == made["files"]
    rows = json.loads(run("doctor", "--json"))
    where = {row["check"]: row["detail"] for row in rows}
    assert where["catalogue lies in"] == str(copied.workspace / "catalogue.db")
