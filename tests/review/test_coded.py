"""The coded list: the shipped codes are DICOM's, and a house may bring its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.sr import _concepts_dict

from pipeline.config import ReviewPolicy
from pipeline.data.labels.finding_codes import load_coded_findings
from pipeline.errors import ConfigError


def test_the_shipped_snomed_codes_are_those_of_dicom() -> None:
    """Against pydicom's dictionary, generated from PS3.16: code and meaning together."""
    standard = {
        (code, meaning) for codes in _concepts_dict.concepts["SCT"].values() for code, (meaning, _) in codes.items()
    }
    shipped = load_coded_findings(ReviewPolicy())
    snomed = [(finding.code, finding.meaning) for finding in shipped if finding.scheme == "SCT"]
    assert len(snomed) >= 15
    assert [pair for pair in snomed if pair not in standard] == []
    assert {finding.scheme for finding in shipped} == {"SCT", "99NIGHTREAD"}


def test_a_house_list_replaces_it(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text('findings:\n  - {code: "RID11374", scheme: RADLEX, meaning: Chemical shift artifact}\n')
    (only,) = load_coded_findings(ReviewPolicy(findings=own))
    assert (only.code, only.scheme, only.meaning) == ("RID11374", "RADLEX", "Chemical shift artifact")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("findings: []", "must not be empty"),
        ("findings: [{code: a, scheme: X, meaning: b}, {code: a, scheme: Y, meaning: c}]", r"codes a\b.*twice"),
        ("findings: [{code: a, scheme: lower, meaning: b}]", "scheme"),
        ("findings: [{code: a, scheme: X}]", "meaning"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_coded_findings(ReviewPolicy(findings=tmp_path / "own.yaml"))
