"""DICOMweb service (PS3.18): its URL, our credential, and reasons for failure. Requested URLs hold real UIDs."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pipeline.dicom.identity.keyfile import check_private
from pipeline.dicom.network.config import TlsFiles
from pipeline.errors import ConfigError, SendError

for _name in ("dicomweb_client", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)  # they quote URLs, which contain UIDs

_TIMEOUT_SECONDS = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FORM = 'Write "bearer TOKEN" or "basic USER:PASSWORD".'


class Gone(SendError):
    """The requested resource does not exist (any more)."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Value of an Authorization header (RFC 7617, RFC 6750), which is never shown."""

    header: str = field(repr=False)

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Read `bearer TOKEN` or `basic USER:PASSWORD`; `where` names its source in messages.

        Raises:
            ConfigError: it has neither form.
        """
        scheme, _, value = text.strip().partition(" ")
        value = value.strip()
        printable = value.isprintable() and "\n" not in value
        if scheme.lower() == "bearer" and value and printable and value.isascii():
            return cls(f"Bearer {value}")
        if scheme.lower() == "basic" and ":" in value and printable:
            return cls(f"Basic {base64.b64encode(value.encode()).decode()}")
        raise ConfigError(f"The credential in {where} cannot be used. {_FORM}")

    @classmethod
    def read(cls, variable: str | None, file: Path | None) -> Self | None:
        """Read the credential from an environment variable or a file of mode 0600; None if neither is named.

        Raises:
            ConfigError: it is missing or malformed. IdentityError: others can read the file.
        """
        if variable is not None and file is not None:
            raise ConfigError("--auth-env and --auth-file name two credentials. Give one of them.")
        if variable is not None:
            if not os.environ.get(variable):
                raise ConfigError(f"The environment variable {variable} is empty or not set. {_FORM}")
            return cls.parse(os.environ[variable], f"the environment variable {variable}")
        return None if file is None else cls.parse(_private_text(file), "the file of --auth-file")


def _private_text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as stream:
            check_private(os.fstat(stream.fileno()), "file of --auth-file")
            return stream.read(65536)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"The file of --auth-file cannot be read: {reason}. {_FORM}") from None


@dataclass(frozen=True, slots=True)
class WebService:
    """A DICOMweb service by its base URL."""

    url: str
    credential: Credential | None = None
    tls: TlsFiles | None = None

    @classmethod
    def parse(cls, url: str, credential: Credential | None = None, tls: TlsFiles | None = None) -> Self:
        """Return the service at a URL.

        Raises:
            ConfigError: it holds a password, or a credential would be sent in clear text.
        """
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ConfigError("The URL holds a user or password, which others can see. Use --auth-env or --auth-file.")
        if credential is not None and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ConfigError("A credential is not sent over http, where others can read it. Give an https URL.")
        if not parts.hostname:
            raise ConfigError("The URL names no host. Give one such as https://pacs.example/dicom-web.")
        return cls(url.rstrip("/"), credential, tls)

    def open_session(self) -> Any:
        """Return a session of `requests` with our credential and certificates."""
        import requests

        session = requests.Session()
        session.auth = _Authorise(self.credential)  # always set, otherwise requests would read ~/.netrc
        if self.tls is not None:
            session.cert = (str(self.tls.certificate), str(self.tls.key))
            session.verify = True if self.tls.authority is None else str(self.tls.authority)
        return session

    def open_client(self, session: Any = None) -> Any:
        """Return a dicomweb-client that makes a single attempt."""
        from dicomweb_client.api import DICOMwebClient

        client = DICOMwebClient(self.url, session=session or self.open_session(), timeout=_TIMEOUT_SECONDS)
        client.set_http_retry_params(retry=False)
        return client

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn errors of `requests` into `SendError`, with messages that do not contain the URL.

        Raises:
            SendError: instead of what requests raises; Gone for 404 and 410.
        """
        import requests

        try:
            yield
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            passing = code in (408, 429) or code >= 500
            kind = Gone if code in (404, 410) else SendError
            raise kind(f"The DICOMweb service answered {code}{_hint(code)}.", passing) from None
        except (requests.RequestException, OSError) as error:
            sentence = (
                f"The DICOMweb service cannot be reached ({type(error).__name__}). Check the URL and the network."
            )
            raise SendError(sentence, passing=True) from None
        except ValueError as error:  # not JSON, or not a multipart message
            sentence = f"The DICOMweb service's answer cannot be read ({type(error).__name__}). Check the URL."
            raise SendError(sentence, passing=False) from None


def _hint(code: int) -> str:
    return ": it requires another credential; see --auth-env and --auth-file" if code in (401, 403) else ""


class _Authorise:
    """Callable with which `requests` adds the header; a redirect to another host drops it."""

    def __init__(self, credential: Credential | None) -> None:
        self._credential = credential

    def __call__(self, request: Any) -> Any:
        if self._credential is not None:
            request.headers["Authorization"] = self._credential.header
        return request
