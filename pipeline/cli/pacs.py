"""Commands that speak with a PACS: listen, push."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.output import json_option, print_json, print_rows, progress_bar, settings_of

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
    """Add the two options that say where a credential stands; on a command line, everybody would see it."""
    file = click.option(
        "--auth-file", type=click.Path(path_type=Path), help="Credential for a DICOMweb URL: a file of mode 0600."
    )
    variable = click.option(
        "--auth-env", metavar="NAME", help='Or an environment variable: "bearer TOKEN" or "basic USER:PASSWORD".'
    )
    return variable(file(command))


@click.command(
    short_help="Receive scans from a PACS or scanner (C-STORE).",
    epilog="""\b
Example:
  nightread listen --host 0.0.0.0 --ae-title NIGHTREAD --allow CT01 --allow PACS
  nightread ingest nightread-data/inbox/complete""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=11112, show_default=True, help="TCP port; 0 takes a free one.")
@click.option("--ae-title", default="NIGHTREAD", show_default=True, help="Our AE title.")
@click.option("--allow", "allowed", multiple=True, help="AE title that may call; repeat for more.")
@click.option("--allow-any", is_flag=True, help="Let every AE title call.")
@click.option("--inbox", type=click.Path(path_type=Path), help="Folder to write to [default: <workspace>/inbox].")
@click.option("--quiet", "quiet_seconds", default=60.0, show_default=True, help="Seconds that complete a study.")
@click.option("--associations", default=10, show_default=True, help="Associations at once; more are told to wait.")
@click.option("--reserve-gib", default=1.0, show_default=True, help="Disk space in GiB that is left free.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM): listen with TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Our private key (PEM).")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="Senders need a certificate of this authority.")
@json_option
@click.pass_context
def listen(context: click.Context, as_json: bool, reserve_gib: float, **options: Any) -> None:
    """Receive scans over DICOM's network protocol until stopped (Ctrl-C or SIGTERM).

    An object is acknowledged when it is safely on disk. A study that is quiet for a minute is complete: it lies under
    `<inbox>/complete`. The night reads that of the workspace's inbox unasked; `nightread ingest` reads it by day.
    Nothing printed identifies a person; --json prints one line an event.
    """
    config = _listen_config(context, reserve_gib, options)
    with needs_extra():
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
@click.option("--out", type=click.Path(path_type=Path), help="With --to folder [default: <workspace>/outbox/RUN].")
@click.option(
    "--fhir", type=click.Path(path_type=Path), help="Write FHIR R4 bundles too: real identities outside the workspace."
)
@click.option("--only", multiple=True, type=click.Choice(["seg", "sc", "sr", "ko"]), help="Only objects of this kind.")
@click.option("--again", is_flag=True, help="Send also what was sent before.")
@click.option("--status", is_flag=True, help="Send nothing: list each object, where it went, and what failed.")
@click.option("--pixel-alpha", type=float, help="Share of normal pixels above the outline [default: as evaluated].")
@click.option("--ae-title", default="NIGHTREAD", show_default=True, help="Our AE title.")
@auth_options
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM): send with TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Our private key (PEM).")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="The receiver needs a certificate of this authority.")
@json_option
@click.pass_context
def push(context: click.Context, run: str, to: str | None, fhir: Path | None, as_json: bool, **options: Any) -> None:
    """Send each flagged finding of a scoring RUN into its original study, under the real identity.

    Four objects a finding: a segmentation of what differs, a picture, a structured report, and a key object selection
    that flags the images. What was sent is not sent again. Exit code 10 when something could not be sent: run it
    again, and it goes on. The files of `--to folder` carry real identities. `--fhir` writes a FHIR R4 bundle a finding
    (imaging study, observation, diagnostic report), with pseudonyms if the folder lies in the workspace.
    """
    from pipeline.errors import ConfigError, SendError

    if options["status"]:
        print_rows(_sent_so_far(context, run), as_json, f"Nothing of {run} was sent anywhere.")
        return
    if to is None and fhir is None:
        raise ConfigError("Nothing says where the findings go. Give --to, --fhir or both.")
    with needs_extra():
        sent = None if to is None else _send(context, run, to, as_json, options)
        written = None if fhir is None else _write_fhir(context, run, fhir)
    if as_json:
        print_json((sent.to_json() if sent else {}) | ({"fhir": written.to_json()} if written else {}))
    else:
        _show(sent, written)
    if sent is not None and sent.failed:
        context.exit(SendError.exit_code)


