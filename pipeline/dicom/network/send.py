"""Sending objects: C-STORE (PS3.4 B) or STOW-RS (PS3.18 10.5), tried again where trying again may help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline import durable
from pipeline.dicom.identity.keyfile import private_folder
from pipeline.dicom.network.address import PASSING, Address
from pipeline.dicom.network.config import TlsFiles
from pipeline.dicom.network.patience import ATTEMPTS, patiently
from pipeline.dicom.network.web import Credential, WebService
from pipeline.errors import ConfigError, SendError


class Destination(Protocol):
    """Where objects go. `name` tells it apart in the catalogue."""

    name: str

    def send(self, ds: Dataset) -> None:
        """Send one object; returns when it was taken.

        Raises:
            SendError: it was not.
        """


@dataclass(frozen=True, slots=True)
class Peer(Address):
    """A Storage SCP, written `AETITLE@host:port`."""

    def send(self, ds: Dataset) -> None:
        """Send one object over an association of its own.

        Raises:
            SendError: no association, the class was refused, or the status is a failure.
        """
        from pynetdicom.presentation import build_context

        contexts = [build_context(UID(ds.SOPClassUID), [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
        association = self.associate(contexts, "take objects of this class")
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
            raise SendError(f"{self.name} answered {answer:#06x}.", passing=answer in PASSING)


@dataclass(frozen=True, slots=True)
class Stow:
    """The STOW-RS side of a DICOMweb service."""

    service: WebService

    @property
    def name(self) -> str:
        """The URL."""
        return self.service.url

    def send(self, ds: Dataset) -> None:
        """Store one object.

        Raises:
            SendError: the service cannot be reached, or did not take it.
        """
        with self.service.answering():
            answer = self.service.client().store_instances([ds], study_instance_uid=ds.StudyInstanceUID)
        failed = answer.get("FailedSOPSequence") if answer is not None else None
        if failed:
            reason = int(failed[0].get("FailureReason", 0x0110))
            raise SendError(f"The DICOMweb service refused the object ({reason:#06x}).", passing=reason in PASSING)


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
        try:
            private_folder(self.path)
            with durable.writing(self.path / f"{ds.Modality}-{ds.SOPInstanceUID}.dcm", mode=0o600) as part:
                ds.save_as(part, enforce_file_format=True)
        except OSError as error:
            raise SendError(f"The folder cannot be written: {error.strerror}.", passing=False) from None


def destination(
    text: str,
    folder: Path,
    calling: str = "NIGHTREAD",
    tls: TlsFiles | None = None,
    credential: Credential | None = None,
) -> Destination:
    """Return what `--to` means: `AETITLE@host:port`, the URL of a DICOMweb service, or the word `folder`.

    Raises:
        ConfigError: it is none of them, or a credential would go where none is used, or be sent in the clear.
    """
    if text.startswith(("http://", "https://")):
        return Stow(WebService.of(text, credential, tls))
    if credential is not None:
        raise ConfigError(
            f"--to {text!r} is no DICOMweb service, so no credential is used. Drop --auth-env, --auth-file."
        )
    found = Folder(folder) if text == "folder" else Peer.parse(text, calling, tls)
    if found is None:
        raise ConfigError(
            f"--to {text!r} is no destination. Give AETITLE@host:port, the URL of a DICOMweb service, or the word "
            "folder."
        )
    return found


def send_with_patience(
    target: Destination, ds: Dataset, attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Send an object, waiting twice as long after every failure that may pass; returns how often it was tried.

    Raises:
        SendError: the last failure.
    """
    tries = 0

    def send() -> None:
        nonlocal tries
        tries += 1
        target.send(ds)

    patiently(send, attempts, sleep)
    return tries
