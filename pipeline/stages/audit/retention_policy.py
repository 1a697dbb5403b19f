"""Policy of retention: after how many days each kind of data may be removed, and what is never removed by itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from pipeline.config import Config, Settings, find_shipped_file, load_config

POLICY = Path("configs/retention/policy.yaml")
OWN = "retention.yaml"
LONGEST_DAYS = 36_500


def _days(what: str) -> int | None:
    """Return a field: a number of days, or null where nothing of the kind is removed."""
    field: int | None = Field(None, ge=1, le=LONGEST_DAYS, description=f"{what}; null: never removed")
    return field


class RetentionPolicy(Config):
    """Days after which `nightread retention` removes each kind of data: `retention.yaml` in the workspace."""

    pixels_days: int | None = _days("pixels of scans that are decided, or unflagged and not on the list")
    pictures_days: int | None = _days("heatmaps, and pictures that show scans")
    logs_days: int | None = _days("log files that nobody writes to")
    quarantine_days: int | None = _days("received objects that were put in quarantine")
    outbox_days: int | None = _days("objects that were exported into the workspace's outbox")
    evaluations_days: int | None = _days("artefacts of evaluations in MLflow; their numbers stay")
    checkpoints_days: int | None = _days("training states of finished runs that no alias names; their models stay")
    backups_days: int | None = _days("backups in `backups_folder`")
    backups_folder: Path | None = Field(None, description="folder in which only Nightread's own backups are removed")
    backups_least: int = Field(3, ge=1, description="the newest backups, which stay however old they are")
    remove_learned: bool = Field(False, description="also pixels that a registered model in use learned from")
    remove_measured: bool = Field(False, description="also pixels of patients in develop, gate and test")
    largest_share: float = Field(0.5, gt=0, le=1, description="a run that removes more of the scored scans is refused")

    @model_validator(mode="after")
    def _check_backups(self) -> RetentionPolicy:
        if self.backups_days is not None and self.backups_folder is None:
            raise ValueError(
                "backups_days: needs backups_folder, the folder that the backups are in. Add it, or remove backups_days"
            )
        return self

    @property
    def is_idle(self) -> bool:
        """Whether nothing is ever removed."""
        return all(value is None for name, value in self if name.endswith("_days"))


def read_retention_policy(settings: Settings) -> RetentionPolicy:
    """Return the policy of the workspace (`retention.yaml`), or the shipped one, which removes nothing.

    Raises:
        ConfigError: a field is unknown or out of range.
    """
    own = settings.workspace / OWN
    return load_config(own if own.exists() else find_shipped_file(POLICY), RetentionPolicy)
