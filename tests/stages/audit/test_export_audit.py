"""An export of the audit is signed, holds pseudonyms only, and every changed byte is seen and named."""

from __future__ import annotations

import contextlib
import io
import json
import random
import stat
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.audit.export_audit import MANIFEST, PUBLIC_KEY, SIGNATURE, AuditExport, export_audit, verify_export


@pytest.fixture(scope="module")
def exported(scored: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AuditExport]:
    file = tmp_path_factory.mktemp("audit") / "audit.zip"
    return file, export_audit(scored.settings, file)


def test_it_verifies_and_names_nobody(scored: Any, exported: tuple[Path, AuditExport]) -> None:
    file, report = exported
    assert verify_export(file, report.key_sha256).problems == ()
    assert report.findings == 6
    content = file.read_bytes()
    assert scored.planted.encode() not in content
    with zipfile.ZipFile(file) as archive:
        flagged = json.loads(archive.read("flagged.json"))
        chains = json.loads(archive.read("chains.json"))
        assert b"export" in archive.read("audit_log.csv")
    assert [one["problems"] for one in flagged] == [[], []]
    assert chains["audit_log"]["problems"] == [] and chains["audit_log"]["head"]
    key = scored.settings.workspace / "identity" / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_day_without_findings_has_none(scored: Any, tmp_path: Path) -> None:
    assert export_audit(scored.settings, tmp_path / "day.zip", date(2001, 1, 1)).findings == 0
    assert verify_export(tmp_path / "day.zip").problems == ()


def test_a_wrong_workspace_or_a_day_to_come_is_refused_and_signs_nothing(scored: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no catalogue in this workspace"):
        export_audit(Settings(workspace=tmp_path / "typo"), tmp_path / "audit.zip")
    with pytest.raises(ConfigError, match="has not come yet"):
        export_audit(scored.settings, tmp_path / "audit.zip", date(2999, 1, 1))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_not_overwritten(scored: Any, exported: tuple[Path, AuditExport]) -> None:
    file, _ = exported
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        export_audit(scored.settings, file)
    assert file.read_bytes() == before


def test_the_changed_member_is_named(exported: tuple[Path, AuditExport], tmp_path: Path) -> None:
    file, _ = exported
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("findings.csv")
    content[info.header_offset + 30 + len("findings.csv") + 5] ^= 1
    (tmp_path / "changed.zip").write_bytes(content)
    assert verify_export(tmp_path / "changed.zip").problems == ("findings.csv was changed",)


def test_any_changed_byte_is_seen(exported: tuple[Path, AuditExport], tmp_path: Path) -> None:
    file, _ = exported
    content, changed = file.read_bytes(), tmp_path / "changed.zip"
    rng = random.Random(5)
    headers = [*range(60), *range(len(content) - 900, len(content))]
    for place in [*rng.sample(headers, 150), *rng.sample(range(len(content)), 60)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        changed.write_bytes(damaged)
        with contextlib.suppress(ArtefactError):
            assert verify_export(changed).problems, place
    for wrong in (content[:-1], content + b"x", b"", b"no zip"):
        changed.write_bytes(wrong)
        with contextlib.suppress(ArtefactError):
            assert verify_export(changed).problems


def test_another_key_or_an_added_member_is_seen(exported: tuple[Path, AuditExport], tmp_path: Path) -> None:
    file, _ = exported
    assert "signed by the key" in verify_export(file, "0" * 64).problems[0]
    assert verify_export(file).problems == ()
    assert verify_export(file, "").problems  # as from a variable that was never set: not a key that was compared
    buffer = io.BytesIO(file.read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("more.csv", "x")
    (tmp_path / "more.zip").write_bytes(buffer.getvalue())
    assert verify_export(tmp_path / "more.zip").problems == ("more.csv is not in the manifest",)


@pytest.mark.parametrize(("member", "other"), [(PUBLIC_KEY, bytes.upper), (SIGNATURE, lambda text: b" " + text)])
def test_another_spelling_of_key_or_signature_is_seen(
    exported: tuple[Path, AuditExport], tmp_path: Path, member: str, other: Callable[[bytes], bytes]
) -> None:
    with zipfile.ZipFile(exported[0]) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = other(members[member])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # as the export packs them
        for name in sorted(members):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o600 << 16
            archive.writestr(info, members[name])
    (tmp_path / "spelt.zip").write_bytes(buffer.getvalue())
    assert verify_export(tmp_path / "spelt.zip").problems == (f"{member} was changed",)


def test_the_commands(scored: Any, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(group, ["-w", str(scored.settings.workspace), "audit", *arguments])

    file = tmp_path / "audit.zip"
    done = run("export", str(file), "--json")
    assert done.exit_code == 0, done.output
    key = json.loads(done.stdout)["key_sha256"]
    assert "are as they were written" in run("verify", str(file), "--key", key[:16]).stdout
    assert run("verify", str(file), "--key", "1" * 16).exit_code == 7
    assert run("verify", str(file), "--key", "").exit_code == 7
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"format": 1', b'"format": 2'))
    changed = run("verify", str(file))
    assert changed.exit_code == 7 and MANIFEST in changed.stdout
    assert run("verify", str(tmp_path / "missing.zip")).exit_code == 7
