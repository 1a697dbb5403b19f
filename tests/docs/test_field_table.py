"""The field in one table: every system has a row, and every row leads to files, commands and figures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import field_table
import pytest
from field_table import field_page, read_cell, read_field, verdict

ROOT = Path(__file__).resolve().parents[2]
ROWS = read_field()
CHRONOLOGY = (
    "Autoencoder", "VAE, to reconstruct", "VAE, to denoise", "VAE, to generate", "VAE, to interpolate", "beta-VAE",
    "Conditional VAE", "VampPrior", "VAE-GAN", "DCGAN", "WGAN", "WGAN-GP", "StyleGAN", "InfoGAN", "GAN recovery",
    "VQ-VAE", "VQ-VAE-2", "VQGAN", "Retrieval", "Acoustic units", "Masked pre-training", "DDPM", "DDIM",
    "Latent diffusion", "Classifier-free guidance", "DiT", "Text to image", "DreamBooth", "SR3", "Palette",
    "Restoration and denoising", "Multimodal synthesis", "Adversarial", "Out-of-domain gate", "Synthetic training data",
    "VAR", "Diff-AE", "CycleGAN",
)  # fmt: skip


@pytest.mark.parametrize("system", CHRONOLOGY)
def test_every_system_has_a_row(system: str) -> None:
    assert any(row["system"].startswith(system) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row["system"] for row in ROWS])
def test_a_row_leads_to_what_it_names(row: dict[str, Any]) -> None:
    assert (ROOT / row["file"]).is_file()
    assert row["use"] and row["paper"] and row["data"]
    words = shlex.split(row["command"])
    assert words[0] == "nightread"
    assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))
    for name in ("figure", "baseline", "floor"):
        if name in row:
            assert read_cell(row[name]).low <= read_cell(row[name]).high


def test_the_page_has_all_rows_and_says_who_loses() -> None:
    page = field_page()
    assert field_table.PAGE.read_text(encoding="utf-8") == page, "run: python docs/hooks/field_table.py"
    assert all(f"| **{row['system']}**<br>" in page for row in ROWS)
    assert all(words in page for words in ("beats it", "loses to it", "not shown to beat it"))
    assert "not measured yet" not in page


@pytest.mark.parametrize(
    ("column", "own", "other", "expected"),
    [
        ("AUROC", "0.80 (0.75 to 0.85)", "0.60 (0.55 to 0.65)", "beats it"),
        ("AUROC", "0.80 (0.60 to 0.95)", "0.60 (0.55 to 0.65)", "not shown to beat it"),
        ("KID", "0.80 (0.75 to 0.85)", "0.60 (0.55 to 0.65)", "loses to it"),
        ("KID", "0.5 (-0.1 to 0.55)", "0.60 (0.56 to 0.65)", "beats it"),
    ],
)
def test_the_verdict_compares_the_intervals(
    column: str, own: str, other: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "board.md").write_text(f"| name | {column} |\n| --- | --- |\n| own | {own} |\n| other | {other} |\n")
    monkeypatch.setattr(field_table, "ROOT", tmp_path)
    monkeypatch.setattr(field_table, "TABLES", (".",))
    row = {
        name: {"at": "board", "line": [line], "column": column}
        for name, line in (("figure", "own"), ("baseline", "other"))
    }
    assert verdict(row) == expected
    with pytest.raises(LookupError, match="no line"):
        read_cell({"at": "board", "line": ["nobody"], "column": column})
    with pytest.raises(LookupError, match="No table is named"):
        read_cell({"at": "nothing", "line": ["own"], "column": column})
