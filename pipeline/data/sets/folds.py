"""Cross-fitting over patients: with K folds every patient outside test and gate is held out once.

A single develop set is small where every patient is precious, and its intervals are wide. With a fold the patients of
train, validate, calibrate and develop are dealt into K folds. Those of the fold that is held out are this run's develop
set, abnormal scans and all; of the others each keeps its set, and who is in develop trains. Sets that are stored do not
change, the law of the sets holds for those of the fold, and test and gate stay as they are.

As a patient's set, its fold depends on nobody else: it is read off the same source (`splits.drawn_from`) by a hash of
its own, so that folds and sets are independent of each other.
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

    of: int = Field(ge=2, le=50, description="into how many folds patients are dealt")
    held_out: int = Field(ge=0, description="the fold that is this run's develop set, counted from 0")

    @model_validator(mode="after")
    def _among_them(self) -> Self:
        if self.held_out >= self.of:
            raise ValueError(f"held_out is {self.held_out}; of {self.of} folds it can be 0 to {self.of - 1}")
        return self

    def set_of(self, source: str, stored: SetName) -> SetName:
        """Return a patient's set under this fold.

        Args:
            source: what its fold is read off.
            stored: its set in the catalogue, one of `FOLDED`.
        """
        drawn = draw_of(hashlib.sha256(f"fold {source}".encode()).hexdigest())
        if int(drawn * self.of) == self.held_out:
            return "develop"
        return "train" if stored == "develop" else stored


def sets_under(session: Session, fold: Fold, by_pixels: bool) -> dict[str, SetName]:
    """Return the set of every patient of `FOLDED` under a fold, by pseudonym.

    Args:
        session: the catalogue's.
        fold: which patients are held out.
        by_pixels: read folds off the patients' images, as their sets were.
    """
    known = or_(Patient.identified, Patient.image_is_subject)  # others are never trained on, whatever set stands there
    folded = Patient.set_name.in_(sorted(FOLDED))
    query = select(Patient.patient_id, Patient.draw, Patient.set_name).where(folded, known)
    pixels = {patient_id: least for patient_id, least in session.execute(least_pixels())} if by_pixels else {}
    return {
        patient_id: fold.set_of(pixels.get(patient_id, repr(draw)), stored)
        for patient_id, draw, stored in session.execute(query)
    }
