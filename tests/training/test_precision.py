"""The number format in training: `auto` takes bf16 exactly where the processor has units for it."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.precision import choose_precision, name_processor


@pytest.mark.parametrize(
    ("units", "chosen"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_asks_the_processor(units: dict[str, bool], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**units, "cpu_name": "this one"})
    assert choose_precision("auto", "cpu") == chosen
    assert name_processor("cpu") == "this one"
    assert choose_precision("fp32", "cpu") == "fp32" and choose_precision("bf16", "cpu") == "bf16"


def test_auto_on_other_devices_is_fp32_unless_the_card_has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_precision("auto", "cuda") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert choose_precision("auto", "cuda") == "fp32"
    assert choose_precision("auto", "mps") == "fp32"
