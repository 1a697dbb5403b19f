"""Sets of patients: who is trained on, who calibrates, who is tested. By patient, once, and for good.

A patient's set is read off a uniform number, `patients.draw`, fixed when the patient is first seen. So it depends on
nobody else: the order of ingest, and who else is there, change nothing. It is stored, and only a merge of two patients
(`pipeline.data.catalogue.patients`) may change it. That number comes from the workspace's secret key. For public data
sets, whose figures others must be able to repeat, `drawn_from: pixels` reads it off the patient's images instead: the
same images get the same sets in every workspace.

Which fractions apply is decided by the labels that stand anywhere on the patient:

    only normal                   `normals`: any set
    abnormal, and none normal     `others`: develop, gate, test
    normal and abnormal           `others`, or `mixed` where the policy lets such patients give their normal slices
    none, or only unknown         no set: the patient is incoming
    only dismissed flags          no set: they are the odd ones among the normal (`pipeline.data.labels.review_labels`)
    no Patient ID                 no set, ever: the person may stand in another set under a name

Official splits, where `official` is "keep": the makers' test patients are tested on, whatever their labels. Their
training normals train and validate; their validation normals calibrate, develop and validate; their other training and
validation patients develop. A patient with several official sets is in the last of train, validate, test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator
from sqlalchemy import func, select, update

from pipeline.config import Config
from pipeline.data.catalogue.schema import Patient
from pipeline.data.labels.label_evidence import PatientEvidence, unassigned_evidence
from pipeline.errors import CatalogueError
from pipeline.types import LABELLED_SETS, NORMAL_SETS, SetName, SliceRef

if TYPE_CHECKING:
    from pipeline.data.catalogue.catalogue import Catalogue

Fractions = dict[SetName, float]
# The order in which fractions lay claim to [0, 1): held-out sets first, so that changing how normals are shared among
# train, validate and calibrate moves nobody into or out of them.
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
    """How patients are divided into sets; fractions of one group add up to 1."""

    normals: Fractions = Field(
        {"train": 0.5, "validate": 0.1, "calibrate": 0.2, "develop": 0.06, "gate": 0.04, "test": 0.1},
        description="patients whose labels are all normal",
    )
    others: Fractions = Field({"develop": 0.4, "gate": 0.2, "test": 0.4}, description="patients with an abnormal label")
    mixed_patients: bool = Field(
        False, description="patients with normal and abnormal labels may give their normal slices to normal sets"
    )
    mixed: Fractions = Field(
        {"train": 0.5, "validate": 0.08, "calibrate": 0.12, "develop": 0.1, "test": 0.2},
        description="those patients, where mixed_patients is on",
    )
    drawn_from: Literal["pseudonym", "pixels"] = Field(
        "pseudonym",
        description="of a patient's place among the fractions; pixels: the same data, the same sets, in any workspace",
    )
    official: Literal["keep", "ignore"] = Field("keep", description="what becomes of the data set's own split")

    @field_validator("normals", "others", "mixed")
    @classmethod
    def _add_up(cls, fractions: Fractions) -> Fractions:
        if any(value < 0 for value in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
            raise ValueError("fractions must not be negative and must add up to 1")
        return fractions

    @model_validator(mode="after")
    def _keep_apart(self) -> Self:
        if any(self.others.get(name, 0) for name in NORMAL_SETS):
            raise ValueError(f"patients in `others` may enter {', '.join(LABELLED_SETS)} only")
        return self

    def set_of(self, draw: float, evidence: PatientEvidence) -> tuple[SetName, str] | None:
        """Return the set of a patient and why, or None while nothing is known; a pure function of its arguments."""
        official = self._official(evidence)
        if not evidence.labels & {"normal", "abnormal"}:
            return ("test", "official test") if official == "test" else None
        group = self._group(evidence)
        if official is None:
            return _pick(getattr(self, group), draw), group
        table = _OFFICIAL_OTHERS if group == "others" else _OFFICIAL_NORMALS
        return _pick(table[official], draw), f"{group}, official {official}"

    def _group(self, evidence: PatientEvidence) -> Literal["normals", "others", "mixed"]:
        if "abnormal" not in evidence.labels:
            return "normals"
        return "mixed" if self.mixed_patients and "normal" in evidence.labels else "others"

    def _official(self, evidence: PatientEvidence) -> str | None:
        known = [name for name in _OFFICIAL_ORDER if name in evidence.official_sets]
        return known[-1] if known and self.official == "keep" else None


def _pick(fractions: Mapping[SetName, float], draw: float) -> SetName:
    given = [name for name in _ORDER if fractions.get(name, 0) > 0]
    reached = 0.0
    for name in given:
        reached += fractions[name]
        if draw < reached:
            return name
    return given[-1]  # rounding left the last fraction a hair short of 1


def assign_sets(catalogue: Catalogue, policy: SplitPolicy, patients: Collection[str] | None = None) -> dict[str, int]:
    """Give every patient who has labels and no set theirs, and return how many patients each set has now.

    Patients who have a set keep it, whatever was labelled since. Those without are counted under "unassigned".
    `patients` (pseudonyms) leaves all others as they are: a route's policy is for the patients of that route.

    Raises:
        CatalogueError: the database cannot be written.
    """
    with catalogue.session() as session:
        given = []
        for evidence in unassigned_evidence(session, by_pixels=policy.drawn_from == "pixels"):
            chosen = policy.set_of(evidence.draw, evidence)
            if chosen is not None and (patients is None or evidence.patient_id in patients):
                given.append({"patient_id": evidence.patient_id, "set_name": chosen[0], "set_reason": chosen[1]})
        if given:
            session.execute(update(Patient), given)
        query = select(Patient.set_name, func.count()).group_by(Patient.set_name)
        return {name or "unassigned": count for name, count in session.execute(query)}


def eligible(ref: SliceRef) -> bool:
    """Say whether the law lets a slice be used in its set.

    Train, validate and calibrate take slices whose standing label is normal: one that is later labelled abnormal, or
    withdrawn to unknown, drops out while its patient stays. Develop, gate and test take labelled slices. A patient
    without a set gives nothing. (Unidentified patients are never assigned a set.) Where a normal label rests on a
    dismissed flag alone, no set takes the slice: it is a false alarm by construction, of the model that raised it.
    """
    if ref.set_name is None or ref.dismissed_flag:
        return False
    return ref.label == "normal" if ref.set_name in NORMAL_SETS else ref.label != "unknown"


def check_disjoint(slices_by_set: Mapping[str, Iterable[SliceRef]]) -> None:
    """Prove that no patient stands in two sets.

    Raises:
        CatalogueError: naming a patient who does, the sets, and how many there are.
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
            f"{len(leaked)} patients stand in more than one set ({counts}), {patient[:12]} among them; a result on "
            "such sets would be false. Select slices by the patients' stored sets only."
        )
