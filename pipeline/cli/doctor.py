"""`nightread doctor`: check that everything a night needs is in place, without creating anything."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import stat
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import json_option, print_rows, settings_of

if TYPE_CHECKING:
    from pipeline.config import Settings

Check = dict[str, Any]
INSTALL = "pip install nightread, or in a clone: make install"
LOWEST_FREE_GIB = 5.0
SYNTAXES = {
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}


@click.command(short_help="Check that everything a night needs is there.", epilog="Example: nightread doctor --json")
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check packages, decoders, disk, database, pixels, MLflow and Prefect. Exit code 1 if a check fails."""
    settings = settings_of(context)
    parts = (_packages, _decoders, _disk, _places, _database, _store, _identity, _routes, _mlflow, _prefect, _pdf)
    checks = [check for part in parts for check in _guarded(part, settings)]
    print_rows(checks, as_json, "")
    wrong = [check["check"] for check in checks if not check["ok"]]
    if not as_json:
        click.echo(
            f"Failed: {', '.join(wrong)}. See the details above."
            if wrong
            else "Everything that a night needs is in place."
        )
    if wrong:
        context.exit(1)


def _check(name: str, ok: bool, detail: str) -> Check:
    return {"check": name, "ok": ok, "detail": detail}


def _guarded(part: Callable[[Settings], Iterator[Check]], settings: Settings) -> list[Check]:
    """Run one part; an exception becomes its failed check, and the other parts still run."""
    try:
        return list(part(settings))
    except Exception as error:
        text = str(error).splitlines()[0][:200] if str(error) else ""
        return [_check(part.__name__.strip("_"), False, f"{type(error).__name__}: {text}")]


def _pdf(_: Settings) -> Iterator[Check]:
    """Check what draws the reports of nights as PDF, if this site has it: a page of one letter."""
    from importlib.util import find_spec

    from pipeline.review.night_pdf import write_pdf

    detail = "not installed (extra pdf): reports of nights are pages of HTML"
    if find_spec("weasyprint") is not None:
        detail = f"reports of nights: a page of {len(write_pdf('<html lang=en><title>A</title><p>A</p></html>'))} bytes"
    yield _check("pdf", True, detail)


