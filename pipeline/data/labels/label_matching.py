"""Match a label row to a pseudonym of the catalogue by its real identifiers, or say why there is no match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.schema import Instance, Series, Study
from pipeline.data.labels.label_csv import LabelLine
from pipeline.data.labels.label_values import BadValue, iso_date
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import NightreadError

# Built once, because building a query takes longer than running it.
_INSTANCE = (
    select(Study.patient_id, Study.study_id, Series.series_id, Instance.frames, Instance.attributes)
    .join(Series, Series.study_id == Study.study_id)
    .join(Instance, Instance.series_id == Series.series_id)
    .where(Instance.instance_id == bindparam("subject"))
)
_SERIES = (
    select(Study.patient_id, Study.study_id)
    .join(Series, Series.study_id == Study.study_id)
    .where(Series.series_id == bindparam("subject"))
)
_STUDIES = select(Study.study_id, Study.patient_id).where(Study.study_id.in_(bindparam("subjects", expanding=True)))
_UNKNOWN = "in the catalogue: not ingested yet, or rejected"


class Unmatched(NightreadError):
    """A line matches no subject in the catalogue, or several; the message contains no identifier."""


@dataclass(frozen=True, slots=True)
class Match:
    """The subject of a label, its patient, and the shape (frames, rows, columns) where it is an instance."""

    level: str
    subject: str
    patient_id: str
    shape: tuple[int, int, int] | None = None


class Matcher:
    """Finds the subject of label lines. The most specific identifier decides the level, and all must agree."""

    def __init__(self, crosswalk: Crosswalk, pseudonyms: Pseudonyms) -> None:
        self._crosswalk = crosswalk
        self._pseudonyms = pseudonyms
        self._studies: dict[tuple[str, ...], list[str]] = {}

    def match(self, session: Session, line: LabelLine) -> Match:
        """Return the subject of a line.

        Raises:
            Unmatched: it matches no subject or several, or its identifiers contradict each other.
        """
        if line["SOPInstanceUID"]:
            pair = self._instance(session, line)
        elif line["SeriesInstanceUID"]:
            pair = self._series(session, line)
        else:
            return self._study(session, line)
        study_id, match = pair
        if self._names_study(line) and study_id not in self._candidates(line):
            raise Unmatched(
                f"its identifiers contradict each other: the {match.level} belongs to another study; correct the line"
            )
        return match

    def _instance(self, session: Session, line: LabelLine) -> tuple[str, Match]:
        subject = self._pseudonyms.instance(line["SOPInstanceUID"])
        row = session.execute(_INSTANCE, {"subject": subject}).first()
        if row is None:
            raise Unmatched(f"its SOPInstanceUID is not {_UNKNOWN}")
        if line["SeriesInstanceUID"] and row.series_id not in self._series_ids(line):
            raise Unmatched(
                "its identifiers contradict each other: the instance belongs to another series; correct the line"
            )
        shape = (row.frames, row.attributes.get("rows", 0), row.attributes.get("columns", 0))
        return row.study_id, Match("instance", subject, row.patient_id, shape)

    def _series(self, session: Session, line: LabelLine) -> tuple[str, Match]:
        for subject in self._series_ids(line):
            row = session.execute(_SERIES, {"subject": subject}).first()
            if row is not None:
                return row.study_id, Match("series", subject, row.patient_id)
        raise Unmatched(f"its SeriesInstanceUID is not {_UNKNOWN}")

    def _series_ids(self, line: LabelLine) -> tuple[str, ...]:
        """Return the pseudonyms that the line's series may have: within its study, where the UID occurs in two."""
        study, series = line["StudyInstanceUID"], line["SeriesInstanceUID"]
        within = (self._pseudonyms.series_within(study, series),) if study else ()
        return (*within, self._pseudonyms.series(series))

    def _study(self, session: Session, line: LabelLine) -> Match:
        if not (line["StudyInstanceUID"] or line["AccessionNumber"] or (line["PatientID"] and line["StudyDate"])):
            raise Unmatched(_too_little(line))
        rows = session.execute(_STUDIES, {"subjects": self._candidates(line)}).all()
        if not rows:
            raise Unmatched(f"no study with these identifiers is {_UNKNOWN}")
        if len(rows) > 1:
            raise Unmatched(f"{len(rows)} studies have these identifiers; add the StudyInstanceUID")
        return Match("study", rows[0].study_id, rows[0].patient_id)

    def _names_study(self, line: LabelLine) -> bool:
        return any(line[name] for name in ("StudyInstanceUID", "AccessionNumber", "PatientID", "StudyDate"))

    def _candidates(self, line: LabelLine) -> list[str]:
        identifiers: dict[str, Any] = {
            "study_uid": line["StudyInstanceUID"],
            "accession": line["AccessionNumber"],
            "patient_id": line["PatientID"],
            "date": _dicom_date(line["StudyDate"]),
            "issuer": line["IssuerOfPatientID"],
        }
        key = tuple(identifiers.values())
        if key not in self._studies:
            self._studies[key] = self._crosswalk.find_studies(**identifiers)
        return self._studies[key]


def _too_little(line: LabelLine) -> str:
    if line["PatientID"]:
        return (
            "it has a PatientID but no StudyDate, and only both together name a study; add the date, or import with "
            "--level patient to label all studies that the patient has had so far"
        )
    return "it has no identifier; add one"


def _dicom_date(text: str) -> str:
    try:
        return iso_date(text, "StudyDate").replace("-", "")
    except BadValue as error:
        raise Unmatched(str(error)) from None
