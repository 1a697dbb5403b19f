"""The flagged list in words that radiologists understand."""

from __future__ import annotations

import re
from typing import Any

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow


def list_flagged(catalogue: Catalogue, run_id: str | None = None, flagged: bool | None = True) -> list[dict[str, Any]]:
    """Return findings as rows, most unusual first; pseudonyms only.

    Args:
        catalogue: where the findings are.
        run_id: only those of one scoring run.
        flagged: True only flagged, False only unflagged, None all.
    """
    return [_row(finding) for finding in catalogue.list_findings(run_id, flagged)]


def in_words(p_value: float | None, n_calibration: int, guarantee: str) -> str:
    """Return a p-value in words: the share of normal units than which this one is more unusual."""
    if p_value is None:
        return "not calibrated"
    exceeded = round(p_value * (n_calibration + 1)) - 1  # number of calibration scores at least as high
    kind = "normal scans" if guarantee.startswith("conformal") else "normal slices (no guarantee)"
    kind += f" ({guarantee.removeprefix('conformal within ')})" if guarantee.startswith("conformal within ") else ""
    if exceeded <= 0:
        return f"more unusual than all {n_calibration} {kind}"
    return f"more unusual than {100 * (1 - exceeded / n_calibration):.1f} % of {n_calibration} {kind}"


def describe_rule(rule: str) -> str:
    """Return the rule that flagged a finding in words, to follow "at": `fpr 0.05` is a false-positive rate of 0.05."""
    for short, words in _RULES:
        rule = re.sub(rf"\b{short} (?=[\d.])", words, rule)
    return rule


_RULES = (
    ("fpr", "a false-positive rate of "),
    ("fdr", "a false-discovery rate of "),
    ("capacity", "a review capacity of "),
)


def _row(finding: FindingRow) -> dict[str, Any]:
    worst = finding.evidence[0] if finding.evidence else {}
    return {
        "finding": finding.id,
        "study": finding.study_id[:12],
        "route": finding.route,
        "how unusual": in_words(finding.p_value, finding.n_calibration, finding.guarantee),
        "p": finding.p_value,
        "score": finding.score,
        "worst slice": str(worst.get("instance_id", ""))[:12],
        "rule": finding.rule,
        "flagged": bool(finding.flagged),
    }
