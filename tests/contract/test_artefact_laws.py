"""Laws of configurations, specifications and weights over every registered method."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from pipeline.config import load_config
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods import METHODS, AnyMethodConfig, build_method, parse_method
from pipeline.methods.artefact import build_from_spec, load_weights, method_spec, save_weights
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import Reconstructor
from pipeline.nn.rng import Rng
from pipeline.types import Batch

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "methods").glob("*.yaml"))


def test_the_registry_is_the_union_of_configurations() -> None:
    assert list(METHODS.values()) == list(get_args(get_args(AnyMethodConfig)[0]))
    assert all(config().name == name for name, config in METHODS.items())


def test_the_small_methods_are_registered_and_named_once() -> None:
    text = (Path(__file__).parents[1] / "small_methods.yaml").read_text(encoding="utf-8")
    names = re.findall(r"^(\w+):", text, re.MULTILINE)
    assert (sorted(set(names)), set(names) - set(METHODS)) == (sorted(names), set())


def test_a_configuration_survives_json(config: MethodConfig) -> None:
    values = json.loads(config.model_dump_json())
    assert TypeAdapter(AnyMethodConfig).validate_python(values) == config == parse_method(values)
    assert parse_method(values).fingerprint() == config.fingerprint()


def test_every_field_is_described(config: MethodConfig) -> None:
    fields = type(config).model_fields
    assert [name for name, field in fields.items() if name != "name" and not field.description] == []


def test_unknown_names_and_fields_are_refused(config: MethodConfig) -> None:
    with pytest.raises(ConfigError, match="'oracle'"):
        parse_method({"name": "oracle"})
    with pytest.raises(ConfigError, match="learning_speed"):
        parse_method({"name": config.name, "learning_speed": 1})


def test_saved_weights_reconstruct_bit_for_bit(method: Method, batch: Batch, tmp_path: Path) -> None:
    if method.phases:
        method.loss(batch, method.phases[0].name, Rng.training(0, 0, 4))  # moves running statistics off their start
    save_weights(method, tmp_path / "weights.safetensors")
    spec = json.loads(json.dumps(method_spec(method)))
    again = load_weights(build_from_spec(spec), tmp_path / "weights.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), again.state_dict().values(), strict=True)
    )
    if isinstance(method, Reconstructor):
        keys = Rng.scoring(0, batch.ids)
        expected = method.reconstruct(batch.images, Rng.scoring(0, batch.ids))
        assert torch.equal(again.reconstruct(batch.images, keys), expected)


def test_weights_of_another_shape_are_refused(config: MethodConfig, tmp_path: Path) -> None:
    save_weights(build_method(config, 32, channels=2), tmp_path / "weights.safetensors")
    with pytest.raises(ArtefactError, match=r"\d tensors|\[\d"):
        load_weights(build_method(config, 32), tmp_path / "weights.safetensors")


def test_damaged_or_missing_weights_are_refused_without_their_path(method: Method, tmp_path: Path) -> None:
    file = tmp_path / "secret-name.safetensors"
    with pytest.raises(ArtefactError) as missing:
        load_weights(method, file)
    save_weights(method, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArtefactError) as damaged:
        load_weights(method, file)
    assert "secret-name" not in f"{missing.value}{damaged.value}"


@pytest.mark.parametrize("spec", [{}, {"config": {"name": "ae"}}, {"config": {"name": "ae"}, "image_size": "x"}])
def test_a_specification_with_a_hole_is_refused(spec: dict) -> None:
    with pytest.raises(ArtefactError, match="specification"):
        build_from_spec(spec)


def method_of(file: Path) -> str:
    """Return the method that a configuration file is for: several may be for one, as `beta_vae` is for `vae`."""
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    return values["name"] if "name" in values else method_of(file.parent / values["extends"])


def test_every_method_has_a_configuration_file() -> None:
    assert {method_of(file) for file in CONFIGS} == set(METHODS)
    assert set(METHODS) <= {file.stem for file in CONFIGS}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configuration_files_load_and_build(file: Path) -> None:
    config = load_config(file, METHODS[method_of(file)])
    for size in (64, 128):
        assert build_method(config, size).image_shape == (1, size, size)
