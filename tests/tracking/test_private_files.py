"""A workspace is readable by its owner only, or by the group of a folder that somebody made for a group."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.tracking.experiment import connect

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")


@pytest.fixture(autouse=True, params=[0o022, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """The usual masks, under which a new file may be read by everybody."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def databases(settings: Settings) -> dict[str, int]:
    """Open every database of a workspace, write to each, and return the modes of all their files."""
    connect(settings)
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings), catalogue.session() as session:
        session.execute(text("DELETE FROM drafts"))
        return {path.name: mode(path) for path in settings.workspace.rglob("*.db*")}


def test_a_new_workspace_is_its_owners(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "new" / "workspace")
    modes = databases(settings)
    assert set(modes) >= {"catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "crosswalk.db", "mlflow.db"}
    assert set(modes.values()) == {0o600}
    assert mode(settings.workspace) == 0o700


@pytest.mark.parametrize("first", ["catalogue", "crosswalk", "mlflow"])
def test_whatever_makes_the_workspace_makes_it_private(tmp_path: Path, first: str) -> None:
    settings = Settings(workspace=tmp_path / "workspace")
    if first == "catalogue":
        Catalogue.open(settings).close()
    elif first == "crosswalk":
        Crosswalk.open(settings).close()
    else:
        connect(settings)
    assert mode(settings.workspace) == 0o700


def test_a_folder_of_a_group_stays_the_groups(tmp_path: Path) -> None:
    """Its catalogue is the group's, too; what identifies people stays its owner's."""
    workspace = tmp_path / "shared"
    workspace.mkdir()
    workspace.chmod(0o770)
    modes = databases(Settings(workspace=workspace))
    assert mode(workspace) == 0o770
    assert {modes[name] for name in ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm")} == {0o660}
    assert modes["crosswalk.db"] == 0o600


def test_a_folder_that_everybody_may_write_shares_nothing(tmp_path: Path) -> None:
    workspace = tmp_path / "open"
    workspace.mkdir()
    workspace.chmod(0o777)
    assert databases(Settings(workspace=workspace))["catalogue.db"] == 0o600
