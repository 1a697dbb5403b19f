"""Cross-fitting over patients: with K folds, every patient outside test and gate is held out exactly once.

Where patients are few, a single develop set is small and its intervals are wide. A fold deals the patients of train,
validate, calibrate and develop into K parts. The held-out part is this run's develop set, abnormal scans included. All
other patients keep their sets, except that those in develop are used for training. Stored sets do not change, the law
of the sets holds for the sets under the fold, and test and gate stay as they are.

Like a patient's set, the fold does not depend on other patients: it is derived from the same source
(`splits.drawn_from`) by a different hash, so folds and sets are independent of each other.
"""

from __future__ import annotations

import hashlib
from typing import Self

from pydantic import Field, model_validator
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from pipeline.config import Config
from pipeline.data.catalogue.content_hash import draw_of
from pipeline.data.catalogue.schema import Patient
from pipeline.data.labels.label_evidence import least_pixels
from pipeline.types import SetName

FOLDED: frozenset[SetName] = frozenset({"train", "validate", "calibrate", "develop"})


class Fold(Config):
    """One fold of cross-fitting."""

    of: int = Field(ge=2, le=50, description="number of folds that patients are dealt into")
    held_out: int = Field(ge=0, description="the fold that is this run's develop set, counted from 0 (held out)")

    @model_validator(mode="after")
    def _among_them(self) -> Self:
        if self.held_out >= self.of:
            raise ValueError(f"held_out is {self.held_out}; with {self.of} folds it must be 0 to {self.of - 1}")
        return self

    def set_of(self, source: str, stored: SetName) -> SetName:
        """Return a patient's set under this fold.

        Args:
            source: value that its fold is derived from.
            stored: its set in the catalogue, one of `FOLDED`.
        """
        drawn = draw_of(hashlib.sha256(f"fold {source}".encode()).hexdigest())
        if int(drawn * self.of) == self.held_out:
            return "develop"
        return "train" if stored == "develop" else stored


def read_sets_under(session: Session, fold: Fold, by_pixels: bool) -> dict[str, SetName]:
    """Return the set of every patient of `FOLDED` under a fold, per pseudonym.

    Args:
        session: session of the catalogue.
        fold: folds and which of them is held out.
        by_pixels: derive folds from the patients' images, like their sets.
    """
    usable = or_(Patient.identified, Patient.image_is_subject)  # others are never trained on, whatever their set
    folded = Patient.set_name.in_(sorted(FOLDED))
    query = select(Patient.patient_id, Patient.draw, Patient.set_name).where(folded, usable)
    pixels = {patient_id: least for patient_id, least in session.execute(least_pixels())} if by_pixels else {}
    return {
        patient_id: fold.set_of(pixels.get(patient_id, repr(draw)), stored)
        for patient_id, draw, stored in session.execute(query)
    }
