"""Keyed hash chain over append-only rows that reveals any row that was altered, removed or moved.

Each row's `chain_hash` is the HMAC-SHA-256 (RFC 2104) of the previous hash and of the row's values as canonical JSON.
The key is beside the workspace's identity key, in a file of mode 0600: write access to the database alone is not
enough to forge a row. A chain cannot show that its end was cut off, so decisions are also counted in the audit log, and
`verify` prints the last hash, to be kept elsewhere and compared later.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.erasure_schema import Redaction
from pipeline.data.catalogue.operations_schema import PromotionRow
from pipeline.data.catalogue.review_schema import AuditEntry, Decision
from pipeline.dicom.identity.keyfile import create_key
from pipeline.errors import IdentityError, ReviewError

Chained = type[Decision] | type[AuditEntry] | type[PromotionRow]
# The database assigns the row's id, the hash is the result, and the pseudonym changes in a key rotation.
_OUTSIDE = frozenset({"id", "chain_hash", "region_instance_id"})
_SHOWN = 20  # problems that are listed by row


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of checking a chain: its number of rows, its last hash, and a sentence for each altered row."""

    rows: int
    head: str
    problems: tuple[str, ...]


class Chain:
    """Computes and checks the hashes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def open(cls, settings: Settings, catalogue: Catalogue) -> Chain:
        """Read the key, or create it on first use.

        Raises:
            IdentityError: the key is exposed, damaged, or missing although chained rows exist.
        """
        path = settings.key_file.with_name("review.key")
        with catalogue.reading() as session:
            first = (session.scalar(select(table.id).limit(1)) for table in (AuditEntry, PromotionRow))
            begun = any(row is not None for row in first)
        if begun and not path.exists():
            raise IdentityError(
                "The key of the audit log, the decisions and the promotions (identity/review.key) is missing, so "
                "they could no longer be verified. Restore the file from your backup."
            )
        return cls(create_key(path))

    def derive_key(self, purpose: bytes) -> bytes:
        """Return a key for another purpose, from which this chain's own cannot be computed."""
        return hmac.new(self._key, purpose, hashlib.sha256).digest()

    def append(self, session: Session, table: Chained, row: dict[str, Any]) -> int:
        """Insert a row with its hash in a writing transaction and return its id; `row` holds every column but
        the id.
        """
        before = session.scalar(select(table.chain_hash).order_by(table.id.desc()).limit(1)) or ""
        values = {**row, "chain_hash": self._link(table, before, row)}
        return int(session.execute(insert(table).values(**values).returning(table.id)).scalar_one())

    def verify(self, session: Session, table: Chained, head: str = "") -> Verdict:
        """Check every row; given `head`, also check that the chain once ended with that hash."""
        before, rows, problems, head_seen = "", 0, [], not head
        seals = {row.decision_id: row.seal for row in session.scalars(select(Redaction))} if table is Decision else {}
        for row in session.execute(select(table.__table__).order_by(table.id).execution_options(yield_per=1_000)):
            values = dict(row._mapping)
            sealed = values["id"] in seals and hmac.compare_digest(self._seal(before, values), seals[values["id"]])
            if not (sealed or hmac.compare_digest(self._link(table, before, values), values["chain_hash"])):
                problems.append(f"{table.__tablename__} row {values['id']} was altered, or rows before it were removed")
            before, rows = values["chain_hash"], rows + 1
            head_seen = head_seen or before == head
        if not head_seen:
            problems.append(f"{table.__tablename__} no longer holds the row of the given hash: its end was cut off")
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        return Verdict(rows, before, (*problems[:_SHOWN], *more))

    def redact(self, session: Session, findings: Collection[int]) -> int:
        """Empty the free texts of the decisions on some findings, in a writing transaction; return how many had one.

        The rest of each row is sealed with the chain's key, and its hash stays, so that both the chain and the hashes
        that were printed before remain valid.

        Raises:
            ReviewError: a row is not as it was written; its texts stay, because a seal would hide that.
        """
        has_text = or_(Decision.free_text != "", Decision.comment != "")
        rows = select(Decision.__table__).where(has_text).order_by(Decision.id)
        emptied = 0
        for finding in sorted(findings):
            for row in session.execute(rows.where(Decision.finding_id == finding)).all():
                values = dict(row._mapping)
                earlier = select(Decision.chain_hash).where(Decision.id < values["id"]).order_by(Decision.id.desc())
                before = session.scalar(earlier.limit(1)) or ""
                if not hmac.compare_digest(self._link(Decision, before, values), values["chain_hash"]):
                    raise ReviewError(
                        f"Decision {values['id']} is not as it was written, so its text is not taken out, which would "
                        "hide that. Run nightread review verify, and restore the row from a backup first."
                    )
                bare = {"free_text": "", "comment": ""}
                seal = self._seal(before, {**values, **bare})
                session.execute(insert(Redaction).values(decision_id=values["id"], seal=seal))
                session.execute(update(Decision).where(Decision.id == values["id"]).values(**bare))
                emptied += 1
        return emptied

    def _seal(self, before: str, row: dict[str, Any]) -> str:
        content = {name: _plain(value) for name, value in row.items() if name not in ("id", "region_instance_id")}
        text = json.dumps(["redactions", before, content], sort_keys=True, ensure_ascii=True)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def _link(self, table: Chained, before: str, row: dict[str, Any]) -> str:
        content = {name: _plain(value) for name, value in row.items() if name not in _OUTSIDE}
        text = json.dumps([table.__tablename__, before, content], sort_keys=True, ensure_ascii=True)
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
