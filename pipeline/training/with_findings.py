"""A data set whose items each carry a finding to paste."""

from __future__ import annotations

from typing import Any

from pipeline.corruption.findings import Findings
from pipeline.training.order import Images


class WithFindings:
    """Training images, each with one of the findings: those of an earlier model in unlabelled scans, in turn.

    Args:
        data: the images.
        findings: at least one, on the same grid; no more than there are images, or the rest is never pasted.
    """

    def __init__(self, data: Images, findings: Findings) -> None:
        self.data, self.findings = data, findings

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.data[index], "findings": self.findings.row(index % len(self.findings))}
