"""What the documents say is true: the field table is fresh, configurations load, README's example runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from click import Command, Context, Group

from pipeline.cli import group
from pipeline.cli.config_table import document
from pipeline.config import load_config
from pipeline.data.images.data_config import DataConfig
from pipeline.data.images.intensity import MRPercentile
from pipeline.data.images.normalise import Normaliser
from pipeline.detection import Detector
from pipeline.detection.config import DetectionConfig
from pipeline.detection.conformal import Calibration, Unit
from pipeline.dicom.phantom.example import example_file
from pipeline.methods import METHODS
from pipeline.methods.ae import AeConfig
from pipeline.stages.run.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_field_table_is_fresh() -> None:
    assert (ROOT / "configs" / "README.md").read_text() == document(), "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "runs").glob("*.yaml")), ids=lambda p: p.stem)
def test_runs_load(path: Path) -> None:
    assert load_config(path, RunConfig).name


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_data_load_and_name_routes_that_exist(path: Path) -> None:
    assert (ROOT / "configs" / "routes" / f"{load_config(path, DataConfig).route}.yaml").exists()


def method_of(path: Path) -> str:
    """Return the method that a configuration is for: several may be for one, as `dae_lesions` is for `dae`."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values["name"] if "name" in values else method_of(path.parent / values["extends"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "methods").glob("*.yaml")), ids=lambda p: p.stem)
def test_methods_load_and_build(path: Path) -> None:
    config = load_config(path, METHODS[method_of(path)])
    assert config.build(128 if path.stem.endswith("_128") else 64).config == config


def test_readmes_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector.of(AeConfig().build(64), Normaliser(MRPercentile()), DetectionConfig(), "phantom-mr")
    detector = detector.calibrated(Calibration.fit(Unit(str(i), str(i), float(i)) for i in range(99)))
    detector.save(tmp_path / "nightread-data" / "runs" / "<run>" / "detector")
    (tmp_path / "scan.dcm").write_bytes(example_file("MR"))
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    result = names["result"]
    assert len(code.strip().splitlines()) == 5
    assert np.isfinite(result.score) and 0 < result.p_value <= 1
    assert capsys.readouterr().out.strip().endswith("(1, 64, 64)")


def test_every_command_that_readme_names_exists() -> None:
    named = set(re.findall(r"nightread (?:-w \S+ )?([a-z]+)(?: |`|$)", README, flags=re.MULTILINE))
    assert isinstance(group, Group)
    assert {"ingest", "train", "score", "evaluate", "flagged", "wrap"} <= named
    assert named <= set(group.commands)


def commands() -> list[list[str]]:
    """Return the words of every `nightread ...` line in README's code blocks, continued lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.split("nightread ", 1)[1] for line in lines for part in line.split("&&") if "nightread " in part]
    return [shlex.split(part, comments=True) for part in parts]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_readmes_commands_are_understood(words: list[str]) -> None:
    """Every option is one that the command has, and every argument that it wants is there; nothing is run."""
    command: Command = group
    context = Context(group)
    while isinstance(command, Group):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    command.make_context(str(command.name), words, parent=context)


def test_every_configuration_that_readme_names_exists() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.yaml", README))
    assert named and {name for name in named if not (ROOT / name).exists()} == set()
