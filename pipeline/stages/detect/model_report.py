"""Report of a run that ends with its model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A registered model without a detector: its run, route and version."""

    run: RunRef
    route: str
    version: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in words."""
        name = RunFolder.open(self.run).run_id
        return (
            f"Trained and registered a model for {self.route}, version {self.version}: {name}. "
            "It has no detector, so it does not calibrate or score. Add `detection: {}` to its configuration, for all "
            "defaults, and run nightread train CONFIG"
        )


def read_model_report(run: RunRef) -> ModelReport | None:
    """Return the report of a trained run without `detection`; None if it has one, as calibration then reports it."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    if config.detection is not None:
        return None
    return ModelReport(run, config.data.route, str(folder.read("mlflow.json")["model_version"]))
