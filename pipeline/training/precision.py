"""Choice of the number format in training: bf16 where the processor has units for it."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "auto"]
BF16_UNITS = ("avx512_bf16", "amx_bf16")  # a CPU without them emulates bf16, 7 to 70 times slower than fp32


def choose_precision(precision: Precision, device: str) -> Literal["fp32", "bf16"]:
    """Return the precision to train in; `auto` is bf16 only where that is fast.

    Args:
        precision: of the configuration.
        device: type of the device, such as cpu or cuda.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    units = torch.cpu.get_capabilities() if device == "cpu" else {}
    return "bf16" if any(units.get(name) for name in BF16_UNITS) else "fp32"


def name_processor(device: str) -> str:
    """Return the name of the processor that trains, for the record of a run."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return str(torch.cpu.get_capabilities().get("cpu_name", "unknown")) if device == "cpu" else device