def _packages(_: Settings) -> Iterator[Check]:
    """Check each requirement of this distribution: the installed version against the required one."""
    from packaging.requirements import Requirement

    yield _check("Python", sys.version_info >= (3, 11), sys.version.split()[0])
    for requirement in map(Requirement, importlib.metadata.requires("nightread") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield _check(requirement.name, False, f"not installed. {INSTALL}")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield _check(
            requirement.name,
            fits,
            version if fits else f"{version}, but {requirement.specifier} is required. {INSTALL}",
        )


def _decoders(_: Settings) -> Iterator[Check]:
    from pydicom.pixels import get_decoder

    for name, uid in SYNTAXES.items():
        decoder = get_decoder(uid)
        detail = ", ".join(decoder.available_plugins) or f"no plugin is installed. {INSTALL}"
        yield _check(f"decoder {name}", decoder.is_available, detail)


def _nearest(path: Path) -> Path:
    """Return the path, or its nearest ancestor that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _writable(name: str, path: Path, there: str) -> Check:
    """Check that `path` can be written or created."""
    if not all(place.is_dir() for place in path.parents if place.exists()):
        return _check(
            name, False, "a file is in the place of a folder. Move it, or choose another workspace: nightread -w FOLDER"
        )
    if not os.access(_nearest(path), os.W_OK):
        return _check(
            name, False, "not writable. Grant write permission, or choose another workspace: nightread -w FOLDER"
        )
    return _check(name, True, there if path.exists() else "created on first use")


def _disk(settings: Settings) -> Iterator[Check]:
    free = shutil.disk_usage(_nearest(settings.workspace)).free / 2**30
    yield _check("disk", free >= LOWEST_FREE_GIB, f"{free:.1f} GiB free (at least {LOWEST_FREE_GIB:g} GiB needed)")
    yield _writable("workspace", settings.workspace / "settings.yaml", "created on first use")
    if os.name == "posix" and settings.workspace.is_dir():
        yield _private(settings.workspace)


def _private(workspace: Path) -> Check:
    """Check who may open the workspace: one that was made beforehand keeps its mode."""
    mode = stat.S_IMODE(workspace.stat().st_mode)
    if mode & stat.S_IRWXO:
        command = f"chmod -R o-rwx {shlex.quote(str(workspace.absolute()))}"
        detail = f"mode {mode:04o}: every user of this machine may open it. Run: {command}"
    else:
        shared = mode & stat.S_IRWXG
        detail = f"mode {mode:04o}: its owner{' and its group' if shared else ' only'}"
    return _check("workspace is private", not mode & stat.S_IRWXO, detail)


def _places(settings: Settings) -> Iterator[Check]:
    """Where each part of the workspace lies; what lies outside, neither a copy of the folder nor a backup carries."""
    from pipeline.stages.operations.workspace_parts import parts

    for part in parts(settings):
        yield _check(f"{part.name} lies in", True, f"{part.where}{' (outside the workspace)' if part.outside else ''}")


def _database(settings: Settings) -> Iterator[Check]:
    from pipeline.data.catalogue.catalogue import Catalogue

    file = settings.workspace / "catalogue.db"
    if settings.catalogue_url is None and not file.exists():
        yield _writable("catalogue", file, "")
        return
    with Catalogue.open(settings) as catalogue:
        rejected = sum(catalogue.count_rejections().values())
        yield _check("catalogue", True, f"{catalogue.engine.dialect.name}, {rejected} rejections on record")


def _store(settings: Settings) -> Iterator[Check]:
    if "://" in settings.store:
        from pipeline.data.store.pixel_store import PixelStore

        PixelStore(settings.store).exists("0" * 64)
        yield _check("pixel store", True, "remote; it answers")
        return
    yield _writable("pixel store", Path(settings.store), "writable")


def _identity(settings: Settings) -> Iterator[Check]:
    from pipeline.dicom.identity.keyfile import read_key
    from pipeline.errors import IdentityError

    if not settings.key_file.exists():
        yield _writable("pseudonym key", settings.key_file, "")
        return
    try:
        read_key(settings.key_file)
        yield _check("pseudonym key", True, "private")
    except IdentityError as error:
        yield _check("pseudonym key", False, str(error))


def _routes(settings: Settings) -> Iterator[Check]:
    from pipeline.data.sets.routes import load_routes

    yield _check("routes", True, f"{len(load_routes(settings.routes_folder))} from {settings.routes_folder}")


def _mlflow(settings: Settings) -> Iterator[Check]:
    from pipeline.stages.operations.ui_commands import mlflow_address, mlflow_command
    from pipeline.tracking.experiment import connect, find_page

    file = settings.workspace / "mlflow" / "mlflow.db"
    if settings.mlflow_uri is None and not file.exists():
        yield _writable("MLflow", file, "")
        return
    store = connect(settings).partition(":")[0]
    yield _check("MLflow", True, f"{store} store can be opened")
    yield _check("MLflow's pages", True, mlflow_command(settings.workspace, settings.mlflow_uri))
    if page := find_page(settings):
        yield _check("MLflow's runs", True, mlflow_address(page))


def _prefect(settings: Settings) -> Iterator[Check]:
    from pipeline.stages.operations.ui_commands import prefect_command

    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        yield _check("Prefect", True, "embedded server, starts with the first flow")
        yield _check("Prefect's pages", True, prefect_command(settings.workspace))
        return
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            yield _check("Prefect", True, "the server responds")
    except (OSError, ValueError) as error:
        yield _check(
            "Prefect",
            False,
            f"the server at PREFECT_API_URL does not respond ({type(error).__name__}). Start it or unset the variable",
        )
