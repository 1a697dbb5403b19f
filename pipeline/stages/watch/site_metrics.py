"""Metrics for Prometheus: the state of the site, read from the catalogue at each scrape; counts and times only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import NightRow
from pipeline.errors import CatalogueError, ConfigError
from pipeline.stages.watch.alerts import count_undelivered, list_alerts
from pipeline.stages.watch.components import check_components, list_components
from pipeline.stages.watch.nights import last_night, list_schedules
from pipeline.stages.watch.site_config import SiteConfig

_COUNTS = {
    "new": "New images of the last night",
    "scored": "Studies that the last night scored",
    "flagged": "Studies that the last night flagged",
    "refused": "Files that the last night refused",
    "left": "Studies that the last night left to the next one at its deadline",
    "failures": "Parts of the last night that failed",
    "seconds": "Duration of the last night",
}


class SiteMetrics:
    """Collector of the site's state, for a registry of `prometheus_client`."""

    def __init__(self, settings: Settings, site: SiteConfig) -> None:
        self.settings, self.site = settings, site

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric; a catalogue that cannot be read leaves all but `nightread_catalogue_up` out."""
        try:
            with Catalogue.open(self.settings) as catalogue:
                families = [*self._nights(catalogue), *_alerts(catalogue)]
        except CatalogueError:
            families = []
        yield _single("nightread_catalogue_up", "Whether the catalogue can be read", float(bool(families)))
        yield from families
        alive = check_components(self.settings, list_components(self.settings, self.site))
        yield _family("nightread_component_up", "Whether a component answers", "component", alive)

    def _nights(self, catalogue: Catalogue) -> Iterator[GaugeMetricFamily]:
        schedules = list_schedules(catalogue)
        names = dict.fromkeys(["nightly", *(schedule.name for schedule, _ in schedules)])
        nights = {name: night for name in names if (night := last_night(catalogue, name))}
        for key, text in _COUNTS.items():
            values = {name: night.summary[key] for name, night in nights.items() if key in night.summary}
            yield _family(f"nightread_night_{key}", text, "schedule", values)
        times = {name: _stamp(night.started_at) for name, night in nights.items()}
        yield _family("nightread_night_start_timestamp_seconds", "When the last night began", "schedule", times)
        succeeded = {name: night.state in ("done", "running") for name, night in nights.items()}
        yield _family("nightread_night_ok", "Whether the last night ended without failures", "schedule", succeeded)
        due = {one.name: _stamp(one.next_firing(now())) for one, _ in schedules}
        yield _family("nightread_next_run_timestamp_seconds", "When the next run is due", "schedule", due)
        yield _by_route(nights)


def _by_route(nights: Mapping[str, NightRow]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("nightread_route_scored", "Studies that the last night scored", labels=("route",))
    for night in nights.values():
        for route, count in night.summary.get("routes", {}).items():
            family.add_metric((route,), count)
    return family


def _alerts(catalogue: Catalogue) -> Iterator[GaugeMetricFamily]:
    family = GaugeMetricFamily("nightread_alert_open", "Alerts that have not recovered", labels=("key", "severity"))
    for alert in list_alerts(catalogue):
        family.add_metric((alert.key, alert.severity), 1)
    yield family
    yield _single("nightread_alert_messages_undelivered", "Messages that nobody took", count_undelivered(catalogue))


def _family(name: str, text: str, label: str, values: Mapping[str, Any]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), float(value))
    return family


def _single(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _stamp(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()


@contextmanager
def serving_metrics(settings: Settings, site: SiteConfig, port: int) -> Iterator[int]:
    """Serve the metrics on 127.0.0.1 while the block runs; yield the port (0 chooses a free one).

    Raises:
        ConfigError: the port is in use.
    """
    registry = CollectorRegistry()
    registry.register(SiteMetrics(settings, site))
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise ConfigError(
            f"The metrics cannot be served on port {port} ({error.strerror}). Choose another: --metrics-port"
        ) from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
