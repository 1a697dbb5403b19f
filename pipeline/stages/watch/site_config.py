"""The components of this machine, its schedules, and the receivers of alerts: `<workspace>/site.yaml`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config import Config, Settings, load_config, parse_config
from pipeline.errors import ConfigError

ComponentName = Literal["prefect", "schedules", "mlflow", "review", "listener", "watch"]
COMPONENTS: tuple[ComponentName, ...] = ("prefect", "schedules", "mlflow", "review", "listener", "watch")
FILE = "site.yaml"
_URL = re.compile(r"https?://\S+")
_ADDRESS = re.compile(r"(https?://\S+|(tcp|tls)://[^\s/:@]+:\d+|dicom://[^\s/@]+@[^\s/:@]+:\d+)")


class Ports(Config):
    """TCP ports of the components that `nightread up` starts, all on 127.0.0.1 unless an option says otherwise."""

    prefect: int = Field(4200, ge=1, le=65535, description="Prefect's server and pages")
    mlflow: int = Field(5000, ge=1, le=65535, description="MLflow's pages")
    review: int = Field(8650, ge=1, le=65535, description="reading list")
    listener: int = Field(11112, ge=1, le=65535, description="DICOM listener")
    watch: int = Field(9464, ge=1, le=65535, description="metrics for Prometheus")


class Email(Config):
    """Mail server that alerts are sent through."""

    host: str = Field(min_length=1, description="name or address of the mail server")
    port: int = Field(25, ge=1, le=65535, description="its port")
    sender: str = Field(min_length=1, description="address that alerts come from")
    to: tuple[str, ...] = Field(min_length=1, description="addresses that receive them")
    tls: Literal["none", "starttls", "tls"] = Field("starttls", description="encryption of the connection")
    user: str = Field("", description="account on the mail server, if it asks for one")
    password_env: str = Field("", description="environment variable with its password")


class Webhook(Config):
    """Address that receives alerts by HTTP POST."""

    name: str = Field(pattern=r"^[\w.-]{1,40}$", description="name in the catalogue and in messages")
    url: str = Field("", pattern=r"^(https?://\S+)?$", description="its URL; use url_env if it holds a secret")
    url_env: str = Field("", description="environment variable with its URL")
    form: Literal["json", "slack"] = Field("json", description="our own JSON, or the text message that Slack reads")

    @model_validator(mode="after")
    def _check_one_url(self) -> Webhook:
        if bool(self.url) == bool(self.url_env):
            raise ValueError("must have either url or url_env")
        return self

    def address(self) -> str:
        """Return the URL.

        Raises:
            ConfigError: the environment variable is not set, or does not hold a URL; it is a secret and is not printed.
        """
        url = self.url or os.environ.get(self.url_env, "")
        if not url:
            raise ConfigError(f"The webhook {self.name} needs {self.url_env}, which is not set. Set it to the URL.")
        if not _URL.fullmatch(url):
            raise ConfigError(
                f"{self.url_env}, the URL of the webhook {self.name}, must begin with http:// or https:// and hold no "
                "spaces. Correct it."
            )
        return url


class WatchConfig(Config):
    """Rules of the watch: what counts as trouble, and for how long."""

    every_seconds: float = Field(60.0, gt=0, description="pause between two looks")
    down_seconds: float = Field(90.0, ge=0, description="a component that does not answer for so long is down")
    restart_seconds: float = Field(
        180.0, ge=0, description="a component of `up` that does not answer for so long is restarted; 0: never"
    )
    stalled_minutes: float = Field(15.0, gt=0, description="a running night without a heartbeat for so long is dead")
    refused_share: float = Field(0.5, ge=0, le=1, description="share of refused files above which there is an alert")
    expect_scans: bool = Field(True, description="a night in which nothing arrived is worth an alert")
    least_free_gib: float = Field(5.0, ge=0, description="free disk space below which there is an alert")
    check: dict[str, str] = Field(
        {}, description="further components: http(s)://..., dicom://AETITLE@host:port, tcp://host:port, tls://host:port"
    )

    @field_validator("check")
    @classmethod
    def _check_addresses(cls, check: dict[str, str]) -> dict[str, str]:
        for name, address in check.items():
            if not _ADDRESS.fullmatch(address):
                rule = "http(s)://... nor dicom://AETITLE@host:port, tcp://host:port or tls://host:port"
                raise ValueError(f"{name}: {address!r:.60} is neither {rule}")
        return check


class SiteConfig(Config):
    """The components, schedules and alerts of one machine: `<workspace>/site.yaml`."""

    name: str = Field("nightread", pattern=r"^[\w .-]{1,40}$", description="name of the site in alerts")
    components: tuple[ComponentName, ...] = Field(COMPONENTS, min_length=1, description="what `nightread up` starts")
    ports: Ports = Ports()
    schedules: tuple[Path, ...] = Field(
        (Path("configs/schedules/nightly.yaml"),), description="schedule files; relative ones start beside this file"
    )
    review_options: tuple[str, ...] = Field((), description="options of `nightread review start`")
    listen_options: tuple[str, ...] = Field((), description="options of `nightread listen`, such as --allow CT01")
    watch: WatchConfig = WatchConfig()
    email: Email | None = None
    webhooks: tuple[Webhook, ...] = Field((), description="addresses that receive alerts by HTTP")

    @model_validator(mode="after")
    def _check_names(self) -> SiteConfig:
        ports, names = list(self.ports.model_dump().values()), [hook.name for hook in self.webhooks]
        if len(set(ports)) < len(ports):
            raise ValueError("two components have the same port. Give each its own")
        if len({*names, "email"}) <= len(names):
            raise ValueError("two receivers of alerts have the same name (email is one). Rename one")
        return self

    def with_ports(self, **ports: int | None) -> SiteConfig:
        """Return the site with other ports; None leaves one as it is.

        Raises:
            ConfigError: two components have the same port.
        """
        chosen = {name: port for name, port in ports.items() if port is not None}
        values = self.model_dump() | {"ports": self.ports.model_dump() | chosen}
        return parse_config(values, SiteConfig, "The site")


def load_site(settings: Settings, file: Path | None = None) -> SiteConfig:
    """Return the site of a workspace; the defaults if it has no `site.yaml`.

    Args:
        settings: settings of the workspace.
        file: another file.

    Raises:
        ConfigError: the file cannot be read, or a field is invalid.
    """
    own = settings.workspace / FILE
    if file is None and not own.exists():
        return SiteConfig()
    return load_config(file or own, SiteConfig)
