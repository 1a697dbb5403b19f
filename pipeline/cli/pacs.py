"""Commands that exchange objects with a PACS: listen, push."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.output import OutputFolder, json_option, print_json, print_rows, progress_bar, settings_of

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.dicom.network.config import ListenConfig, TlsFiles
    from pipeline.dicom.network.listener import Listener
    from pipeline.stages.pacs.push import PushReport
    from pipeline.stages.pacs.push_fhir import FhirReport

PACS_EXTRA = 'Install it: pip install "nightread[pacs]"'
ConfigT = TypeVar("ConfigT", bound="Config")
Command = TypeVar("Command", bound=Callable[..., Any])


def auth_options(command: Command) -> Command:
    """Add two options that name the source of a credential; on the command line itself, every user could read it."""
    file = click.option(
        "--auth-file", type=click.Path(path_type=Path), help="File with the credential for a DICOMweb URL (mode 0600)."
    )
    variable = click.option(
        "--auth-env",
        metavar="NAME",
        help='Environment variable with the credential: "bearer TOKEN" or "basic USER:PASSWORD".',
    )
    return variable(file(command))


@click.command(
    short_help="Receive scans from a PACS or scanner (C-STORE).",
    epilog="""\b
Example:
  nightread listen --host 0.0.0.0 --ae-title NIGHTREAD --allow CT01 --allow PACS
  nightread ingest""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=11112, show_default=True, help="TCP port; 0 chooses a free one.")
@click.option("--ae-title", default="NIGHTREAD", show_default=True, help="Our AE title.")
@click.option("--allow", "allowed", multiple=True, help="AE title that may call; repeat for more.")
@click.option("--allow-any", is_flag=True, help="Let every AE title call.")
@click.option("--inbox", type=click.Path(path_type=Path), help="Folder to write to [default: <workspace>/inbox].")
@click.option(
    "--quiet",
    "quiet_seconds",
    default=60.0,
    show_default=True,
    help="Seconds without a new object after which a study is complete.",
)
@click.option(
    "--associations",
    default=10,
    show_default=True,
    help="Simultaneous associations; further ones are rejected temporarily.",
)
@click.option("--reserve-gib", default=1.0, show_default=True, help="Disk space in GiB to leave free.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM): listen with TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Our private key (PEM).")
@click.option(
    "--tls-ca", type=click.Path(path_type=Path), help="Require senders to have a certificate of this authority."
)
@json_option
@click.pass_context
def listen(context: click.Context, as_json: bool, reserve_gib: float, **options: Any) -> None:
    """Receive scans over DICOM's network protocol until stopped (Ctrl-C or SIGTERM).

    An object is acknowledged once it is safely on disk. A study is complete after a minute without new objects and is
    moved to `<inbox>/complete`. The night reads the workspace's inbox by itself; during the day, run `nightread
    ingest`. Nothing printed identifies a person; --json prints one line per event.
    """
    config = _listen_config(context, reserve_gib, options)
    with require_extra():
        from pipeline.dicom.network.listener import Listener

    with Listener(config, _teller(as_json)) as listener:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        _teller(as_json)({"event": "listening", "host": config.host, "port": listener.port, "as": config.ae_title})
        listener.run()
    _teller(as_json)({"event": "stopped", **_counts(listener)})


@click.command(
    short_help="Send results back to the PACS.",
    epilog="""\b
Example:
  nightread push score-20260101-033000-1a2b3c --to PACS@10.0.0.5:104
  nightread push score-20260101-033000-1a2b3c --to https://pacs.example/dicom-web --auth-env PACS_AUTH
  nightread push score-20260101-033000-1a2b3c --to folder
  nightread push score-20260101-033000-1a2b3c --fhir /data/fhir
  nightread push score-20260101-033000-1a2b3c --status""",
)
@click.argument("run")
@click.option("--to", help="AETITLE@host:port, the URL of a DICOMweb service, or the word folder.")
@click.option("--out", type=OutputFolder(), help="With --to folder [default: <workspace>/outbox/RUN].")
@click.option(
    "--fhir",
    type=click.Path(path_type=Path),
    help="Folder for FHIR R4 bundles; outside the workspace they hold real identities.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["seg", "pm", "sc", "sr", "ko"]),
    help="Only objects of this kind; repeat for more.",
)
@click.option("--again", is_flag=True, help="Also send objects that were sent before.")
@click.option("--status", is_flag=True, help="Send nothing; list each object, its destination, and any failure.")
@click.option(
    "--pixel-alpha", type=float, help="Share of normal pixels above the outline's threshold [default: as evaluated]."
)
@click.option("--ae-title", default="NIGHTREAD", show_default=True, help="Our AE title.")
@auth_options
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM): send with TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Our private key (PEM).")
@click.option(
    "--tls-ca", type=click.Path(path_type=Path), help="Require the receiver to have a certificate of this authority."
)
@json_option
@click.pass_context
def push(context: click.Context, run: str, to: str | None, fhir: Path | None, as_json: bool, **options: Any) -> None:
    """Send each flagged finding of a scoring RUN to the PACS as part of its original study, under the real identity.

    There are up to five objects per finding: a segmentation of the deviating regions, a parametric map of the anomaly
    map, a picture, a structured report that measures the regions, and a key object selection that flags the images.
    Nothing is sent twice. Exit code 10 means that something could not be
    sent; run the command again to continue. The files of `--to folder` carry real identities. `--fhir` writes one FHIR
    R4 bundle per finding (imaging study, observation, diagnostic report), with pseudonyms if the folder is inside the
    workspace.
    """
    from pipeline.errors import ConfigError, SendError

    if options["status"]:
        print_rows(_sent_so_far(context, run), as_json, f"Nothing of {run} has been sent yet.")
        return
    if to is None and fhir is None:
        raise ConfigError("No destination was given for the findings. Give --to, --fhir or both.")
    with require_extra():
        sent = None if to is None else _send(context, run, to, as_json, options)
        written = None if fhir is None else _write_fhir(context, run, fhir)
    if as_json:
        print_json((sent.to_json() if sent else {}) | ({"fhir": written.to_json()} if written else {}))
    else:
        _show(sent, written)
    if sent is not None and sent.failed:
        context.exit(SendError.exit_code)


