"""Score table of an evaluation, validated once on entry so that errors in it do not silently distort results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.bootstrap import PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Ranking, roc_area

CONTROL = "control:"
LABELS = ("normal", "abnormal")
LEVELS = {"slice": "slice level", "study": "study level", "image": "image level"}


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores of labelled units, validated.

    Attributes:
        frame: the rows as given, index reset.
        abnormal: bool [N].
        patient: intp [N], code of each unit's patient; patients are numbered in the order of their ids, so that the
            order of the rows does not matter.
        columns: model columns first, then the controls.
        unit: slice, study or image.
    """

    frame: pd.DataFrame
    abnormal: np.ndarray
    patient: np.ndarray
    columns: tuple[str, ...]
    unit: str

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, models: Sequence[str] = ("score",), unit: str = "slice") -> ScoreTable:
        """Check a frame and return the table.

        Args:
            frame: one row per unit: unit_id, patient_id, label (normal or abnormal), `models`, any `control:*`.
            models: columns of the models.
            unit: "slice" or "study"; "image" is set automatically if every image is its own subject.

        Raises:
            ConfigError: a column is missing, a label is unknown, a score is not finite, a unit occurs twice.
            EmptySelection: there are no rows, one class only, or a single patient.
        """
        columns = (*models, *(name for name in frame.columns if str(name).startswith(CONTROL)))
        _require_columns(frame, ("unit_id", "patient_id", "label", *columns))
        if unit not in LEVELS:
            raise ConfigError(f"The unit {unit!r} is not one of {', '.join(LEVELS)}. Choose one of them.")
        frame = frame.reset_index(drop=True)
        _check_rows(frame)
        _check_scores(frame, columns)
        table = cls(
            frame=frame,
            abnormal=(frame["label"] == "abnormal").to_numpy(),
            patient=np.unique(frame["patient_id"].astype(str).to_numpy(), return_inverse=True)[1],
            columns=columns,
            unit="image" if _all_images(frame) else unit,
        )
        table._check_classes()
        return table

    def _check_classes(self) -> None:
        abnormal, total = int(self.abnormal.sum()), len(self.abnormal)
        if abnormal in (0, total):
            raise EmptySelection(
                f"All {total} units are {'normal' if abnormal == 0 else 'abnormal'}, but both classes are needed. "
                "Import labels for the missing class, or choose another set."
            )
        if self.patients < 2:
            raise EmptySelection("The selection has a single patient, but an interval needs at least 2. Add patients.")

    @property
    def patients(self) -> int:
        """Number of patients."""
        return int(self.patient.max()) + 1

    @property
    def level(self) -> str:
        """The level of the results: slice level, study level or image level."""
        return LEVELS[self.unit]

    @property
    def clustered(self) -> bool:
        """Whether a patient has more than one unit, so that units are not independent."""
        return self.patients < len(self.patient)

    def scores(self, column: str) -> np.ndarray:
        """Return a column as float64 [N].

        Raises:
            ConfigError: the table has no such column.
        """
        _require_columns(self.frame, (column,))
        return self.frame[column].to_numpy(float)

    def named_scores(self) -> dict[str, np.ndarray]:
        """Return the scores [N] of every row of a result table by its name: models, then controls.

        A control whose AUROC is below 0.5 has a second row, "negative ...", with its sign flipped.
        """
        named: dict[str, np.ndarray] = {}
        for column in self.columns:
            values, name = self.scores(column), column.removeprefix(CONTROL)
            named[name] = values
            if column.startswith(CONTROL) and self.area(values) < 0.5:
                named[f"negative {name}"] = -values
        return named

    def area(self, scores: np.ndarray) -> float:
        """Return the AUROC of scores [N]."""
        sample = np.ones((1, self.patients))
        return float(roc_area(Ranking.of(scores, self.abnormal, self.patient).curve(sample))[0])

    def strata(self) -> np.ndarray:
        """Return [P]: 1 for patients with at least one abnormal unit, else 0."""
        return (np.bincount(self.patient, weights=self.abnormal) > 0).astype(int)

    def bootstrap(self, config: EvaluationConfig) -> PatientBootstrap:
        """Draw the patient resamples of this table."""
        return PatientBootstrap.draw(self.strata(), config)


def select_central(frame: pd.DataFrame, config: EvaluationConfig) -> pd.DataFrame:
    """Return the rows inside `config.central` of relative_position, both ends excluded.

    Raises:
        ConfigError: the column relative_position is missing.
        EmptySelection: no row is inside.
    """
    _require_columns(frame, ("relative_position",))
    low, high = config.central
    inside = frame[(frame["relative_position"] > low) & (frame["relative_position"] < high)]
    if inside.empty:
        raise EmptySelection(
            f"None of {len(frame)} units has {low} < relative_position < {high}. Widen the range evaluation.central."
        )
    return inside


def _require_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ConfigError(
            f"The score table lacks the column(s) {', '.join(missing)}. Score the scans again, or choose other columns."
        )


def _check_rows(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise EmptySelection("The score table is empty. Score labelled scans first.")
    unknown = ~frame["label"].isin(LABELS)
    if unknown.any():
        example = str(frame.loc[unknown, "label"].iloc[0])[:20]
        raise ConfigError(
            f"{int(unknown.sum())} of {len(frame)} units have a label such as {example!r}, but only normal and "
            "abnormal can be evaluated. Leave the other units out, or import their labels."
        )
    nameless = frame["patient_id"].isna() | (frame["patient_id"].astype(str) == "")
    if nameless.any():
        raise ConfigError(f"{int(nameless.sum())} units have no patient_id, which intervals need. Give every unit one.")
    doubled = int(frame["unit_id"].duplicated().sum())
    if doubled:
        raise ConfigError(
            f"{doubled} unit_id values occur more than once, but every unit counts once. Remove the duplicates."
        )


def _check_scores(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    for name in columns:
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
        bad = int(np.sum(~np.isfinite(values)))
        if bad:
            raise ConfigError(
                f"{bad} of {len(frame)} values of {name} are not finite numbers, so they cannot be ranked. "
                "Score those units again, or list them as not scored."
            )


def _all_images(frame: pd.DataFrame) -> bool:
    return "image_is_subject" in frame.columns and bool(frame["image_is_subject"].all())
