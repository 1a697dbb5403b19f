"""Coded list of findings: SNOMED, RadLex, or a site's own codes, from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import Config, ReviewPolicy, find_shipped_file, load_config

SHIPPED = Path("configs") / "review" / "findings.yaml"


class CodedFinding(Config):
    """One code of the list."""

    code: str = Field(min_length=1, max_length=16, description="code value (DICOM SH)")
    scheme: str = Field(pattern=r"^[A-Z0-9_]{1,16}$", description="coding scheme designator: SCT, RADLEX, DCM, 99...")
    meaning: str = Field(min_length=1, max_length=64, description="meaning shown to people (DICOM LO)")


class FindingList(Config):
    """Findings that a reader may choose, in the order in which they are offered."""

    findings: tuple[CodedFinding, ...] = Field(min_length=1, description="the codes, each only once")

    @model_validator(mode="after")
    def _once(self) -> Self:
        codes = [finding.code for finding in self.findings]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        if twice:
            raise ValueError(f"the codes {', '.join(twice)} are listed twice: remove the duplicates")
        return self


def load_coded_findings(policy: ReviewPolicy) -> tuple[CodedFinding, ...]:
    """Return the list that the settings name, or the shipped one.

    Raises:
        ConfigError: the file is missing, or is not such a list.
    """
    return load_config(policy.findings or find_shipped_file(SHIPPED), FindingList).findings
