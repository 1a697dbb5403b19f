"""Configuration: files that extend files, sections of their own, overrides, and the settings of a workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field
from pydantic import ValidationError as Frozen

from pipeline.config import Config, Settings, find_shipped_file, load_config
from pipeline.errors import ConfigError


class Part(Config):
    """A section."""

    size: int = Field(1, ge=1)
    kind: str = "plain"


class Whole(Config):
    """A file."""

    name: str = "none"
    part: Part = Part()
    steps: tuple[int, ...] = ()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a YAML file where the test runs."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_a_child_lies_over_its_parent(write: Callable[[str, str], Path]) -> None:
    write("parent.yaml", "name: parent\npart: {size: 2, kind: parent}\nsteps: [1, 2]")
    child = write("child.yaml", "extends: parent.yaml\npart: {kind: child}\nsteps: [3]")
    assert load_config(child, Whole) == Whole(name="parent", part=Part(size=2, kind="child"), steps=(3,))


def test_extending_twice_is_refused(write: Callable[[str, str], Path]) -> None:
    write("a.yaml", "name: a")
    write("b.yaml", "extends: a.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml.*b\.yaml"):
        load_config(write("c.yaml", "extends: b.yaml"), Whole)


def test_a_section_may_be_a_file(write: Callable[[str, str], Path]) -> None:
    write("parts/base.yaml", "size: 5")
    write("parts/part.yaml", "extends: base.yaml\nkind: filed")
    file = write("runs/whole.yaml", "part: ../parts/part.yaml")
    assert load_config(file, Whole).part == Part(size=5, kind="filed")


def test_overrides_are_laid_on_top_in_their_order(write: Callable[[str, str], Path]) -> None:
    file = write("whole.yaml", "name: file\npart: {size: 3}")
    loaded = load_config(file, Whole, ["part.size=7", "steps=[1, 2]", "name=a=b", "part.size=8"])
    assert loaded == Whole(name="a=b", part=Part(size=8), steps=(1, 2))


def test_an_override_may_name_the_file_of_a_section(write: Callable[[str, str], Path]) -> None:
    write("parts/part.yaml", "size: 5\nkind: filed")
    file = write("runs/whole.yaml", "part: {size: 3, kind: own}")
    loaded = load_config(file, Whole, ["part=parts/part.yaml", "part.size=6"])
    assert loaded.part == Part(size=6, kind="filed")  # replaced, not merged: the file is the section


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("part.size", "field=value"),
        ("=3", "field=value"),
        ("name.first=3", "below 'name'"),
        ("steps=[1", r"'steps=\[1'.*YAML"),
        ("part=missing.yaml", r"missing\.yaml.*No such"),
        ("part.size=0", r"part\.size: .*\b1\b.*\b0\b"),
        ("part.sise=4", r"part\.sise"),
    ],
)
def test_what_does_not_fit_is_named(write: Callable[[str, str], Path], override: str, message: str) -> None:
    file = write("whole.yaml", "name: file")
    with pytest.raises(ConfigError, match=message):
        load_config(file, Whole, [override])


@pytest.mark.parametrize(("text", "message"), [("- a", "holds a list"), ("a: [", "valid YAML"), ("", "NoneType")])
def test_a_file_that_is_not_a_mapping_is_refused(write: Callable[[str, str], Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write("whole.yaml", text), Whole)


def test_equal_configurations_have_equal_fingerprints() -> None:
    assert Whole(steps=(1,)).fingerprint() == Whole.model_validate({"steps": [1]}).fingerprint()
    assert Whole().fingerprint() != Whole(part=Part(size=2)).fingerprint()
    with pytest.raises(Frozen):
        Whole().name = "other"  # type: ignore[misc]


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yaml").write_text("site: file\nworkers: 3", encoding="utf-8")
    monkeypatch.setenv("NIGHTREAD_SITE", "variable")
    settings = Settings.load(tmp_path)
    assert (settings.site, settings.workers, settings.burned_in) == ("variable", 3, "no-figures")
    assert settings.catalogue == f"sqlite:///{tmp_path}/catalogue.db" and settings.workspace == tmp_path


def test_a_requested_workspace_takes_precedence_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTREAD_WORKSPACE", str(tmp_path / "variable"))
    assert Settings.load().workspace == tmp_path / "variable"
    assert Settings.load(tmp_path / "asked").workspace == tmp_path / "asked"


def test_a_setting_that_is_unknown_or_out_of_range_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.yaml").write_text("sight: file", encoding="utf-8")
    with pytest.raises(ConfigError, match="sight"):
        Settings.load(tmp_path)
    (tmp_path / "settings.yaml").unlink()
    monkeypatch.setenv("NIGHTREAD_WORKERS", "0")
    with pytest.raises(ConfigError, match="workers"):
        Settings.load(tmp_path)


def test_installed_configurations_are_found_under_the_programs_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install --user` puts configs into ~/.local/share, which is outside sys.prefix."""
    package = tmp_path / "lib" / "python3.11" / "site-packages" / "pipeline"
    (tmp_path / "share" / "nightread" / "configs" / "routes").mkdir(parents=True)
    monkeypatch.setattr("pipeline.config.__file__", str(package / "config.py"))
    assert find_shipped_file("configs/routes") == tmp_path / "share" / "nightread" / "configs" / "routes"
    assert Settings().routes_folder == find_shipped_file("configs/routes")
    assert find_shipped_file("configs/none") == package.parent / "configs" / "none"
