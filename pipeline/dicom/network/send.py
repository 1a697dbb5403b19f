"""Sending objects: C-STORE (PS3.4 B) or STOW-RS (PS3.18 10.5), tried again where trying again may help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline.dicom.keyfile import private_folder
from pipeline.dicom.network.config import TlsFiles
from pipeline.errors import ConfigError, SendError

ATTEMPTS, FIRST_PAUSE_SECONDS = 4, 0.5
_SOON_SECONDS = 30.0
_PASSING = range(0xA700, 0xA800)  # out of resources: it may pass; every other failure is final


class Destination(Protocol):
    """Where objects go. `name` tells it apart in the catalogue."""

    name: str

    def send(self, ds: Dataset) -> None:
        """Send one object; returns when it was taken.

        Raises:
            SendError: it was not.
        """


@dataclass(frozen=True, slots=True)
class Peer:
    """A Storage SCP, written `AETITLE@host:port`."""

    ae_title: str
    host: str
    port: int
    calling: str = "NIGHTREAD"
    tls: TlsFiles | None = None

    @property
    def name(self) -> str:
        """As it is written."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    def send(self, ds: Dataset) -> None:
        """Send one object over an association of its own.

        Raises:
            SendError: no association, the class was refused, or the status is a failure.
        """
        from pynetdicom import AE

        from pipeline.dicom.network.tls import client_context

        entity = AE(ae_title=self.calling)
        entity.add_requested_context(UID(ds.SOPClassUID), [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _SOON_SECONDS
        entity.connection_timeout = _SOON_SECONDS
        tls = None if self.tls is None else (client_context(self.tls), self.host)
        association = entity.associate(self.host, self.port, ae_title=self.ae_title, tls_args=tls)
        if not association.is_established:
            self._explain(association)
        try:
            answer = association.send_c_store(ds).get("Status")
        except ValueError:  # no accepted context
            raise SendError(f"{self.name} does not take objects of this class.", passing=False) from None
        finally:
            if association.is_established:
                association.release()
        if answer is None:
            raise SendError(f"{self.name} closed the association without an answer.", passing=True)
        if answer != 0 and answer >> 12 != 0xB:  # 0xBxxx: taken, with a warning
            raise SendError(f"{self.name} answered {answer:#06x}.", passing=answer in _PASSING)

    def _explain(self, association: object) -> None:
        if getattr(association, "is_rejected", False):
            answer = association.acceptor.primitive  # type: ignore[attr-defined]
            reason = f"({answer.result}, {answer.result_source}, {answer.diagnostic})"
            raise SendError(f"{self.name} rejected the association {reason}.", passing=answer.result == 2)
        if getattr(association, "rejected_contexts", None):
            raise SendError(f"{self.name} does not take objects of this class.", passing=False)
        raise SendError(f"{self.name} cannot be reached.", passing=True)


@dataclass(frozen=True, slots=True)
class Stow:
    """A DICOMweb service, by its base URL; a proxy's token comes from the environment through `headers`."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    def send(self, ds: Dataset) -> None:
        """Store one object.

        Raises:
            SendError: the service cannot be reached, or did not take it.
        """
        import requests
        from dicomweb_client.api import DICOMwebClient

        client = DICOMwebClient(self.url, headers=dict(self.headers))
        client.set_http_retry_params(retry=False)
        try:
            answer = client.store_instances([ds], study_instance_uid=ds.StudyInstanceUID)
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            passing = code in (408, 429) or code >= 500
            raise SendError(f"The DICOMweb service answered {code}.", passing) from None
        except (requests.RequestException, OSError) as error:
            raise SendError(f"The DICOMweb service cannot be reached ({type(error).__name__}).", passing=True) from None
        failed = answer.get("FailedSOPSequence") if answer is not None else None
        if failed:
            reason = int(failed[0].get("FailureReason", 0x0110))
            raise SendError(f"The DICOMweb service refused the object ({reason:#06x}).", passing=reason in _PASSING)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder, readable by its owner only: the objects carry the real identity. File names are SOP Instance UIDs."""

    path: Path

    @property
    def name(self) -> str:
        """The same for every folder: a path may name somebody."""
        return "folder"

    def send(self, ds: Dataset) -> None:
        """Write the object as a file, whole or not at all.

        Raises:
            SendError: the folder cannot be written.
        """
        part = self.path / f"{ds.SOPInstanceUID}.part"
        try:
            private_folder(self.path)
            ds.save_as(part, enforce_file_format=True)
            part.chmod(0o600)
            part.replace(self.path / f"{ds.Modality}-{ds.SOPInstanceUID}.dcm")
        except OSError as error:
            raise SendError(f"The folder cannot be written: {error.strerror}.", passing=False) from None


def destination(text: str, folder: Path, calling: str = "NIGHTREAD", tls: TlsFiles | None = None) -> Destination:
    """Return what `--to` means: `AETITLE@host:port`, the URL of a DICOMweb service, or the word `folder`.

    Raises:
        ConfigError: it is none of them.
    """
    if text == "folder":
        return Folder(folder)
    if text.startswith(("http://", "https://")):
        return Stow(text.rstrip("/"))
    title, at, address = text.partition("@")
    host, colon, port = address.rpartition(":")
    if at and colon and title and len(title) <= 16 and host and port.isdigit() and 0 < int(port) < 65536:
        return Peer(title, host, int(port), calling, tls)
    raise ConfigError(
        f"--to {text!r} is no destination. Give AETITLE@host:port, the URL of a DICOMweb service, or the word folder."
    )


def send_with_patience(
    target: Destination, ds: Dataset, attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Send an object, waiting twice as long after every failure that may pass; returns how often it was tried.

    Raises:
        SendError: the last failure.
    """
    for attempt in range(1, attempts + 1):
        try:
            target.send(ds)
            return attempt
        except SendError as error:
            if not error.passing or attempt == attempts:
                raise
            sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    raise ConfigError(f"{attempts} attempts were asked for; at least one is needed.")
