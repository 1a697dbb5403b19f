"""TLS: callers without a certificate of the authority are refused, and a silent caller blocks nobody."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset

from pipeline.dicom.network.config import TlsFiles
from pipeline.dicom.network.tls import load_client_context, load_server_context
from pipeline.errors import ConfigError


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate that is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-days", "2", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return TlsFiles(certificate=folder / "cert.pem", key=folder / "key.pem", authority=folder / "cert.pem")


def test_objects_arrive_over_tls(listen: Callable, certificate: TlsFiles, datasets: list[Dataset]) -> None:
    running = listen(tls=certificate)
    silent = socket.create_connection(("127.0.0.1", running.listener.port))  # never shakes hands
    association = running.associate(datasets[0], tls_args=(load_client_context(certificate), "127.0.0.1"))
    assert association.is_established
    assert association.send_c_store(datasets[0]).Status == 0
    association.release()
    silent.close()


def test_strangers_and_plain_connections_are_refused(
    listen: Callable, certificate: TlsFiles, datasets: list[Dataset]
) -> None:
    running = listen(tls=certificate)
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(certificate.certificate)
    assert not running.associate(datasets[0], tls_args=(nobody, "127.0.0.1")).is_established
    assert not running.associate(datasets[0]).is_established
    assert running.stored() == []


def test_bad_files_are_reported(tmp_path: Path, certificate: TlsFiles) -> None:
    missing = TlsFiles(certificate=tmp_path / "none.pem", key=certificate.key)
    with pytest.raises(ConfigError, match="TLS files"):
        load_server_context(missing)
    with pytest.raises(ConfigError, match="TLS files"):
        load_client_context(TlsFiles(certificate=certificate.key, key=certificate.key))
