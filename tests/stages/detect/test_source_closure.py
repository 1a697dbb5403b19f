"""An evaluation depends on the sources that it imports, and on no others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.stages.detect.evaluation_key import EVALUATION
from pipeline.stages.detect.source_closure import PACKAGE, find_closure, hash_closure

TOY = {
    "__init__.py": "",
    "stage.py": "def run():\n    from toy.rooms.used import f\n",
    "typing_only.py": "",
    "unused.py": "",
    "rooms/__init__.py": "import toy.needed_by_room\n",
    "rooms/used.py": "if TYPE_CHECKING:\n    import toy.typing_only\nfrom toy import stage\n",
    "needed_by_room.py": "import json\n",
}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of our sources that a test may change."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "pipeline", ignore=not_source))


def not_source(_: str, names: list[str]) -> set[str]:
    return {name for name in names if "." in name and not name.endswith(".py")} | {"__pycache__"}


def hash_after(package: Path, *files: str) -> str:
    """Return the hash of an evaluation's sources once a comment was added to some files."""
    for file in files:
        with (package / file).open("a") as stream:
            stream.write("# a comment\n")
    hash_closure.cache_clear()
    return hash_closure(EVALUATION, package)


def test_imported_sources_change_the_hash_and_the_web_pages_do_not(copied: Path) -> None:
    before = hash_closure(EVALUATION)
    assert hash_after(copied, "review/web/pages.py", "stages/pacs/push.py", "cli/model.py") == before
    assert hash_after(copied, "detection/residual.py") != before


def test_imports_are_followed_into_functions_and_packages_and_round_circles(tmp_path: Path) -> None:
    for name, text in TOY.items():
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text)
    reached = {str(file.relative_to(tmp_path / "toy")) for file in find_closure("toy.stage", tmp_path / "toy")}
    assert reached == set(TOY) - {"typing_only.py", "unused.py"}
