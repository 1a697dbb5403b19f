"""The command that serves the reading list: review start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pipeline.cli.output import json_option, settings_of

REVIEW_EXTRA = 'Install it: pip install "nightread[review]"'


@click.command(
    short_help="Serve the reading list to browsers.",
    epilog="""\b
Example:
  nightread review users add ann --role reader
  nightread review start
  nightread review start --host 0.0.0.0 --tls-cert reading.pem --tls-key reading.key""",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8650, show_default=True, help="TCP port; 0 chooses a free one.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Our certificate chain (PEM): serve https.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option(
    "--plain-http", is_flag=True, help="Allow http beyond this machine: for use behind a proxy that provides TLS."
)
@click.option("--proxy", "proxies", multiple=True, help="Address of a trusted proxy; repeat for more.")
@click.option("--user-header", help="Header in which a trusted proxy names the user (OIDC).")
@json_option
@click.pass_context
def start(context: click.Context, as_json: bool, **options: Any) -> None:
    """Serve the reading list until stopped (Ctrl-C or SIGTERM).

    Everything that a browser needs is served from here; nothing is fetched from anywhere else. To serve other machines,
    it needs a certificate and key, or --plain-http. --json prints one line per event.
    """
    from pydantic import ValidationError

    from pipeline.errors import ConfigError
    from pipeline.invalid_values import explain_options

    try:
        from pipeline.review.web.config import WebConfig
        from pipeline.review.web.web_server import serve
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pipeline"):
            raise
        raise ConfigError(f"The package {error.name} is not installed. {REVIEW_EXTRA}") from None
    try:
        config = WebConfig(**options)
    except ValidationError as error:
        reasons = explain_options(error)
        raise ConfigError(f"The reading list cannot start with these options. {reasons}") from None

    def ready(url: str) -> None:
        click.echo(json.dumps({"event": "listening", "url": url}) if as_json else f"The reading list is at {url}")

    serve(settings_of(context), config, ready)
