"""Sets of patients for training, calibration and tests: assigned by patient, once, and permanently.

A patient's set is derived from a uniform number, `patients.draw`, fixed when the patient is first seen. So it depends
neither on the order of ingest nor on other patients. It is stored, and only a merge of two patients
(`pipeline.data.catalogue.patients`) may change it. The number comes from the workspace's secret key. For public data
sets, whose figures others must be able to reproduce, `drawn_from: pixels` derives it from the patient's images instead:
the same images get the same sets in every workspace.

The labels in effect anywhere on the patient decide which fractions apply:

    only normal                   `normals`: any set
    abnormal, but not normal      `others`: develop, gate, test
    normal and abnormal           `others`, or `mixed` where the policy lets such patients give their normal slices
    none, or only unknown         no set: the patient is incoming; but a share `unlabelled` of them is in train, for
                                  good, so that a run may learn from their scans without labels
    only dismissed flags          no set: they are unusual normals (`pipeline.data.labels.review_labels`)
    no Patient ID                 no set, ever: the person may be in another set under a name

With `official: keep`, a data set's official test patients are in test, whatever their labels. Normals of the official
training set are in train and validate; normals of the official validation set in calibrate, develop and validate; other
patients of both in develop. A patient with several official sets belongs to the last of train, validate, test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator
from sqlalchemy import func, select, update

from pipeline.config import Config
from pipeline.data.catalogue.schema import Patient
from pipeline.data.labels.label_evidence import PatientEvidence, read_unassigned_evidence
from pipeline.errors import CatalogueError
from pipeline.types import LABELLED_SETS, NORMAL_SETS, SetName, SliceRef

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue

Fractions = dict[SetName, float]
# Order in which fractions take their share of [0, 1): held-out sets first, so that changing how normals are shared
# among train, validate and calibrate moves no patient into or out of a held-out set.
_ORDER: tuple[SetName, ...] = ("test", "gate", "develop", "calibrate", "validate", "train")
_OFFICIAL_ORDER = ("train", "validate", "test")
_OFFICIAL_NORMALS: dict[str, Fractions] = {
    "train": {"train": 0.88, "validate": 0.12},
    "validate": {"calibrate": 0.6, "develop": 0.3, "validate": 0.1},
    "test": {"test": 1.0},
}
_OFFICIAL_OTHERS: dict[str, Fractions] = {
    "train": {"develop": 1.0},
    "validate": {"develop": 1.0},
    "test": {"test": 1.0},
}


class SplitPolicy(Config):
    """Division of patients into sets; the fractions of each group add up to 1."""

    normals: Fractions = Field(
        {"train": 0.5, "validate": 0.1, "calibrate": 0.2, "develop": 0.06, "gate": 0.04, "test": 0.1},
        description="patients whose labels are all normal",
    )
    others: Fractions = Field({"develop": 0.4, "gate": 0.2, "test": 0.4}, description="patients with an abnormal label")
    mixed_patients: bool = Field(
        False, description="let patients with normal and abnormal labels give their normal slices to normal sets"
    )
    mixed: Fractions = Field(
        {"train": 0.5, "validate": 0.08, "calibrate": 0.12, "develop": 0.1, "test": 0.2},
        description="those patients, if mixed_patients is on",
    )
    unlabelled: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of patients without labels who enter train for good, for runs with `unlabelled`",
    )
    drawn_from: Literal["pseudonym", "pixels"] = Field(
        "pseudonym",
        description="source of a patient's draw; with pixels the same data gets the same sets in any workspace",
    )
    official: Literal["keep", "ignore"] = Field("keep", description="whether the data set's own split is used")

    @field_validator("normals", "others", "mixed")
    @classmethod
    def _add_up(cls, fractions: Fractions) -> Fractions:
        if any(value < 0 for value in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
            raise ValueError("fractions must not be negative and must add up to 1")
        return fractions

    @model_validator(mode="after")
    def _keep_apart(self) -> Self:
        if any(self.others.get(name, 0) for name in NORMAL_SETS):
            raise ValueError(
                f"patients in `others` may only enter {', '.join(LABELLED_SETS)}: set the other fractions to 0"
            )
        return self

    def set_of(self, draw: float, evidence: PatientEvidence) -> tuple[SetName, str] | None:
        """Return a patient's set and the reason, or None without labels; a pure function of its arguments."""
        official = self._official(evidence)
        if not evidence.labels & {"normal", "abnormal"}:
            return self._unlabelled_set(draw, official)
        group = self._group(evidence)
        if official is None:
            return _pick(getattr(self, group), draw), group
        table = _OFFICIAL_OTHERS if group == "others" else _OFFICIAL_NORMALS
        return _pick(table[official], draw), f"{group}, official {official}"

    def _unlabelled_set(self, draw: float, official: str | None) -> tuple[SetName, str] | None:
        if official == "test":
            return "test", "official test"
        if official == "validate":  # these may not train, whatever label comes later
            return None
        return (
            ("train", "unlabelled") if draw >= 1 - self.unlabelled else None
        )  # normals in train draw high numbers too

    def _group(self, evidence: PatientEvidence) -> Literal["normals", "others", "mixed"]:
        if "abnormal" not in evidence.labels:
            return "normals"
        return "mixed" if self.mixed_patients and "normal" in evidence.labels else "others"

    def _official(self, evidence: PatientEvidence) -> str | None:
        official = [name for name in _OFFICIAL_ORDER if name in evidence.official_sets]
        return official[-1] if official and self.official == "keep" else None


