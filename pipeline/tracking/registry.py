"""Registered models: one name a route, aliases `challenger` (newest) and `champion` (in use)."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.errors import ArtefactError
from pipeline.tracking.experiment import connect
from pipeline.types import RunRef

CODE = Path(__file__).resolve().parents[1]
NEEDED = (
    *("torch", "monai", "numpy", "scipy", "pydicom", "scikit-learn", "mlflow", "pandas", "pydantic", "PyYAML"),
    *("safetensors", "accelerate", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls"),
    *("python-gdcm", "SQLAlchemy", "zarr", "pillow", "nibabel"),
)


def model_name(route: str) -> str:
    """Name of the route's registered model."""
    return f"nightread-{route}"


def requirements() -> list[str]:
    """Pinned versions of what the served model imports; without them MLflow would import the model to find out."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in NEEDED]


def signature() -> Any:
    """MLflow signature of the served detector."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    text = [ColSpec("string", name, required=False) for name in ("dicom", "path", "scan")]
    numbers = [
        ColSpec("double", "score"),
        ColSpec("double", "p_value"),
        ColSpec("long", "n_calibration"),
        ColSpec("string", "error"),
    ]
    return ModelSignature(inputs=Schema(text), outputs=Schema(numbers))


def register(
    settings: Settings, detector: Path, sha256: str, route: str, run_folder: RunRef, example: Sequence[str]
) -> str:
    """Log the detector into the open MLflow run and register it as the route's challenger; returns the version.

    The artefact carries the package's code (`code_paths`), so that a process with only the pinned dependencies loads
    it. Must be called within `track`.

    Args:
        settings: where the registry is.
        detector: folder written by `Detector.save`.
        sha256: the detector's SHA-256.
        route: the route that it serves.
        run_folder: the training run, remembered in the version's tags.
        example: base64 DICOM files of a phantom: the input example.
    """
    import mlflow
    import pandas as pd

    logging.getLogger("mlflow.models.model").setLevel(logging.ERROR)
    logged = mlflow.pyfunc.log_model(
        name="detector",
        python_model=str(CODE / "tracking" / "served_model.py"),
        artifacts={"detector": str(detector)},
        code_paths=[str(CODE)],
        model_config={"sha256": sha256},
        signature=signature(),
        input_example=pd.DataFrame({"dicom": list(example)}) if example else None,
        pip_requirements=requirements(),
        registered_model_name=model_name(route),
    )
    version = str(logged.registered_model_version)
    _tag(settings, route, version, {"run_folder": run_folder.path, "run_sha256": run_folder.sha256, "sha256": sha256})
    return version


def _tag(settings: Settings, route: str, version: str, tags: dict[str, str]) -> None:
    client = _client(settings)
    for key, value in tags.items():
        client.set_model_version_tag(model_name(route), version, key, value)
    client.set_registered_model_alias(model_name(route), "challenger", version)
    if champion(settings, route) is None:
        promote(settings, route, version)


def _client(settings: Settings) -> Any:
    connect(settings)
    from mlflow import MlflowClient

    return MlflowClient()


def promote(settings: Settings, route: str, version: str) -> None:
    """Make `version` the route's champion: the detector that the night uses."""
    _client(settings).set_registered_model_alias(model_name(route), "champion", version)


def champion(settings: Settings, route: str) -> RunRef | None:
    """Return the training run of the route's champion, None where the route has none."""
    from mlflow.exceptions import MlflowException

    try:
        version = _client(settings).get_model_version_by_alias(model_name(route), "champion")
    except MlflowException:
        return None
    return RunRef(version.tags["run_folder"], version.tags["run_sha256"]) if "run_folder" in version.tags else None


def version_of(settings: Settings, route: str, run_folder: str) -> str:
    """Return the registered version that a training run became.

    Raises:
        ArtefactError: the run never registered one.
    """
    for version in _client(settings).search_model_versions(f"name='{model_name(route)}'"):
        if version.tags.get("run_folder") == run_folder:
            return str(version.version)
    raise ArtefactError(f"The run {Path(run_folder).name} registered no model for the route {route}. Train it again.")


def routes_with_champions(settings: Settings) -> list[str]:
    """Return the routes that have a champion, sorted."""
    prefix = model_name("")
    names = [model.name for model in _client(settings).search_registered_models() if model.name.startswith(prefix)]
    routes = [name.removeprefix(prefix) for name in names]
    return sorted(route for route in routes if champion(settings, route) is not None)
