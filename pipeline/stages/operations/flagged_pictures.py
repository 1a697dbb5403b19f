"""Pictures of flagged studies for reports: worst slice, reconstruction, heatmap.

Law 7: pictures of real scans leave the pixel store only if the policy on burned-in text allows it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.detection.stored_detector import load_detector
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.burned_in import figures_allowed
from pipeline.evaluation.panels import Panel, draw_panels
from pipeline.stages.detect.figures import read_panel
from pipeline.stages.operations.flagged_list import in_words, list_flagged
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import scored_slices
from pipeline.types import SliceRef

PICTURES_A_RUN = 4
DPI = 80


@dataclass(frozen=True, slots=True)
class Picture:
    """One flagged study's worst slice as PNG; `caption` describes how unusual it is."""

    route: str
    study_id: str
    caption: str
    png: bytes

    @property
    def data_url(self) -> str:
        """The picture as a `data:` URL, for pages that cannot fetch files."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def draw_flagged_pictures(settings: Settings, run_ids: Sequence[str]) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Return the flagged rows of scoring runs, and pictures of the first ones of each run; most unusual first in both.

    Across routes, p-values are compared, and scores only within one p-value: routes have scores of different scales. A
    study has no picture if its worst slice may contain text, or if the method has no map.
    """
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[tuple[float, float], Picture]] = []
    with Catalogue.open(settings) as catalogue:
        for run_id in run_ids:
            rows += list_flagged(catalogue, run_id)
            findings = catalogue.list_findings(run_id, flagged=True)
            if findings:
                pictures += _drawn(catalogue.run(run_id), findings, catalogue, settings)
    rows.sort(key=lambda row: _unusual_first(row["p"], row["score"]))
    return rows, [picture for _, picture in sorted(pictures, key=lambda pair: pair[0])]


def _drawn(
    run: RunRow, findings: Sequence[FindingRow], catalogue: Catalogue, settings: Settings
) -> Iterator[tuple[tuple[float, float], Picture]]:
    """Yield pictures with their places in the order of the list; slices come in the order of the store."""
    folder = RunFolder(settings.absolute(run.folder))
    config, detector = folder.read_config(), load_detector(folder.detector, sha256=run.sha256 or None)
    if not detector.has_maps:
        return
    first = list(findings)[:PICTURES_A_RUN]
    selection = choose(catalogue, config, settings, study_ids=[finding.study_id for finding in first])
    worst = {_worst(finding): finding for finding in first}
    allowed = [ref for ref in selection.slices if ref.slice_id in worst and _may_be_shown(ref, settings)]
    data = dataset(replace(selection, slices=tuple(allowed)), config, settings, cache="none")
    for item in scored_slices(detector, data) if allowed else ():
        finding = worst[item.id]
        caption = in_words(finding.p_value, finding.n_calibration, finding.guarantee)
        drawn = read_panel(item, detector, data, caption.replace(" than ", "\nthan "))
        place = _unusual_first(finding.p_value, finding.score)
        yield place, Picture(finding.route, finding.study_id, caption, _png(drawn))


def _unusual_first(p_value: float | None, score: float) -> tuple[float, float]:
    """Return a sorting key: the smallest p-value first, then the highest score; without p-values at the end."""
    return (2.0 if p_value is None else p_value), -score


def _worst(finding: FindingRow) -> str:
    evidence = finding.evidence[0] if finding.evidence else {"instance_id": "", "frame": 0}
    return f"{evidence['instance_id']}/{evidence['frame']}"


def _may_be_shown(ref: SliceRef, settings: Settings) -> bool:
    return figures_allowed(InstanceAttributes.from_json(ref.attributes), settings.burned_in)


def _png(panel: Panel) -> bytes:
    buffer = io.BytesIO()
    draw_panels([panel]).savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
