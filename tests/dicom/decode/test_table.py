"""Every file of `pydicom` and `pydicom-data`: decoded to exactly these values, or rejected with this code.

`table.yaml` is the record. A file that is not in it fails; so does a line without a file. After a deliberate change,
check what `NIGHTREAD_RECORD_TABLE=1 pytest tests/dicom/decode/test_table.py` changes in it, line by line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.dicom.decode.read import DecodedInstance
from pipeline.errors import Rejected

TABLE = Path(__file__).parent / "table.yaml"
RECORDED: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}


def _row(result: DecodedInstance | Rejected) -> dict[str, Any]:
    if isinstance(result, Rejected):
        return {"rejected": result.code.value}
    little = result.stored.astype(result.stored.dtype.newbyteorder("<"))
    digest = hashlib.sha256(np.ascontiguousarray(little)).hexdigest()
    return {"shape": list(result.stored.shape), "dtype": result.stored.dtype.name, "sha256": digest}


@pytest.mark.skipif("NIGHTREAD_RECORD_TABLE" not in os.environ, reason="only to write the table again")
def test_record_the_table(real_files: dict[str, Path], read_real: Callable[[str], Any]) -> None:
    rows = {name: _row(read_real(name)) for name in real_files}
    TABLE.write_text(yaml.safe_dump(rows, width=200, default_flow_style=None), encoding="utf-8")


def test_the_table_names_every_file(real_files: dict[str, Path]) -> None:
    if not any(name.startswith("pydicom-data/") for name in real_files):
        pytest.skip("the package pydicom-data is not installed")
    assert set(real_files) == set(RECORDED)


def test_the_table_counts() -> None:
    """Numbers that the documentation quotes: both outcomes are well represented."""
    refused = [row["rejected"] for row in RECORDED.values() if "rejected" in row]
    assert (len(RECORDED), len(refused), len(set(refused))) == (244, 96, 9)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_file(name: str, read_real: Callable[[str], Any]) -> None:
    assert _row(read_real(name)) == RECORDED[name]
