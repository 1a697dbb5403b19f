"""The documents agree with the program: the field table is fresh, configurations load, commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click import Command, Context, Group
from page_markers import method_of

from pipeline.cli import group
from pipeline.cli.config_table import document
from pipeline.config import load_config
from pipeline.data.images.data_config import DataConfig
from pipeline.methods import METHODS, build_method
from pipeline.stages.run.auto_config import load_run

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_the_field_table_is_fresh() -> None:
    assert (ROOT / "configs" / "README.md").read_text() == document(), "run `make docs`"


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "runs").glob("*.yaml")), ids=lambda p: p.stem)
def test_runs_load(path: Path) -> None:
    route = ["data.route=cxr"] if path.stem == "auto" else []  # for any route, so that it names none
    assert load_run(path, route).name


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_data_load_and_name_routes_that_exist(path: Path) -> None:
    assert (ROOT / "configs" / "routes" / f"{load_config(path, DataConfig).route}.yaml").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "methods").glob("*.yaml")), ids=lambda p: p.stem)
def test_methods_load_and_build(path: Path) -> None:
    config = load_config(path, METHODS[method_of(path)])
    assert build_method(config, 128 if path.stem.endswith("_128") else 64).config == config


def test_every_command_that_the_documents_name_exists() -> None:
    named = set(re.findall(r"nightread (?:-w \S+ )?([a-z]+)(?: |`|$)", "\n".join(code_of(TEXT)), flags=re.MULTILINE))
    assert isinstance(group, Group)
    assert {"ingest", "train", "score", "evaluate", "flagged", "wrap", "push", "benchmark"} <= named
    assert named <= set(group.commands)


def code_of(text: str) -> list[str]:
    """Return the code blocks of Markdown and its inline code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [*blocks, *re.findall(r"`([^`\n]+)`", text)]


def commands() -> list[list[str]]:
    """Return the words of every `nightread ...` line in the documents' code blocks, continued lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.split("nightread ", 1)[1] for line in lines for part in line.split("&&") if "nightread " in part]
    words = {tuple(shlex.split(re.sub(r"^-w \S+ ", "", part), comments=True)) for part in parts}
    return sorted(map(list, words))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_of_the_documents_are_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option is one that the command has, and every argument that it needs is there; nothing is run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_: value)  # the paths are examples
    command: Command = group
    context = Context(group)
    while isinstance(command, Group) and not (command.invoke_without_command and _names_no_command(words)):
        _, inner, words = command.resolve_command(context, words)
        assert inner is not None
        command = inner
    command.make_context(str(command.name), words, parent=context)


def _names_no_command(words: list[str]) -> bool:
    return not words or words[0].startswith("-")


def test_every_configuration_that_the_documents_name_exists() -> None:
    named = set(re.findall(r"configs/[\w./-]+\.yaml", TEXT)) - {"configs/benchmarks/NAME.yaml"}
    assert named and {name for name in named if not (ROOT / name).exists()} == set()
