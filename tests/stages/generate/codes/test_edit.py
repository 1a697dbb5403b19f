"""The task `edit`: an attribute changed along a direction of the codes, and what else changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods import parse_method
from pipeline.methods.base import Method
from pipeline.nn.rng import Rng
from pipeline.stages.generate.codes.edited_sides import sides_of
from pipeline.stages.generate.codes.editing import Originals, edit_along, measure_edits
from pipeline.stages.generate.codes.editing_task import EditTask
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import load_task_as
from pipeline.types import SliceRef
from tests.stages.conftest import Hospital

SIZE = 32
FACTS = {"sex": "F", "age_years": 30, "modality": "MR"}


def ref_of(number: int, **changes: Any) -> SliceRef:
    """A slice; two belong to one patient."""
    fields: dict[str, Any] = {"attributes": FACTS, "relative_position": 0.5, "label": "normal", **changes}
    return SliceRef(f"i{number}", 0, f"s{number}", f"t{number // 2}", f"p{number // 2}", f"k{number}", **fields)


class Brightness(Method):
    """Its code is the mean of the image, and numbers that say nothing; an edit adds what the first number gains."""

    def __init__(self) -> None:
        super().__init__(parse_method({"name": "pca"}), SIZE, 1, 2)
        self.place = torch.nn.Parameter(torch.zeros(1))

    def embed(self, x: Tensor) -> Tensor:
        """Return the mean and three pixels."""
        return torch.cat([x.mean(dim=(1, 2, 3))[:, None], x[:, 0, 0, :3]], dim=1)

    def edit(self, x: Tensor, direction: Tensor, strength: Tensor, rng: Rng) -> Tensor:
        """Make the whole image brighter."""
        return x + (strength * direction[0])[:, None, None, None]


def bright_and_dark(count: int) -> tuple[Tensor, tuple[SliceRef, ...]]:
    """Noisy discs, half of them brighter; of F and of M."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    disc = torch.tensor((x**2 + y**2 < 120).astype(np.float32))
    noise = torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    upper = torch.arange(count) // 2 % 2
    images = -0.7 + 0.5 * disc + 0.05 * noise + 0.4 * upper[:, None, None, None]
    refs = (ref_of(n, attributes={**FACTS, "sex": "M" if upper[n] else "F"}) for n in range(count))
    return images.float(), tuple(refs)


def test_an_edit_of_the_only_difference_has_its_full_effect_and_a_random_one_little() -> None:
    images, refs = bright_and_dark(80)
    sides = sides_of("sex", refs)
    assert (sides.names, int(sides.upper.sum())) == (("F", "M"), 40)
    originals = Originals.of(images, refs, sides, 0, 16)
    own, by_chance = measure_edits("sex", "brightness", Brightness(), originals)
    assert own.row.probe is not None and own.row.probe.value > 0.99
    assert own.row.effect.value == pytest.approx(1, abs=0.25)
    assert own.row.change.value == pytest.approx(0.4, abs=0.05)
    assert abs(by_chance.row.effect.value) < 0.8 * own.row.effect.value
    assert torch.equal(own.still, images) and own.row.ssim.value == pytest.approx(1)


def test_edits_do_not_depend_on_the_batch() -> None:
    images, refs = bright_and_dark(10)
    directions, strengths = np.tile([[0.2, 0, 0, 0]], (10, 1)), np.linspace(-1, 1, 10)
    ids = [ref.content_id for ref in refs]
    whole, parts = (edit_along(Brightness(), images, directions, strengths, ids, batch=size) for size in (10, 3))
    assert torch.equal(whole, parts)
    with pytest.raises(ConfigError, match="7 numbers and a code of pca has 4"):
        edit_along(Brightness(), images, np.zeros((10, 7)), strengths, ids)


def test_sides_leave_out_what_lies_between() -> None:
    refs = [ref_of(n, geometric_position=n / 39) for n in range(40)]
    thirds = sides_of("relative_position", refs)
    assert thirds.names == ("the first third", "the last third")
    assert (thirds.places[0], thirds.places[-1], len(thirds.places)) == (0, 39, 26)
    ages = [replace(ref, attributes={**FACTS, "age_years": 20 + 2 * n}) for n, ref in enumerate(refs)]
    old = sides_of("age_band", ages)
    assert old.places.tolist() == [*range(10), *range(20, 40)] and old.upper.sum() == 20
    labelled = [replace(ref, label="abnormal" if n % 4 else "normal") for n, ref in enumerate(refs)]
    assert sides_of("lesion", labelled).upper.sum() == 30


@pytest.mark.parametrize(
    ("attribute", "names"),
    [("sex", "40 images have F"), ("scanner", "no value of it"), ("lesion", "normal has 20 patients and lesion has 0")],
)
def test_an_attribute_that_does_not_vary_is_refused(attribute: Any, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        sides_of(attribute, [ref_of(n) for n in range(40)])


def test_edits_are_drawn_judged_and_listed(hospital: Hospital, task_file: Path) -> None:
    changes = [
        "run.method={name: pca, directions: 8}",
        "attributes=[relative_position, lesion]",
        "count=60",
        "pictured=2",
    ]
    task = load_task_as(EditTask, task_file, changes)
    report = run_task(task, hospital.settings)
    assert report.folder.sheet.read_bytes().startswith(b"\x89PNG")
    edits, maps = (block.splitlines()[2:] for block in report.table.split("\n\n"))
    assert [line.split("|")[2].strip() for line in edits] == ["pca", "pca, random direction"] * 2
    assert [line.split("|")[1].strip() for line in maps] == ["pca, edited towards normal", "pca, residual"]
    assert {"effect_relative_position", "likeness_lesion", "pixel_ap_pca_residual"} <= set(report.metrics)
    assert report.metrics["ssim"] > 0.3


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (["run.method={name: dae, widths: [8, 8, 8, 16, 16, 8]}"], "dae has no code along which"),
        (["run.method={name: pca}", "attributes=[lesion, lesion]"], "named twice"),
        (["run.method={name: pca}", "attributes=[mood]"], "mood|lesion"),
        (["run.method={name: pca}", "strengths=[0, 11]"], "must be 10.0 or less"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_it_trains(
    hospital: Hospital, task_file: Path, changes: list[str], names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        run_task(load_task_as(EditTask, task_file, changes), hospital.settings)
