"""The grid of a volume along its series, and series that are refused because they are not volumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.data.images.data_config import DataConfig
from pipeline.data.images.volume import Depth, VolumeConfig, padded
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.geometry import Allowed, assemble
from pipeline.errors import ConfigError, Rejected
from pipeline.methods import sees_the_other_side
from pipeline.stages.run.run_config import RunConfig

CT = InstanceAttributes(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2", modality="CT", rows=8, columns=8, pixel_spacing_mm=(1.0, 1.0),
    orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
)  # fmt: skip


def series(heights: list[float], slide: float = 0.0, **changes: Any) -> list[tuple[str, InstanceAttributes]]:
    return [
        (f"i{n}", replace(CT, positions=((slide * z, 0.0, z),), instance_number=n, **changes))
        for n, z in enumerate(heights)
    ]


def test_the_grid_follows_millimetres_a_number_or_the_series() -> None:
    assert VolumeConfig(slice_mm=4).depth(30, 2.0) == Depth(30, 15)
    assert VolumeConfig(slice_mm=4).depth(9, 5.0) == Depth(9, 11)  # 45 mm / 4 mm = 11.25
    assert VolumeConfig(slices=24).depth(7, None) == Depth(7, 24)
    assert VolumeConfig().depth(7, None).same
    with pytest.raises(ConfigError, match=r"\b4 mm\b.*slice_mm"):
        VolumeConfig(slice_mm=4).depth(7, None)
    with pytest.raises(ValidationError, match="not both"):
        VolumeConfig(slices=24, slice_mm=4)


def test_halving_averages_four_slices_as_a_triangle_does() -> None:
    # A triangle of half-width 2 around 2 i + 0.5 weighs the four nearest slices 1/8, 3/8, 3/8, 1/8.
    impulse = torch.zeros(8, 1, 2, 2)
    impulse[3] = 1.0
    halved = Depth(8, 4).to_grid(impulse)[:, 0, 0, 0]
    torch.testing.assert_close(halved, torch.tensor([0.0, 3 / 8, 1 / 8, 0.0]))
    ramp = torch.arange(8.0).reshape(8, 1, 1, 1)
    torch.testing.assert_close(Depth(8, 4).to_grid(ramp)[1:3].flatten(), torch.tensor([2.5, 4.5]))


def test_a_constant_volume_stays_constant_both_ways() -> None:
    for depth in (Depth(9, 4), Depth(4, 9), Depth(7, 7)):
        ones = torch.ones(depth.slices, 1, 3, 3)
        torch.testing.assert_close(depth.to_native(depth.to_grid(ones)), ones)


@pytest.mark.parametrize("depth", [Depth(40, 13), Depth(13, 40), Depth(20, 20)])
def test_a_part_of_the_grid_needs_its_sources_only(depth: Depth) -> None:
    native = torch.rand(depth.slices, 1, 4, 4)
    whole = depth.to_grid(native)
    for first, last in ((0, 3), (5, 11), (depth.grid - 2, depth.grid)):
        begin, end = depth.sources(first, last)
        part = depth.to_grid(native[begin:end], first, last, begin)
        torch.testing.assert_close(part, whole[first:last], rtol=0, atol=1e-6)
        assert end - begin <= (last - first + 2) * max(1, depth.slices / depth.grid) + 2


def test_the_native_slice_of_a_place() -> None:
    assert [Depth(8, 4).native_of(place) for place in (-3, 0, 1, 3, 9)] == [0, 1, 3, 7, 7]


def test_padding_is_even_and_only_where_it_is_needed() -> None:
    result = padded(torch.zeros(1, 3, 8, 9), 8, -1.0)
    assert result.shape == (1, 8, 8, 9)
    assert (result[0, :, 0, 0] == -1).tolist() == [True, True, False, False, False, True, True, True]
    whole = torch.zeros(1, 8, 8, 8)
    assert padded(whole, 8, -1.0) is whole


@pytest.mark.parametrize(
    ("instances", "code"),
    [
        (series([0, 5, 10]), "too-few-slices"),
        (series([0.0]), "too-few-slices"),
        (series([0, 5, 10, 20, 25, 30]), "missing-slices"),
        (series([0, 5, 11, 15, 20]), "irregular-slice-spacing"),
        (series([0, 5, 10, 15, 20], slide=0.2), "gantry-tilt"),
        (series([0, 5, 10, 15, 20], pixel_spacing_mm=None), "not-a-volume"),
        (
            [(n, replace(a, sop_class_uid="1.2.840.10008.5.1.4.1.1.7", positions=(), orientation=None))
             for n, a in series([0, 5, 10, 15, 20])],
            "not-a-volume",
        ),
    ],
    ids=["few", "one", "gap", "uneven", "tilt", "spacing", "secondary-capture"],
)  # fmt: skip
def test_a_series_that_is_not_a_volume_is_refused_with_a_code(
    instances: list[tuple[str, InstanceAttributes]], code: str
) -> None:
    with pytest.raises(Rejected) as caught:
        assemble(instances, Allowed(volume_of=4))
    assert caught.value.code == code


def test_a_regular_stack_is_a_volume() -> None:
    assert assemble(series([15, 0, 10, 5]), Allowed(volume_of=4)).spacing_mm == (5.0, 1.0, 1.0)


def test_settings_that_contradict_volumes_are_refused() -> None:
    data = {"route": "ct-head", "normaliser": {"kind": "ct_window", "image_size": 32}, "volumes": {"tile": 32}}
    assert DataConfig.model_validate(data).allowed == Allowed(volume_of=8)
    for wrong, words in (
        ({"allow_gaps": True}, r"\bgaps\b"),
        ({"allow_tilt": True}, r"\bgaps\b"),
        ({"volumes": {"tile": 64}}, r"normaliser\.image_size"),
    ):
        with pytest.raises(ValidationError, match=words):
            DataConfig.model_validate({**data, **wrong})


@pytest.mark.parametrize(
    "method",
    [
        {"name": "gated_dae", "mirrored": True},
        {"name": "vae", "mirrored": True},
        {"name": "learned_residual", "reconstructor": {"method": {"name": "ladder_vae", "mirrored": True}}},
    ],
)
def test_a_cube_has_no_mirror_image_of_the_patient(method: dict[str, object]) -> None:
    data = {"route": "ct-head", "normaliser": {"kind": "ct_window", "image_size": 64}, "volumes": {"tile": 32}}
    run = {"name": "r", "data": data, "method": method}
    with pytest.raises(ValidationError, match=r"method\.mirrored"):
        RunConfig.model_validate(run)
    for volumes in ({"tile": 64}, None):
        config = RunConfig.model_validate({**run, "data": {**data, "volumes": volumes}})
        assert sees_the_other_side(config.method)
