"""The audit as one file for somebody outside: tables, findings with all behind them, hashes, and a signature.

The file is a zip of uncompressed members in a fixed order and without times, so that its bytes follow from its content:
whoever checks it packs the members again, and every byte that differs is seen, even one between the members. The
manifest names each member's SHA-256 and is signed by Ed25519 (RFC 8032).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.chain import Chain, Chained
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.review_schema import AuditEntry, Decision
from pipeline.data.catalogue.schema import FindingRow, RunRow, now
from pipeline.dicom.identity.keyfile import create_key
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.audit.audit_trail import read_audit_trail
from pipeline.stages.run.environment import read_environment

MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.sig", "public_key.txt"
SEALED = (MANIFEST, SIGNATURE, PUBLIC_KEY)
CHAINED: dict[str, Chained] = {"audit_log": AuditEntry, "decisions": Decision, "promotions": PromotionRow}
LEFT_OUT = {"free_text", "comment", "folder", "record", "steps"}  # free text may name a person
NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class AuditExport:
    """A written export: its number of findings and members, and the fingerprint of the key that signed it."""

    file: str
    findings: int
    members: int
    key_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExportVerdict:
    """Result of checking an export: sentences on what is wrong, and the fingerprint of the key that signed it."""

    problems: tuple[str, ...]
    members: int
    key_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"problems": list(self.problems)}


def export_audit(settings: Settings, file: Path, day: date | None = None) -> AuditExport:
    """Write the audit into a file and sign it; the export is a line of the audit log, and in the file itself.

    Args:
        settings: the workspace.
        file: to write.
        day: only findings, decisions, runs and log lines of this day (UTC); promotions and erasures are complete.

    Raises:
        ConfigError: the workspace has no catalogue, the day has not come yet, or the file exists.
        IdentityError: the signing key (identity/signing.key, made on first use, mode 0600) is exposed or damaged.
    """
    Catalogue.check_exists(settings)
    if day is not None and day > now().date():
        raise ConfigError(f"The day {day} has not come yet. Give a date up to today, {now().date()} (UTC).")
    if file.exists():
        raise ConfigError(f"{file} exists already, and an export never overwrites files. Choose a new name.")
    with Catalogue.open(settings) as catalogue:
        chain = Chain.open(settings, catalogue)
        with catalogue.session() as session:
            row = {"at": now(), "user_name": "command-line", "role": "command-line", "address": "local"}
            detail = {"day": "" if day is None else day.isoformat()}
            chain.append(session, AuditEntry, {**row, "action": "export", "subject": "table:audit", "detail": detail})
        members, findings = _members(catalogue, settings, chain, day)
    key = Ed25519PrivateKey.from_private_bytes(create_key(settings.key_file.with_name("signing.key")))
    public = key.public_key().public_bytes_raw()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    about = {"format": 1, "written_at": f"{now().isoformat()}Z", "day": detail["day"], "sha256": hashes}
    manifest = json.dumps({**about, "environment": read_environment()}, indent=2, sort_keys=True).encode()
    sealed = {MANIFEST: manifest, SIGNATURE: key.sign(manifest).hex().encode(), PUBLIC_KEY: public.hex().encode()}
    durable.write(file, _pack({**members, **sealed}), mode=0o600)
    return AuditExport(str(file), findings, len(members), _fingerprint(public))


def verify_export(file: Path, key_sha256: str | None = None) -> ExportVerdict:
    """Check every byte of an export.

    Args:
        file: written by `export_audit`.
        key_sha256: fingerprint of the site's key, as the export printed it, or at least its first 16 digits; an
            empty one is wrong. Without it, the file is only known to be whole; the signer is not known.

    Raises:
        ArtefactError: the file cannot be read, or is not an export of the audit.
    """
    content = _read(file)
    try:
        members = _unpack(content)
        public, signature = (bytes.fromhex(members[name].decode()) for name in (PUBLIC_KEY, SIGNATURE))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, members[MANIFEST])
        hashes = dict(json.loads(members[MANIFEST])["sha256"])
    except InvalidSignature:
        return ExportVerdict((f"{MANIFEST} does not have its signature: it, or the signature, was changed",), 0, "")
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ArtefactError(
            f"{file.name} is not a readable export of the audit ({type(error).__name__}). Fetch it again."
        ) from None
    problems = list(_compare(members, hashes))
    written = {PUBLIC_KEY: public.hex().encode(), SIGNATURE: signature.hex().encode()}
    problems += [f"{name} was changed" for name, content in written.items() if members[name] != content]
    problems += [] if problems or _pack(members) == content else [_say_where(_pack(members), content)]
    fingerprint = _fingerprint(public)
    if key_sha256 is not None and (len(key_sha256) < 16 or not fingerprint.startswith(key_sha256.lower())):
        problems.append(f"it was signed by the key {fingerprint[:16]}…, not by {key_sha256[:16]!r}")
    return ExportVerdict(tuple(problems), len(hashes), fingerprint)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ArtefactError(f"{file.name} cannot be read: {error.strerror}. Give the path of an export.") from None


def _compare(members: Mapping[str, bytes], hashes: Mapping[str, str]) -> list[str]:
    """Return sentences on members that are altered, missing or additional."""
    problems = [f"{name} is missing" for name in sorted(hashes.keys() - members.keys())]
    problems += [f"{name} is not in the manifest" for name in sorted(members.keys() - hashes.keys() - set(SEALED))]
    for name in sorted(hashes.keys() & members.keys()):
        if hashlib.sha256(members[name]).hexdigest() != hashes[name]:
            problems.append(f"{name} was changed")
    return problems


def _say_where(expected: bytes, content: bytes) -> str:
    pairs = enumerate(zip(expected, content, strict=False))
    place = next((place for place, (a, b) in pairs if a != b), min(len(expected), len(content)))
    return f"the archive's own structure was changed at byte {place}"


def _fingerprint(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()


def _pack(members: Mapping[str, bytes]) -> bytes:
    """Return the zip of members: uncompressed, in order, without times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, NO_TIME)
            info.create_system, info.external_attr = 3, 0o600 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _unpack(content: bytes) -> dict[str, bytes]:
    """Return the members as they are, without zip's own check of them, which would not say which one was changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {}
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile("a member is compressed")
            with archive.open(info) as stream:
                stream._expected_crc = None  # type: ignore[attr-defined]  # the SHA-256 decides
                members[info.filename] = stream.read()
        return members


def _members(catalogue: Catalogue, settings: Settings, chain: Chain, day: date | None) -> tuple[dict[str, bytes], int]:
    """Return the files of an export by name, and the number of findings."""
    rows = [row for row in catalogue.list_findings() if _is_of(row.scored_at, day)]
    trails = [read_audit_trail(catalogue, settings, row) for row in rows if row.flagged]
    with catalogue.reading() as session:
        verdicts = {name: asdict(chain.verify(session, table)) for name, table in CHAINED.items()}
        members = {
            "audit_log.csv": _table(session, AuditEntry, AuditEntry.at, day),
            "decisions.csv": _table(session, Decision, Decision.decided_at, day),
            "promotions.csv": _table(session, PromotionRow, None, None),
            "runs.csv": _table(session, RunRow, RunRow.started_at, day),
            "findings.csv": _table(session, FindingRow, FindingRow.scored_at, day),
            "erasures.csv": _table(session, Erasure, None, None),
        }
    members["chains.json"] = _json(verdicts)
    members["flagged.json"] = _json(trails)
    return members, len(rows)


def _is_of(at: datetime, day: date | None) -> bool:
    return day is None or at.date() == day


def _table(session: Session, table: Any, at: Any, day: date | None) -> bytes:
    """Return a table as CSV, without free text and without what is too large for one."""
    names = [column.key for column in table.__table__.columns if column.key not in LEFT_OUT]
    query = select(table).order_by(*table.__table__.primary_key.columns)
    if at is not None and day is not None:
        begin = datetime.combine(day, datetime.min.time())
        query = query.where(at >= begin, at < begin + timedelta(days=1))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in session.scalars(query))
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"
    return (
        json.dumps(value, sort_keys=True, default=str)
        if isinstance(value, Mapping | Sequence) and not isinstance(value, str)
        else value
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()
