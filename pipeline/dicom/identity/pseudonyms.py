"""Keyed pseudonyms: the only names of patients, studies, series, instances and paths outside the crosswalk.

A pseudonym is the first 128 bits of an HMAC-SHA256 (RFC 2104) in hex, with one namespace per kind. A patient is an
issuer and a trimmed Patient ID (PS3.3 C.2.2, (0010,0021) and (0010,0020)); where the file names no issuer, the site is
used.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.dicom.identity.keyfile import KeyLock, create_key, read_key
from pipeline.errors import IdentityError

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.dicom.decode.attributes import RawIdentity

Kind = Literal["patient", "study", "series", "instance", "path", "frame-of-reference"]
_PADDING = " \t\r\n\0"  # PS3.5 6.2 pads with spaces, and UIDs with one NUL; real files also use the others


@dataclass(frozen=True, slots=True)
class Ids:
    """The pseudonyms of one instance.

    `identified` is False where the file has no Patient ID: the study then takes the patient's place, and is never used
    for training. `key_id` names the key that made them, so that the crosswalk can refuse pseudonyms of a retired key.
    `frame_of_reference_id` is "" where the file names no frame of reference.
    """

    patient_id: str
    study_id: str
    series_id: str
    instance_id: str
    identified: bool = True
    key_id: str = ""
    frame_of_reference_id: str = ""


class Pseudonyms:
    """Derives pseudonyms from one secret key, deterministically. Holds a shared lock, so that no rotation can run."""

    def __init__(self, key: bytes, lock: KeyLock | None = None) -> None:
        self._key = key
        self._lock = lock
        self.key_id = self._digest("key-id")[:16]

    @classmethod
    def open(cls, settings: Settings) -> Pseudonyms:
        """Use the workspace's key, creating it (mode 0600) on first use.

        Raises:
            IdentityError: the key is exposed, damaged or being rotated, or an interrupted rotation must be finished.
        """
        lock = KeyLock(settings.key_file)
        try:
            if next_key_file(settings).exists():
                raise IdentityError(
                    "A key rotation was interrupted, so pseudonyms of two keys may be in use. Run "
                    "`nightread identity rotate` to finish it. No data has been lost."
                )
            return cls(create_key(settings.key_file), lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def read(cls, key_file: Path) -> Pseudonyms:
        """Use an existing key file without a lock: only for the rotation, which holds the exclusive lock."""
        return cls(read_key(key_file))

    def __repr__(self) -> str:
        return f"Pseudonyms(key_id={self.key_id})"

    def close(self) -> None:
        """Release the shared lock, so that a rotation may run."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Pseudonyms:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def patient(self, issuer_or_site: str, patient_id: str) -> str:
        """Return the pseudonym of a person: issuer (or site) and Patient ID, both trimmed and case-sensitive.

        Raises:
            IdentityError: the Patient ID is empty; use `patient_of_study`.
        """
        if not trim(patient_id):
            raise IdentityError("An empty Patient ID has no patient pseudonym. Use `patient_of_study` instead.")
        return self._digest("patient", trim(issuer_or_site), trim(patient_id))[:32]

    def patient_of_study(self, study_uid: str) -> str:
        """Return the pseudonym of the unknown person of a study without Patient ID."""
        return self._digest("patient-of-study", trim(study_uid))[:32]

    def study(self, uid: str) -> str:
        """Return the pseudonym of a Study Instance UID (0020,000D)."""
        return self._digest("study", trim(uid))[:32]

    def series(self, uid: str) -> str:
        """Return the pseudonym of a Series Instance UID (0020,000E)."""
        return self._digest("series", trim(uid))[:32]

    def series_within(self, study_uid: str, uid: str) -> str:
        """Return the pseudonym of a series whose Series Instance UID another study has already."""
        return self._digest("series-within-study", trim(study_uid), trim(uid))[:32]

    def instance(self, uid: str) -> str:
        """Return the pseudonym of a SOP Instance UID (0008,0018)."""
        return self._digest("instance", trim(uid))[:32]

    def frame_of_reference(self, uid: str) -> str:
        """Return the pseudonym of a Frame of Reference UID (0020,0052), "" for none."""
        return self._digest("frame-of-reference", trim(uid))[:32] if trim(uid) else ""

    def path(self, path: str | Path) -> str:
        """Return the pseudonym of a file path, which must be absolute: a relative one would get another pseudonym."""
        return self._digest("path", os.fsencode(path))[:32]

    def unknown(self, kind: Kind, former: str) -> str:
        """Return the pseudonym that replaces `former` when its real identifier was never recorded (rotation only)."""
        return self._digest(f"former-{kind}", former)[:32]

    def of(self, identity: RawIdentity, site: str) -> Ids:
        """Return all pseudonyms of one instance; `site` is used where the identity names no issuer."""
        identified = bool(trim(identity.patient_id))
        issuer = trim(identity.issuer) or site
        patient = self.patient(issuer, identity.patient_id) if identified else self.patient_of_study(identity.study_uid)
        return Ids(
            patient_id=patient,
            study_id=self.study(identity.study_uid),
            series_id=self.series(identity.series_uid),
            instance_id=self.instance(identity.sop_uid),
            identified=identified,
            key_id=self.key_id,
            frame_of_reference_id=self.frame_of_reference(identity.frame_of_reference_uid),
        )

    def _digest(self, *parts: str | bytes) -> str:
        # Every part is preceded by its length, so ("ab", "c") and ("a", "bc") can never be the same message.
        message = b"".join(
            len(part).to_bytes(8, "big") + part
            for part in (p if isinstance(p, bytes) else p.encode("utf-8", "surrogatepass") for p in parts)
        )
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def trim(value: str) -> str:
    """Return `value` without DICOM padding at either end (PS3.5 section 6.2)."""
    return value.strip(_PADDING)


def next_key_file(settings: Settings) -> Path:
    """Return the path of the new key during a rotation; the file exists only while a rotation is unfinished."""
    return settings.key_file.with_suffix(".next")
