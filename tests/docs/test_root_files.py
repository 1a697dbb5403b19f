"""The files that other programs read: citation, package data, and what runs before a commit."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

from pipeline import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["authors"]
    assert citation["version"] == PROJECT["project"]["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_types_of_the_library_are_packaged() -> None:
    assert (ROOT / "pipeline" / "py.typed").exists()
    assert PROJECT["tool"]["setuptools"]["package-data"]["pipeline"] == ["py.typed"]


def test_the_development_extra_holds_what_the_documentation_needs() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras["docs"]) <= set(extras["dev"])


def test_every_pin_of_the_documentation_is_in_the_constraints() -> None:
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extra = PROJECT["project"]["optional-dependencies"]["docs"]
    assert {name.split(">")[0].split("[")[0].lower() for name in extra} <= pinned


def test_commit_hooks_come_from_this_repository() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    files = [word for hook in hooks[0]["hooks"] for word in hook["entry"].split() if word.startswith("tests/")]
    assert files and [name for name in files if not (ROOT / name).exists()] == []
