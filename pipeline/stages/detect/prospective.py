"""Stage `evaluate --prospective`: estimate a detector's rates in use from readers' decisions, logged with its model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.config import Config, Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.effective_decision import Said, read_what_readers_said
from pipeline.data.catalogue.review_schema import ReadingDraw, ReadingFrame
from pipeline.data.catalogue.schema import FindingRow
from pipeline.errors import EmptySelection
from pipeline.evaluation.agreement import Agreement, reader_agreement
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.prospective import ProspectiveRates, ReadScans, estimate_prospective_rates
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import RunRef

DECIDED = ("confirmed", "dismissed")


class ProspectiveReport(Config):
    """One detector's rates from the reading list.

    Attributes:
        run, route, sha256: the detector.
        nights: number of sampled scoring runs, and the times of the `first` and `last` one (UTC).
        rates: sensitivity, false-positive rate and PPV with their intervals.
        agreement: agreement of readers on scans read by two.
        undecided: scans on the list without a decision, or with an unsure one.
        knowing: unblinded decisions on sampled scans.
        before_heatmap, with_heatmap: decisions that were made without and with the heatmap.
        first_looks: scans with a first look before the heatmap and a decision with it, of which `changed` differ.
    """

    run: str
    route: str
    sha256: str
    nights: int
    first: datetime
    last: datetime
    rates: ProspectiveRates
    agreement: Agreement
    undecided: int
    knowing: int
    before_heatmap: int = 0
    with_heatmap: int = 0
    first_looks: int = 0
    changed: int = 0

    def summary(self) -> dict[str, float]:
        """Return the available rates by name."""
        named = {"prospective_ppv": self.rates.ppv, "reader_kappa": self.agreement.kappa}
        named |= {"prospective_sensitivity": self.rates.sensitivity, "prospective_fpr": self.rates.fpr}
        return {name: estimate.value for name, estimate in named.items() if estimate is not None}

    def to_markdown(self) -> str:
        """Return the report: a table of rates with 95 % intervals, and the numbers behind them."""
        rates, rows = self.rates, []
        for name, estimate in (
            ("sensitivity", rates.sensitivity),
            ("false-positive rate", rates.fpr),
            ("PPV (of flagged scans)", rates.ppv),
            ("missed (abnormal among unflagged)", rates.missed),
            ("Cohen's kappa of readers", self.agreement.kappa),
        ):
            rows.append((name, _shown(estimate)))
        counts = [
            f"{self.nights} scoring runs from {self.first:%Y-%m-%d} to {self.last:%Y-%m-%d} flagged {rates.flagged} "
            f"scans and did not flag {rates.unflagged}.",
            f"Decided: {rates.flagged_read} flagged ({rates.confirmed} abnormal) and {rates.sampled_read} of the "
            f"blinded sample ({rates.abnormal_sampled} abnormal); {self.undecided} on the list are undecided.",
            f"{self.before_heatmap} were decided before the heatmap was shown and {self.with_heatmap} with it; "
            f"{self.changed} of {self.first_looks} first looks were changed by it.",
            f"Two readers read {self.agreement.scans} scans and agreed on {self.agreement.same}.",
        ]
        notes = [rates.note, self.agreement.note]
        notes += [f"{self.knowing} decisions on sampled scans were not blinded."] if self.knowing else []
        table = markdown_table(["rate", "value (95 % interval)"], rows)
        bullets = "\n".join(f"- {line}" for line in [*counts, *filter(None, notes)])
        return f"# In use: {self.route} ({self.run})\n\n{table}\n\n{bullets}\n"


@dataclass(frozen=True, slots=True)
class _Framed:
    """A finding of the frame with the readers' last outcomes."""

    patient_id: str
    flagged: bool
    weight: float
    selected: bool
    said: tuple[Said, ...]

    @property
    def decided(self) -> bool | None:
        """Whether it is abnormal; None while undecided or unsure."""
        last = self.last
        return None if last is None or last.outcome not in DECIDED else last.outcome == "confirmed"

    @property
    def last(self) -> Said | None:
        """The last outcome of any reader."""
        return max(self.said, key=lambda said: said.number, default=None)