def _pick(fractions: Mapping[SetName, float], draw: float) -> SetName:
    given = [name for name in _ORDER if fractions.get(name, 0) > 0]
    reached = 0.0
    for name in given:
        reached += fractions[name]
        if draw < reached:
            return name
    return given[-1]  # rounding may leave the sum slightly below 1


def assign_sets(catalogue: Catalogue, policy: SplitPolicy, patients: Collection[str] | None = None) -> dict[str, int]:
    """Assign a set to every patient with labels and without a set; return the number of patients per set.

    Patients with a set keep it, whatever labels are added. Patients without one are counted as "unassigned". `patients`
    (pseudonyms) restricts the assignment: a route's policy is only for the patients of that route.

    Raises:
        CatalogueError: the database cannot be written.
    """
    with catalogue.session() as session:
        given = []
        by_pixels = policy.drawn_from == "pixels"
        for evidence in read_unassigned_evidence(session, by_pixels, unlabelled=policy.unlabelled > 0):
            chosen = policy.set_of(evidence.draw, evidence)
            if chosen is not None and (patients is None or evidence.patient_id in patients):
                given.append({"patient_id": evidence.patient_id, "set_name": chosen[0], "set_reason": chosen[1]})
        if given:
            session.execute(update(Patient), given)
        query = select(Patient.set_name, func.count()).group_by(Patient.set_name)
        return {name or "unassigned": count for name, count in session.execute(query)}


def eligible(ref: SliceRef) -> bool:
    """Return whether the law allows a slice to be used in its set.

    Train, validate and calibrate take slices whose label in effect is normal: a slice that is later labelled abnormal,
        or
    reset to unknown, drops out while its patient stays. Develop, gate and test take labelled slices. A patient without
    a set gives no slices (unidentified patients never get a set). A normal label that rests only on a dismissed flag
    counts
    for no set: it is by construction a false alarm of the model that raised it.
    """
    if ref.set_name is None or ref.dismissed_flag:
        return False
    return ref.label == "normal" if ref.set_name in NORMAL_SETS else ref.label != "unknown"


def check_disjoint(slices_by_set: Mapping[str, Iterable[SliceRef]]) -> None:
    """Check that no patient is in two sets.

    Raises:
        CatalogueError: with one such patient, the sets, and their number.
    """
    where: dict[str, set[str]] = {}
    for name, slices in slices_by_set.items():
        for ref in slices:
            where.setdefault(ref.patient_id, set()).add(name)
    leaked = {patient: sets for patient, sets in where.items() if len(sets) > 1}
    if leaked:
        patient = min(leaked)
        pairs = Counter(" and ".join(sorted(sets)) for sets in leaked.values())
        counts = ", ".join(f"{count} in {sets}" for sets, count in sorted(pairs.items()))
        raise CatalogueError(
            f"{len(leaked)} patients are in more than one set ({counts}), {patient[:12]} among them, so results on "
            "these sets would be false. Select slices only by the patients' stored sets."
        )
