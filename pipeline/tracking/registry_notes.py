"""Descriptions and headline numbers in the model registry, as an auditor reads them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import Settings
from pipeline.tracking.experiment import connect
from pipeline.tracking.registry import model_name

ABOUT_MODEL = (
    "Detectors of the route **{route}**, trained by Nightread on normal scans only. The alias `champion` is the "
    "version that the night scores with, `challenger` the newest. A version's tags hold its SHA-256, its run and its "
    "headline numbers. Research, not for diagnosis."
)


def describe_version(settings: Settings, route: str, version: str, about: str, tags: Mapping[str, str]) -> None:
    """Describe a version of a route's detectors, and the registered model unless a person did.

    Args:
        settings: where the registry is.
        route: of the detectors.
        version: a registered one.
        about: description of the version, in Markdown; it replaces an earlier one.
        tags: headline numbers by name.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    connect(settings)
    from mlflow import MlflowClient

    client, name = MlflowClient(), model_name(route)
    if not client.get_registered_model(name).description:
        client.update_registered_model(name, ABOUT_MODEL.format(route=route))
    client.update_model_version(name, version, about)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
