"""Runs in MLflow: configuration, data fingerprint, terms, figures, tables. Only `pipeline.tracking` imports mlflow.

MLflow's own defaults phone home (see `pipeline.tracking`) and write into the working directory (see `connect`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import durable
from pipeline.config import Config, Settings
from pipeline.errors import ConfigError
from pipeline.tracking.begin_alone import begin_alone
from pipeline.tracking.relocate import artifact_root, relocate
from pipeline.tracking.software import git_state, versions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# MLflow opens every page in its view of generative AI, whatever the kind says, until this address or a person chooses.
PAGE = "#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=nightread"
SHARED_VIEW = "mlflow.sharedViewState.nightread"
HEADLINE = (
    *("develop/auroc", "develop/auroc_low", "develop/auroc_high", "develop/best_control_auroc"),
    *("develop/false_positive_rate", "training_seconds"),
)
ABOUT = (
    "Choose *Model training* at the top left, or no run is listed. Models of the route **{name}**, trained by "
    "Nightread on normal scans only. A run per training carries its headline: `develop/auroc` with its 95 % interval "
    "(`_low`, `_high`), that of the best trivial control, the realised false-positive rate, and `training_seconds` of "
    "processor time. Beneath it (expand the row): its evaluations, and the nights that it scored."
)
NIGHTS = "nights"  # the experiment of the nights' reports
ABOUT_NIGHTS = "A run per night: its report as one page (`night.html`) and, where it was made, as PDF, in Artifacts."
BATCH = 1000  # MLflow's limit of metrics in one call
KIND, NOTE = "mlflow.experimentKind", "mlflow.note.content"
SAMPLE_SECONDS, SAMPLES = 2, 3  # system metrics: one row every six seconds, the mean of three samples


def connect(settings: Settings) -> str:
    """Point MLflow at the workspace (or at `settings.mlflow_uri`) and return the tracking URI; it needs no network.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    import mlflow

    if settings.mlflow_uri is None:
        database = settings.workspace / "mlflow" / "mlflow.db"
        durable.make_private(settings.workspace)
        durable.make_shared(database.parent)
        durable.create_database(database)
        relocate(settings.workspace, database)
    mlflow.set_tracking_uri(settings.mlflow)
    mlflow.set_registry_uri(settings.mlflow)
    mlflow.set_system_metrics_sampling_interval(SAMPLE_SECONDS)
    mlflow.set_system_metrics_samples_before_logging(SAMPLES)
    try:
        mlflow.search_experiments(max_results=1)
    except Exception as error:  # mlflow wraps SQLAlchemy, HTTP and file errors in its own types
        raise _lost(settings, error, "cannot open its store") from error
    return settings.mlflow


def _lost(settings: Settings, error: Exception, what: str) -> ConfigError:
    """Return the error of a store that fails; an address is named without user and password."""
    place = urlsplit(settings.mlflow_uri or "")
    where = f" at {place.scheme}://{place.hostname}:{place.port}" if place.hostname else ""
    step = "Start its server" if where else "Make the workspace writable and free some space on its disk"
    return ConfigError(
        f"MLflow{where} {what} ({type(error).__name__}). {step}, or correct mlflow_uri (NIGHTREAD_MLFLOW_URI), and "
        "repeat this step: what was not logged is logged then."
    )


def _experiment(name: str, settings: Settings) -> str:
    """Return the id of an experiment, created if it is missing, with its kind and its description."""
    import mlflow
    from mlflow import MlflowClient

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        # without a server, MLflow would put them into the folder that the program happens to run in
        folder = artifact_root(settings.workspace) if settings.mlflow_server is None else None
        number, tags = mlflow.create_experiment(name, artifact_location=folder), {}
    else:
        number, tags = experiment.experiment_id, experiment.tags
    models = {NOTE: ABOUT.format(name=name), SHARED_VIEW: _shared_view()}
    ours = {KIND: "custom_model_development"} | ({NOTE: ABOUT_NIGHTS} if name == NIGHTS else models)
    for tag, value in ours.items():
        if tag not in tags:  # what a person wrote there is kept
            MlflowClient().set_experiment_tag(number, tag, value)
    return number


def _shared_view() -> str:
    """Return the state of MLflow's table of runs that shows the headline: it shows no metric by itself."""
    columns = ["attributes.`Duration`", "attributes.`Models`", *(f"metrics.`{name}`" for name in HEADLINE)]
    order = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    every = {"searchFilter": "", "startTime": "ALL", "lifecycleFilter": "Active", "modelVersionFilter": "All Runs"}
    return json.dumps({**every, **order, "datasetsFilter": [], "selectedColumns": columns})


