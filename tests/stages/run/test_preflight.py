"""Sizes of the sets before a training, and refusals before its first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import ALL_SETS
from pipeline.errors import EmptySelection, TooFewNormals
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.preflight import (
    Preflight,
    SetCount,
    count_sets,
    refuse_uncalibrated,
    refuse_without_normals,
)
from pipeline.stages.run.run_config import RunConfig


def counts(config: RunConfig, **slices: int) -> Preflight:
    sets = tuple(SetCount(name, n, n, n, n) for name in ALL_SETS for n in (slices.get(name, 20),))
    return Preflight(config.data.route, sets, {}, 60, 3, 19, 0.05)


@pytest.fixture
def config(hospital: Any) -> RunConfig:
    return load_config(hospital.run_file, RunConfig)


def test_the_counts_are_those_of_what_is_selected(hospital: Any, trained_run: Any, config: RunConfig) -> None:
    with Catalogue.open(hospital.settings) as catalogue:
        counted = count_sets(config, hospital.settings, catalogue)
        for one in counted.sets:
            chosen = choose(catalogue, config, hospital.settings, sets=(one.name,)).slices
            assert (one.slices, one.patients) == (len(chosen), len({ref.patient_id for ref in chosen}))
            assert (
                one.series == len({ref.series_id for ref in chosen}) and one.units == one.slices
            )  # its unit is the slice
    assert counted.needed == 4 and counted.unlabelled == 8  # 1 / 0.2 - 1
    lines = counted.lines().splitlines()
    assert [line.split()[0] for line in lines[2:8]] == list(ALL_SETS)
    assert lines[-1].startswith(f"Calibration: {counted.of('calibrate').units} units") and "need 4" in lines[-1]


def test_a_rate_that_calibration_cannot_promise_is_refused_before_the_first_step(hospital: Any) -> None:
    config = load_config(hospital.run_file, RunConfig, ["detection.flagging.alpha=0.001", "training.seed=77"])
    before = set(hospital.settings.runs.glob("*"))
    said: list[str] = []
    with pytest.raises(TooFewNormals) as refused:
        train(config, hospital.settings, say=said.append)
    assert refused.value.need == 999 and 0 < refused.value.have < 30
    assert "calibrate" in said[0] and set(hospital.settings.runs.glob("*")) == before


def test_a_run_that_is_trained_already_is_not_refused(hospital: Any, trained_run: Any, config: RunConfig) -> None:
    said: list[str] = []
    assert train(config, hospital.settings, say=said.append) == trained_run and said == []


def test_an_empty_calibrate_set_is_refused_whatever_the_rule(config: RunConfig) -> None:
    with pytest.raises(EmptySelection, match="calibrate"):
        refuse_uncalibrated(counts(config, calibrate=0), config, purpose="rank")
    refuse_uncalibrated(counts(config, calibrate=18), config, purpose="rank")
    with pytest.raises(TooFewNormals) as refused:
        refuse_uncalibrated(counts(config, calibrate=18), config, purpose="flag")
    assert (refused.value.have, refused.value.need) == (18, 19)
    refuse_uncalibrated(counts(config, calibrate=19), config, purpose="flag")


def test_a_two_sided_score_needs_validate_slices(config: RunConfig) -> None:
    asked = config.model_copy(update={"detection": config.detection.model_copy(update={"transform": "two_sided"})})
    with pytest.raises(TooFewNormals) as refused:
        refuse_uncalibrated(counts(asked, validate=9), asked, purpose="flag")
    assert (refused.value.have, refused.value.need) == (9, 10)


def test_no_normals_names_the_causes_with_counts(config: RunConfig) -> None:
    empty = replace(counts(config, **dict.fromkeys(ALL_SETS, 0)), left_out={"no-patient-id": 6, "derived-image": 2})
    with pytest.raises(EmptySelection) as refused:
        refuse_without_normals(empty)
    text = str(refused.value)
    assert "6 no-patient-id, 2 derived-image" in text and "labels import" not in text
    unlabelled = replace(empty, left_out={}, normal=0)
    with pytest.raises(EmptySelection, match="labels import"):
        refuse_without_normals(unlabelled)
