"""`nightread doctor`: is everything there that a night needs?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from pipeline.cli.output import json_option, print_rows, settings_of

if TYPE_CHECKING:
    from pipeline.config import Settings

Check = dict[str, Any]
PACKAGES = ("torch", "monai", "pydicom", "scikit-learn", "mlflow", "prefect", "sqlalchemy", "zarr", "fastapi")
LOWEST_FREE_GIB = 5.0


@click.command(epilog="Example: nightread doctor --json")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check packages, decoders, disk, database, pixels, MLflow and Prefect. Exit code 1 when something is wrong."""
    settings = settings_of(context)
    checks = [
        *_packages(),
        *_decoders(),
        *(_guarded(check, settings) for check in (_disk, _database, _store, _mlflow, _prefect)),
    ]
    print_rows(checks, as_json, "")
    if not all(check["ok"] for check in checks):
        context.exit(1)


def _packages() -> list[Check]:
    return [_package(name) for name in PACKAGES]


def _package(name: str) -> Check:
    try:
        return {"check": name, "ok": True, "detail": importlib.metadata.version(name)}
    except importlib.metadata.PackageNotFoundError:
        return {"check": name, "ok": False, "detail": "not installed: pip install -e . -c constraints.txt"}


def _decoders() -> list[Check]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

    syntaxes = {
        "RLE": RLELossless,
        "JPEG lossless": JPEGLosslessSV1,
        "JPEG-LS": JPEGLSLossless,
        "JPEG 2000": JPEG2000Lossless,
    }
    rows = []
    for name, uid in syntaxes.items():
        decoder = get_decoder(uid)
        detail = ", ".join(decoder.available_plugins) or "; ".join(decoder.missing_dependencies)
        rows.append({"check": f"decoder {name}", "ok": decoder.is_available, "detail": detail})
    return rows


def _guarded(check: Callable[[Settings], Check], settings: Settings) -> Check:
    name = check.__name__.strip("_")
    try:
        return check(settings)
    except Exception as error:  # doctor must report whatever breaks, not break with it
        return {"check": name, "ok": False, "detail": f"{type(error).__name__}: {error}"}


def _disk(settings: Settings) -> Check:
    folder = settings.workspace if settings.workspace.exists() else settings.workspace.parent
    free = shutil.disk_usage(folder).free / 2**30
    return {
        "check": "disk",
        "ok": free >= LOWEST_FREE_GIB,
        "detail": f"{free:.1f} GiB free (at least {LOWEST_FREE_GIB:g} wanted)",
    }


def _database(settings: Settings) -> Check:
    from pipeline.data.catalogue import Catalogue

    with Catalogue.open(settings) as catalogue:
        rejected = sum(catalogue.rejection_counts().values())
        return {
            "check": "database",
            "ok": True,
            "detail": f"{catalogue.engine.dialect.name}, {rejected} rejections on record",
        }


def _store(settings: Settings) -> Check:
    if "://" in settings.store:
        return {"check": "pixel store", "ok": True, "detail": "remote; not probed"}
    from pathlib import Path

    folder = Path(settings.store)
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "check": "pixel store",
        "ok": os.access(folder, os.W_OK),
        "detail": "writable" if os.access(folder, os.W_OK) else "read-only",
    }


def _mlflow(settings: Settings) -> Check:
    from pipeline.tracking.experiment import connect

    return {"check": "MLflow", "ok": True, "detail": urlsplit(connect(settings)).scheme + " store opens"}


def _prefect(settings: Settings) -> Check:
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        return {
            "check": "Prefect",
            "ok": importlib.util.find_spec("prefect") is not None,
            "detail": "embedded server, started when a flow runs",
        }
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 4200), timeout=3):
        return {"check": "Prefect", "ok": True, "detail": "server answers"}