def find_page(settings: Settings) -> str:
    """Return the part of the address, after the port's slash, of MLflow's page of the newest experiment; "" for none.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    connect(settings)
    from mlflow import MlflowClient

    shared = (one for one in MlflowClient().search_experiments() if SHARED_VIEW in one.tags)
    newest = max(shared, key=lambda one: int(one.experiment_id), default=None)
    return "" if newest is None else PAGE.format(number=newest.experiment_id)


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One open MLflow run; every method logs to it."""

    run_id: str

    def log_config(self, config: Config) -> None:
        """Log the resolved configuration: completely as JSON, and flattened as parameters."""
        import mlflow

        values = config.model_dump(mode="json")
        mlflow.log_dict(values, "config.json")
        mlflow.log_params({k: v for k, v in _flatten(values) if len(str(v)) <= 500})

    def log_data(self, fingerprint: Mapping[str, Any], context: str) -> None:
        """Log the patients and pixels used, as an MLflow data set with the fingerprint as its digest.

        Args:
            fingerprint: JSON with at least `sha256`; pseudonyms only.
            context: "training", "validation", "calibration", "evaluation" or "scoring".
        """
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        name = f"data/{context}.json"
        mlflow.log_dict(dict(fingerprint), name)
        source = CodeDatasetSource(tags={"fingerprint": name, "sha256": str(fingerprint["sha256"])})
        digest = str(fingerprint["sha256"])[:36]  # MLflow's limit; the full SHA-256 is in the source
        mlflow.log_input(MetaDataset(source, name=context, digest=digest), context=context)

    def log_terms(self, records: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log training terms as metrics; each record is (images seen, terms). They are batched, since one call costs as
        much as ten.
        """
        import time

        from mlflow import MlflowClient
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        metrics = [Metric(name, float(value), stamp, step) for step, row in records for name, value in row.items()]
        for start in range(0, len(metrics), BATCH):
            MlflowClient().log_batch(self.run_id, metrics=metrics[start : start + BATCH])

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Log final metrics."""
        import mlflow

        mlflow.log_metrics({name: float(value) for name, value in values.items()})

    def log_figure(self, figure: Figure, name: str) -> None:
        """Log a figure as PNG under `figures/`."""
        import mlflow

        mlflow.log_figure(figure, f"figures/{name}.png")

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Log a table as CSV under `tables/`."""
        self.log_text(table.to_csv(index=False), f"tables/{name}.csv")

    def log_text(self, text: str, name: str) -> None:
        """Log a text file."""
        import mlflow

        mlflow.log_text(text, name)

    def log_file(self, file: Path, folder: str) -> None:
        """Log a copy of a file under a folder of the run's artefacts."""
        import mlflow

        mlflow.log_artifact(str(file), folder)

    def log_tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        import mlflow

        mlflow.set_tags(dict(values))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if not isinstance(value, list) else json.dumps(value)


@contextmanager
def track(
    settings: Settings,
    experiment: str,
    name: str,
    run_id: str | None = None,
    parent: str | None = None,
    system_metrics: bool = True,
    about: str = "",
    one_of_its_name: bool = False,
) -> Iterator[TrackedRun]:
    """Open (or, with `run_id`, reopen) a run and close it as FINISHED, or as FAILED if the block raises.

    Args:
        settings: settings of the workspace.
        experiment: usually the route.
        name: readable run name.
        run_id: id of an earlier run to continue.
        parent: id of the parent run.
        system_metrics: log CPU, memory, disk, network and GPU while the block runs.
        about: description of a new run, in Markdown.
        one_of_its_name: continue the run of this name that an earlier attempt left, even one that has ended: a killed
            process, or a server that died before its last answer, could not note that it was logged; or that another
            process has just begun.

    Raises:
        ConfigError: the tracking store cannot be opened, or is lost while the block runs.
    """
    connect(settings)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with begin_alone(settings):
            if one_of_its_name and run_id is None:
                run_id = _find_named(settings, experiment, name)
            fresh = run_id is None
            started = mlflow.start_run(
                run_id=run_id,
                experiment_id=_experiment(experiment, settings) if fresh else None,
                run_name=name if fresh else None,
                parent_run_id=parent if fresh else None,
                log_system_metrics=system_metrics,
            )
        with started as run:
            if fresh or one_of_its_name:
                mlflow.set_tags(git_state() | versions() | ({NOTE: about} if about else {}))
            yield TrackedRun(run.info.run_id)
    except MlflowException as error:
        raise _lost(settings, error, f"failed while {name!r} was logged") from error


def _find_named(settings: Settings, experiment: str, name: str) -> str | None:
    """Return the id of the newest run of an experiment and name; None without one."""
    from mlflow import MlflowClient

    query = f"attributes.run_name = '{name}'"
    runs = MlflowClient().search_runs([_experiment(experiment, settings)], query, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def log_headline(settings: Settings, run_id: str, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Log metrics and tags to a run that has ended; its state and its end stay as they are.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    import time

    connect(settings)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    stamp = int(time.time() * 1000)
    metrics = [Metric(name, float(value), stamp, 0) for name, value in values.items()]
    MlflowClient().log_batch(run_id, metrics=metrics, tags=[RunTag(name, text) for name, text in tags.items()])