def _send(context: click.Context, run: str, to: str, as_json: bool, options: dict[str, Any]) -> PushReport:
    from pipeline.dicom.network.send import destination
    from pipeline.dicom.network.web import Credential
    from pipeline.stages.pacs.push import KINDS
    from pipeline.stages.pacs.push import push as run_push

    settings = settings_of(context)
    tls = tls_files(*(options[name] for name in ("tls_cert", "tls_key", "tls_ca")))
    credential = Credential.read(options["auth_env"], options["auth_file"])
    folder = options["out"] or settings.workspace / "outbox" / run
    with progress_bar("Sending", quiet=as_json) as update:
        return run_push(
            run,
            settings,
            destination(to, folder, options["ae_title"], tls, credential),
            kinds=[kind for kind in KINDS if kind in (options["only"] or KINDS)],
            again=options["again"],
            pixel_alpha=options["pixel_alpha"],
            on_progress=update,
        )


def _sent_so_far(context: click.Context, run: str) -> list[dict[str, Any]]:
    """Return a row for every object that was made of a run for a destination."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.exports import exports

    with Catalogue.open(settings_of(context)) as catalogue:
        studies = {row.id: row.study_id[:12] for row in catalogue.findings(run)}
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
            for row in exports(catalogue, run)
        ]


def _write_fhir(context: click.Context, run: str, folder: Path) -> FhirReport:
    from pipeline.stages.pacs.push_fhir import push_fhir

    return push_fhir(run, settings_of(context), folder)


def _show(sent: PushReport | None, written: FhirReport | None) -> None:
    if sent is not None:
        counts = ", ".join(f"{number} {kind}" for kind, number in sent.sent.items())
        click.echo(f"{sent.findings} findings: sent {counts}; {sent.known} findings were there already.")
        for note in sent.notes:
            click.echo(f"  {note}")
    if written is not None:
        names = "real identifiers" if written.real_identifiers else "pseudonyms"
        click.echo(f"{written.bundles} FHIR bundles were written, with {names}.")


def _listen_config(context: click.Context, reserve_gib: float, options: dict[str, Any]) -> ListenConfig:
    from pipeline.dicom.network.config import ListenConfig

    settings = settings_of(context)
    tls = tls_files(*(options.pop(name) for name in ("tls_cert", "tls_key", "tls_ca")))
    values = {name: value for name, value in options.items() if value is not None}
    values = {"inbox": settings.inbox, **values, "tls": tls, "limits": settings.decode}
    values["reserve_bytes"] = int(reserve_gib * 2**30)
    return validated(ListenConfig, values, "The listener cannot start so.")


def validated(model: type[ConfigT], values: dict[str, Any], head: str) -> ConfigT:
    """Return a configuration of a command's options.

    Raises:
        ConfigError: they do not fit; begins with `head`.
    """
    from pydantic import ValidationError

    from pipeline.errors import ConfigError

    try:
        return model(**values)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{head} {reasons}") from None


def tls_files(certificate: Path | None, key: Path | None, authority: Path | None) -> TlsFiles | None:
    """Return the TLS files of a command, None where none is named.

    Raises:
        ConfigError: certificate and key do not come together.
    """
    from pipeline.dicom.network.config import TlsFiles
    from pipeline.errors import ConfigError

    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("TLS needs both a certificate and its key: give --tls-cert and --tls-key.")
    return TlsFiles(certificate=certificate, key=key, authority=authority)


def _counts(listener: Listener) -> dict[str, int]:
    return {**dict(sorted(listener.receiver.counts.items())), "waiting studies": listener.inbox.waiting()}


@contextmanager
def needs_extra() -> Iterator[None]:
    """Say how to install what a command imports and does not find."""
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