def _send(context: click.Context, run: str, to: str, as_json: bool, options: dict[str, Any]) -> PushReport:
    from pipeline.dicom.network.send import require_destination
    from pipeline.dicom.network.web import Credential
    from pipeline.stages.pacs.push import KINDS
    from pipeline.stages.pacs.push import push as run_push

    settings = settings_of(context)
    tls = read_tls_files(*(options[name] for name in ("tls_cert", "tls_key", "tls_ca")))
    credential = Credential.read(options["auth_env"], options["auth_file"])
    folder = options["out"] or settings.workspace / "outbox" / run
    with progress_bar("Sending", quiet=as_json) as update:
        return run_push(
            run,
            settings,
            require_destination(to, folder, options["ae_title"], tls, credential),
            kinds=[kind for kind in KINDS if kind in (options["only"] or KINDS)],
            again=options["again"],
            pixel_alpha=options["pixel_alpha"],
            on_progress=update,
        )


def _sent_so_far(context: click.Context, run: str) -> list[dict[str, Any]]:
    """Return a row for every object that was made from a run for a destination."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.exports import list_exports

    with Catalogue.open(settings_of(context)) as catalogue:
        studies = {row.id: row.study_id[:12] for row in catalogue.list_findings(run)}
        return [
            {
                "study": studies.get(row.finding_id, ""),
                "object": row.kind,
                "to": row.destination,
                "state": row.state,
                "attempts": row.attempts,
                "at": f"{row.changed_at:%Y-%m-%d %H:%M}",
                "reason": row.reason,
            }
            for row in list_exports(catalogue, run)
        ]


def _write_fhir(context: click.Context, run: str, folder: Path) -> FhirReport:
    from pipeline.stages.pacs.push_fhir import push_fhir

    return push_fhir(run, settings_of(context), folder)


def _show(sent: PushReport | None, written: FhirReport | None) -> None:
    if sent is not None:
        counts = ", ".join(f"{number} {kind}" for kind, number in sent.sent.items())
        click.echo(f"{sent.findings} findings: sent {counts}; {sent.sent_before} findings had been sent before.")
        for note in sent.notes:
            click.echo(f"  {note}")
    if written is not None:
        names = "real identifiers" if written.real_identifiers else "pseudonyms"
        click.echo(f"{written.bundles} FHIR bundles were written, with {names}.")


def _listen_config(context: click.Context, reserve_gib: float, options: dict[str, Any]) -> ListenConfig:
    from pipeline.dicom.network.config import ListenConfig

    settings = settings_of(context)
    tls = read_tls_files(*(options.pop(name) for name in ("tls_cert", "tls_key", "tls_ca")))
    values = {name: value for name, value in options.items() if value is not None}
    values = {"inbox": settings.inbox, **values, "tls": tls, "limits": settings.decode}
    values["reserve_bytes"] = int(reserve_gib * 2**30)
    return validate(ListenConfig, values, "The listener cannot start with these options.")


def validate(model: type[ConfigT], values: dict[str, Any], head: str) -> ConfigT:
    """Return a validated configuration built from a command's options.

    Raises:
        ConfigError: the options are not valid; the message begins with `head`.
    """
    from pydantic import ValidationError

    from pipeline.errors import ConfigError
    from pipeline.invalid_values import explain_options

    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(f"{head} {explain_options(error, _option_names())}") from None


def _option_names() -> dict[str, str]:
    """Return the running command's options by the names of the fields that they fill."""
    context = click.get_current_context(silent=True)
    params = context.command.params if context is not None else []
    named = {str(param.name): max(param.opts, key=len) for param in params}
    return named | {"bytes_per_second": "--mib-per-second", "reserve_bytes": "--reserve-gib"}


def read_tls_files(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsFiles | None:
    """Return the TLS files of a command, or None if it names no TLS files.

    Raises:
        ConfigError: only one of certificate and key was given.
    """
    from pipeline.dicom.network.config import TlsFiles
    from pipeline.errors import ConfigError

    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("TLS needs both a certificate and its key. Give --tls-cert and --tls-key.")
    return TlsFiles(certificate=certificate, key=key, authority=authority)


def _counts(listener: Listener) -> dict[str, int]:
    return {**dict(sorted(listener.receiver.counts.items())), "waiting studies": listener.inbox.waiting()}


@contextmanager
def require_extra() -> Iterator[None]:
    """Turn a missing package into an error that says how to install it."""
    from pipeline.errors import ConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pipeline"):
            raise
        raise ConfigError(f"The package {error.name} is not installed. {PACS_EXTRA}") from None


def _teller(as_json: bool) -> Any:
    import json

    def tell(event: dict[str, Any]) -> None:
        words = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
        click.echo(json.dumps(event) if as_json else f"{event['event']}: {words}" if words else event["event"])

    return tell
