"""`nightread doctor` finds what is missing, and touches nothing."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import stat
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from pydicom.pixels import decoders

from pipeline.errors import ConfigError

Usage = namedtuple("Usage", "total used free")


def checks(done: Any) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in json.loads(done.stdout)}


def test_all_is_well_and_nothing_was_made(nightread: Any, tmp_path: Path) -> None:
    done = nightread("doctor", "--json")
    rows = checks(done)
    assert [name for name, row in rows.items() if not row["ok"]] == []
    assert done.exit_code == 0
    assert {"torch", "fastapi", "decoder JPEG 2000", "disk", "catalogue", "MLflow", "Prefect", "routes"} <= set(rows)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "zarr":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.155.0" if name == "fastapi" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    done = nightread("doctor", "--json")
    rows = checks(done)
    assert done.exit_code == 1
    assert rows["zarr"]["detail"].startswith("not installed")
    assert not rows["fastapi"]["ok"]  # there, but of a version that silently breaks Prefect
    assert "0.155.0" in rows["fastapi"]["detail"]
    assert "Failed: fastapi, zarr" in nightread("doctor").stdout or "Failed: " in nightread("doctor").stdout


def test_a_missing_library_of_pdf(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(page: str) -> bytes:
        raise ConfigError("A PDF needs the library Pango")

    monkeypatch.setattr("pipeline.review.night_pdf.write_pdf", refuse)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    row = checks(nightread("doctor", "--json"))["pdf"]
    assert not row["ok"] and "Pango" in row["detail"]


def test_a_missing_decoder(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.uid import JPEG2000Lossless

    decoder = decoders.base._PIXEL_DATA_DECODERS[JPEG2000Lossless][0]
    monkeypatch.setattr(decoder, "_available", {})
    rows = checks(nightread("doctor", "--json"))
    assert not rows["decoder JPEG 2000"]["ok"]
    assert rows["decoder RLE"]["ok"]


def test_a_full_disk(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 2 * 2**30))
    done = nightread("doctor", "--json")
    assert checks(done)["disk"]["detail"].startswith("2.0 GiB free")
    assert done.exit_code == 1


def test_a_database_that_cannot_be_reached(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_CATALOGUE_URL", "sqlite:////proc/nowhere/catalogue.db")
    done = nightread("doctor", "--json")
    assert not checks(done)["database"]["ok"]
    assert done.exit_code == 1


def test_a_key_that_others_can_read(nightread: Any, tmp_path: Path) -> None:
    key = tmp_path / "workspace" / "identity" / "pseudonym.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"x" * 32)
    key.chmod(0o644)
    rows = checks(nightread("doctor", "--json"))
    assert not rows["pseudonym key"]["ok"]
    assert "chmod 600" in rows["pseudonym key"]["detail"]


@pytest.mark.parametrize(("mode", "private"), [(0o700, True), (0o2770, True), (0o755, False), (0o701, False)])
def test_who_may_open_the_workspace(nightread: Any, tmp_path: Path, mode: int, private: bool) -> None:
    """A folder that was made beforehand keeps its mode, so the command that closes it is given, and works."""
    workspace = tmp_path / "work space"
    workspace.mkdir()
    (workspace / "catalogue.txt").touch(0o644)
    workspace.chmod(mode)
    done = nightread("doctor", "--json", workspace=workspace)
    row = checks(done)["workspace is private"]
    assert row["ok"] == private and f"mode {mode:04o}" in row["detail"]
    if not private:
        assert done.exit_code == 1
        subprocess.run(row["detail"].partition("Run: ")[2], shell=True, check=True)
        assert stat.S_IMODE((workspace / "catalogue.txt").stat().st_mode) == 0o640
        assert checks(nightread("doctor", "--json", workspace=workspace))["workspace is private"]["ok"]


def test_a_key_that_is_damaged(nightread: Any, tmp_path: Path) -> None:
    key = tmp_path / "workspace" / "identity" / "pseudonym.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"x" * 32)
    key.chmod(0o600)
    rows = checks(nightread("doctor", "--json"))
    assert not rows["pseudonym key"]["ok"] and "damaged" in rows["pseudonym key"]["detail"]


def test_a_file_where_the_workspace_should_be(nightread: Any, tmp_path: Path) -> None:
    (tmp_path / "workspace").write_text("")
    done = nightread("doctor", "--json")
    rows = checks(done)
    assert done.exit_code == 1 and not rows["workspace"]["ok"] and not rows["catalogue"]["ok"]


def test_a_prefect_server_that_does_not_answer(nightread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    rows = checks(nightread("doctor", "--json"))
    assert not rows["Prefect"]["ok"]
    assert "unset the variable" in rows["Prefect"]["detail"]


def test_missing_routes(nightread: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREAD_ROUTES", str(tmp_path / "none"))
    assert nightread("doctor", "--json").exit_code == 1


def test_a_workspace_in_use_is_described(nightread: Any, trained: Any) -> None:
    rows = checks(nightread("doctor", "--json", workspace=trained.settings.workspace))
    assert rows["catalogue"]["detail"].startswith("sqlite")
    assert rows["MLflow"]["detail"] == "sqlite store can be opened"
    assert rows["pseudonym key"]["detail"] == "private"