def estimate_prospective(run: RunRef, settings: Settings) -> ProspectiveReport:
    """Estimate a detector's rates from the reading list, and store them in its run folder and in MLflow.

    Raises:
        EmptySelection: none of its scoring runs was sampled, or nothing has been decided.
        ArtefactError: the run folder is missing.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        rows = _framed(session, run.sha256)
        draws = _draws(session, run.sha256)
    if not rows:
        raise EmptySelection(
            f"No finding of {folder.run_id} is in the frame of the reading list. Score scans, then read "
            "them with nightread review"
        )
    listed = [row for row in rows if row.selected]
    last = [row.last for row in listed if row.last is not None]
    compared = [said for said in last if said.heatmap and said.first_look]
    counts = (sum(row.flagged for row in rows), sum(not row.flagged for row in rows))
    report = ProspectiveReport(
        run=folder.run_id,
        route=config.data.route,
        sha256=run.sha256,
        nights=len(draws),
        first=min(draws),
        last=max(draws),
        rates=estimate_prospective_rates(_read(listed, True), _read(listed, False), counts, config.evaluation),
        agreement=reader_agreement(*_twice(rows), config.evaluation),
        undecided=sum(row.decided is None for row in listed),
        knowing=sum(not row.last.blind for row in listed if row.last and not row.flagged and row.decided is not None),
        before_heatmap=sum(not said.heatmap for said in last),
        with_heatmap=sum(said.heatmap for said in last),
        first_looks=len(compared),
        changed=sum(said.first_look != said.outcome for said in compared),
    )
    _keep(report, folder, settings)
    return report


def _framed(session: Session, sha256: str) -> list[_Framed]:
    query = (
        select(ReadingFrame, FindingRow.patient_id)
        .join(FindingRow, FindingRow.id == ReadingFrame.finding_id)
        .where(FindingRow.model_sha256 == sha256)
        .order_by(ReadingFrame.finding_id)
    )
    said = read_what_readers_said(session)
    return [
        _Framed(
            patient_id,
            row.flagged,
            1 / row.probability if row.probability else 0.0,
            row.selected,
            tuple(said.get(row.finding_id, ())),
        )
        for row, patient_id in session.execute(query)
    ]


def _draws(session: Session, sha256: str) -> list[datetime]:
    of_model = select(ReadingFrame.run_id).join(FindingRow, FindingRow.id == ReadingFrame.finding_id)
    runs = of_model.where(FindingRow.model_sha256 == sha256).distinct()
    return list(session.scalars(select(ReadingDraw.drawn_at).where(ReadingDraw.run_id.in_(runs))))


def _read(rows: list[_Framed], flagged: bool) -> ReadScans:
    decided = [row for row in rows if row.flagged == flagged and row.decided is not None]
    abnormal, weights = (
        np.array([row.decided for row in decided], bool),
        np.array([row.weight for row in decided], float),
    )
    return ReadScans(abnormal, weights, np.array([row.patient_id for row in decided], str))


def _twice(rows: list[_Framed]) -> tuple[list[str], list[str], list[str]]:
    """Return the last outcomes of the first and the second reader, and the patients, of scans with two opinions."""
    opinions = [(row, [said.outcome for said in row.said if said.outcome in (*DECIDED, "unsure")]) for row in rows]
    pairs = [(said[0], said[1], row.patient_id) for row, said in opinions if len(said) > 1]
    return [a for a, _, _ in pairs], [b for _, b, _ in pairs], [patient for _, _, patient in pairs]


def _keep(report: ProspectiveReport, folder: RunFolder, settings: Settings) -> None:
    folder.write_text("evaluation/prospective/report.md", report.to_markdown())
    folder.write("evaluation/prospective/report.json", report.model_dump(mode="json"))
    parent = folder.read("mlflow.json")["run_id"]
    about = f"Sensitivity and false-positive rate of {folder.run_id} in use, from readers' decisions."
    with track(settings, report.route, "evaluate prospective", parent=parent, about=about) as tracked:
        tracked.log_metrics(report.summary())
        tracked.log_text(report.to_markdown(), "report.md")


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else estimate.text()
