"""Send objects by C-STORE (PS3.4 B) or STOW-RS (PS3.18 10.5), with retries where they may help."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pipeline import durable
from pipeline.dicom.identity.keyfile import make_private_folder
from pipeline.dicom.network.address import PASSING, Address
from pipeline.dicom.network.config import TlsFiles
from pipeline.dicom.network.patience import ATTEMPTS, retry_patiently
from pipeline.dicom.network.web import Credential, WebService
from pipeline.errors import ConfigError, SendError


class Destination(Protocol):
    """Receiver of objects. `name` identifies it in the catalogue."""

    @property
    def name(self) -> str: ...

    def send(self, ds: Dataset) -> None:
        """Send one object; returns once it was accepted.

        Raises:
            SendError: it was not accepted.
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
        association = self.associate(contexts, "accept objects of this class")
        try:
            answer = association.send_c_store(ds).get("Status")
        except ValueError:  # pynetdicom raises it where no context was accepted
            raise SendError(
                f"{self.name} does not accept objects of this class. Enable it there.", passing=False
            ) from None
        finally:
            if association.is_established:
                association.release()
        if answer is None:
            raise SendError(
                f"{self.name} closed the association without an answer. Check whether it is running, and push again.",
                passing=True,
            )
        if answer != 0 and answer >> 12 != 0xB:  # 0xBxxx: accepted with a warning
            passing = answer in PASSING
            why = "it is out of resources, such as disk space: free some there" if passing else "look into its log"
            raise SendError(f"{self.name} answered {answer:#06x}: {why}, and push again.", passing)


@dataclass(frozen=True, slots=True)
class Stow:
    """The STOW-RS side of a DICOMweb service."""

    service: WebService

    @property
    def name(self) -> str:
        """URL of the service."""
        return self.service.url

    def send(self, ds: Dataset) -> None:
        """Store one object.

        Raises:
            SendError: the service cannot be reached, or did not accept it.
        """
        with self.service.translate_errors():
            answer = self.service.open_client().store_instances([ds], study_instance_uid=ds.StudyInstanceUID)
        failed = answer.get("FailedSOPSequence") if answer is not None else None
        if failed:
            reason = int(failed[0].get("FailureReason", 0x0110))
            raise SendError(f"The DICOMweb service refused the object ({reason:#06x}).", passing=reason in PASSING)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that only its owner can read, because the objects carry real identities. Files are named by UID."""

    path: Path

    @property
    def name(self) -> str:
        """The same for all folders, because a path may name somebody."""
        return "folder"

    def send(self, ds: Dataset) -> None:
        """Write the object as a file, whole or not at all.

        Raises:
            SendError: the folder cannot be written.
        """
        try:
            make_private_folder(self.path)
            with durable.writing(self.path / f"{ds.Modality}-{ds.SOPInstanceUID}.dcm", mode=0o600) as part:
                ds.save_as(part, enforce_file_format=True)
        except OSError as error:
            raise SendError(
                f"The folder cannot be written: {_reason(error)}. Check its permissions, free some space on its disk, "
                "and push again.",
                passing=False,
            ) from None


def _reason(error: BaseException) -> str:
    """Return what the system says; pydicom wraps its error in one of its own without a number."""
    while not getattr(error, "strerror", None) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or type(error).__name__)


def require_destination(
    text: str,
    folder: Path,
    calling: str = "NIGHTREAD",
    tls: TlsFiles | None = None,
    credential: Credential | None = None,
) -> Destination:
    """Return the destination of `--to`: `AETITLE@host:port`, the URL of a DICOMweb service, or the word `folder`.

    Raises:
        ConfigError: it is not one of these, or the credential would not be used or would be sent in clear text.
    """
    if text.startswith(("http://", "https://")):
        return Stow(WebService.parse(text, credential, tls))
    if credential is not None:
        raise ConfigError(
            f"--to {text!r} is not a DICOMweb service, so no credential is used. Drop --auth-env and --auth-file."
        )
    target = Folder(folder) if text == "folder" else Peer.parse(text, calling, tls)
    if target is None:
        raise ConfigError(
            f"--to {text!r} is not a destination. Give AETITLE@host:port, the URL of a DICOMweb service, or the word "
            "folder."
        )
    return target


def send_with_patience(
    target: Destination, ds: Dataset, attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Send an object, waiting twice as long after each failure that may pass; return the number of attempts.

    Raises:
        SendError: the last failure.
    """
    tries = 0

    def send() -> None:
        nonlocal tries
        tries += 1
        target.send(ds)

    retry_patiently(send, attempts, sleep)
    return tries
