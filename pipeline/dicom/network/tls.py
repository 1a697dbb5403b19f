"""TLS for DICOM (PS3.15 B.12): version 1.2 or newer; the peer's certificate is checked against an authority."""

from __future__ import annotations

import ssl

from pipeline.dicom.network.config import TlsFiles
from pipeline.errors import ConfigError


def load_server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS context of a listener; with an authority, callers without a certificate from it are refused.

    Raises:
        ConfigError: a file is missing, or is not a certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if files.authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS context of a sender, which checks the receiver against the authority or the system's authorities.

    Raises:
        ConfigError: a file is missing, or is not a certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.authority is None:
        context.load_default_certs()
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.authority is not None:
            context.load_verify_locations(files.authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The TLS files cannot be used ({type(error).__name__}: {getattr(error, 'strerror', '')}). Give a "
            "certificate, its private key without a passphrase, and the authority's certificate, all in PEM."
        ) from None
