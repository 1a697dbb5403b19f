"""The median by sorting networks: equal to scipy's to the bit, whatever else is in a batch, and never hiding a NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.detection import median
from pipeline.detection.median import median_filter


def noise(*shape: int, levels: int = 0) -> torch.Tensor:
    """Normal numbers, or whole ones of a few levels, so that many are equal."""
    draw = np.random.default_rng(7)
    return torch.from_numpy(
        (draw.integers(levels, size=shape) if levels else draw.normal(size=shape)).astype(np.float32)
    )


def scipys(x: torch.Tensor, size: int) -> np.ndarray:
    return ndimage.median_filter(x.numpy(), size=(1, 1, *[size] * (x.ndim - 2)), mode="nearest")


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        *(((11, 2, 13, 10), size) for size in (3, 5, 7, 9)),
        *(((2, 1, 6, 7, 8), size) for size in (3, 5)),
        *((shape, 5) for shape in ((1, 1, 1, 1), (2, 1, 2, 3), (3, 1, 1, 7), (0, 1, 8, 8))),
    ],
)
def test_it_is_exactly_scipys(shape: tuple[int, ...], size: int, levels: int) -> None:
    x = noise(*shape, levels=levels)
    assert np.array_equal(median_filter(x, size).numpy(), scipys(x, size))


def test_a_map_never_depends_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    x = noise(9, 1, 17, 19)
    together = median_filter(x, 5)
    assert torch.equal(together, torch.cat([median_filter(row[None], 5) for row in x]))
    monkeypatch.setattr(median, "CPU_PLANE", 500)  # two maps at once, then one
    assert torch.equal(together, median_filter(x, 5))


def test_of_one_it_is_the_map_itself() -> None:
    x = noise(1, 1, 4, 4)
    assert median_filter(x, 1) is x


def test_a_nan_is_never_hidden_and_reaches_its_neighbourhood_only() -> None:
    x = noise(2, 1, 12, 12)
    x[0, 0, 6, 5] = torch.nan
    filtered = median_filter(x, 5)
    assert filtered[0, 0, 4:9, 3:8].isnan().all()
    assert filtered.isnan().sum() == 25


@pytest.mark.parametrize(("size", "operations"), [(3, 6 + 5 + 6), (5, 16 + 13 + 18 + 10)])
def test_the_network_is_as_short_as_stated(size: int, operations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: dict[str, int] = {"numbers": 0}

    def counting(make: object) -> object:
        def run(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            counted["numbers"] += a.size
            return make(a, b)  # type: ignore[operator]

        return run

    for name in ("minimum", "maximum"):
        monkeypatch.setattr(median.np, name, counting(getattr(np, name)))
    x = noise(1, 1, 200, 200)
    median_filter(x, size)
    assert counted["numbers"] / x.numel() == pytest.approx(operations, rel=0.06)  # some more at the border


def test_torch_and_numpy_agree() -> None:  # the former serves GPUs
    planes = [list(noise(3, 50).sort(dim=0).values), list(noise(4, 50).sort(dim=0).values)]
    merged = median._merge(*planes, 2, 5)
    expected = torch.cat([torch.stack(half) for half in planes]).sort(dim=0).values[2:5]
    assert torch.equal(torch.stack(merged), expected)
    assert np.array_equal(
        np.stack(median._merge(*[[plane.numpy() for plane in half] for half in planes], 2, 5)), expected
    )
