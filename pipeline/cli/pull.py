"""The command that fetches scans from a PACS: pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import json_option, print_json, progress_bar, settings_of
from pipeline.cli.pacs import auth_options, read_tls_files, require_extra, validate

if TYPE_CHECKING:
    from pipeline.stages.pacs.pull import PullReport


@click.command(
    short_help="Fetch scans from a PACS (C-GET, C-MOVE, DICOMweb).",
    epilog="""\b
Example:
  nightread pull PACS@10.0.0.5:104 --days 2 --modality CT --window 20:00-06:00 --time-zone Europe/Berlin
  nightread pull https://pacs.example/dicom-web --since 2026-01-01 --study-description "*head*" --auth-env AUTH""",
)
@click.argument("source")
@click.option("--since", help="First study date, YYYY-MM-DD.")
@click.option("--until", help="Last study date.")
@click.option("--days", type=int, help="Number of recent days, including today, instead of --since and --until.")
@click.option("--modality", "modalities", multiple=True, help="Modality of series; repeat for more.")
@click.option("--study-description", help="Pattern with * and ?.")
@click.option("--series-description", help="Pattern with * and ?.")
@click.option("--all", "everything", is_flag=True, help="Fetch without any filter.")
@click.option("--ae-title", default="NIGHTREAD", show_default=True, help="Our AE title.")
@click.option("--inbox", type=click.Path(path_type=Path), help="Folder to write to [default: <workspace>/inbox].")
@click.option(
    "--method",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "get", "move"]),
    help="Protocol that transfers the objects.",
)
@click.option(
    "--move-host", default="127.0.0.1", show_default=True, help="Address at which objects of a C-MOVE are received."
)
@click.option(
    "--move-port", default=11112, show_default=True, help="Port at which they are received, as configured in the PACS."
)
@click.option("--associations", default=1, show_default=True, help="Studies fetched at once.")
@click.option("--mib-per-second", type=float, help="Limit in MiB per second for all associations together.")
@click.option("--pause", "pause_seconds", default=0.0, show_default=True, help="Seconds to pause after every series.")
@click.option("--window", help="Hours in which series are requested, such as 20:00-06:00.")
@click.option("--time-zone", "timezone", default="UTC", show_default=True, help="Time zone of --window and --days.")
@click.option("--stop-after-window", is_flag=True, help="Outside these hours, stop instead of waiting.")
@click.option("--reserve-gib", default=1.0, show_default=True, help="Disk space in GiB to leave free.")
@auth_options
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate (PEM): use TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Our private key (PEM).")
@click.option(
    "--tls-ca", type=click.Path(path_type=Path), help="Require the PACS to have a certificate of this authority."
)
@json_option
@click.pass_context
def pull(context: click.Context, as_json: bool, **options: Any) -> None:
    """Fetch images from a PACS: AETITLE@host:port, or the URL of a DICOMweb service.

    They land in the workspace's inbox as if they had been sent, and every night reads them. Images that were fetched
    are not requested again: if interrupted, run the command again to continue. A running `nightread listen` may
    use the same inbox. Exit code 10 means that something could not be fetched. Nothing printed
    identifies a person.
    """
    from pipeline.errors import SendError

    with require_extra():
        from pipeline.dicom.network.web import Credential
        from pipeline.stages.pacs.pull import pull as run_pull

    credential = Credential.read(options.pop("auth_env"), options.pop("auth_file"))
    config = _config(context, options)
    with progress_bar("Pulling", quiet=as_json) as update:
        report = run_pull(config, credential, on_progress=update)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    if report.failed or report.vanished:
        context.exit(SendError.exit_code)


def _config(context: click.Context, options: dict[str, Any]) -> Any:
    from pipeline.dicom.network.config import PullConfig

    settings = settings_of(context)
    rate, reserve = options.pop("mib_per_second"), options.pop("reserve_gib")
    tls = read_tls_files(*(options.pop(name) for name in ("tls_cert", "tls_key", "tls_ca")))
    values = {name: value for name, value in options.items() if value is not None}
    values = {"inbox": settings.inbox, **values, "tls": tls, "limits": settings.decode}
    values["reserve_bytes"] = int(reserve * 2**30)
    values["bytes_per_second"] = None if rate is None else int(rate * 2**20)
    return validate(PullConfig, values, "Cannot pull with these options.")


def _show(report: PullReport) -> None:
    counts = ", ".join(f"{number} {name}" for name, number in report.objects.items()) or "nothing new"
    click.echo(
        f"{report.studies} studies, {report.series} series, {report.fetched_before} of them fetched before: {counts}."
    )
    for line in (*report.notes, *([report.stopped] if report.stopped else [])):
        click.echo(f"  {line}")
