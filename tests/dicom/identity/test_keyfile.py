"""The key file: private, complete, the same for all processes, and never silently replaced."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.dicom.identity.keyfile import KeyLock, create_key, read_key
from pipeline.dicom.identity.pseudonyms import Pseudonyms, next_key_file
from pipeline.errors import IdentityError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_key(tmp_path / "identity" / "pseudonym.key")
    finally:
        os.umask(old)
    assert _mode(tmp_path / "identity" / "pseudonym.key") == 0o600
    assert _mode(tmp_path / "identity") == 0o700
    assert [p.name for p in (tmp_path / "identity").iterdir()] == ["pseudonym.key"]  # no draft is left behind


def test_creating_again_returns_the_same_key(tmp_path: Path) -> None:
    first = create_key(tmp_path / "k" / "key")
    assert create_key(tmp_path / "k" / "key") == first == read_key(tmp_path / "k" / "key")
    assert len(first) == 32 and create_key(tmp_path / "l" / "key") != first


def _create(path: str, start: float, answer: multiprocessing.Queue[bytes]) -> None:
    import time

    time.sleep(max(0.0, start - time.time()))
    answer.put(create_key(Path(path)))


def test_processes_at_once_get_the_same_key(tmp_path: Path) -> None:
    import time

    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        answer: multiprocessing.Queue[bytes] = context.Queue()
        arguments = (str(tmp_path / str(attempt) / "key"), time.time() + 0.1, answer)
        children = [context.Process(target=_create, args=arguments) for _ in range(4)]
        for child in children:
            child.start()
        keys = {answer.get(timeout=240) for _ in children}
        for child in children:
            child.join()
        assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o601, 0o777])
def test_an_exposed_key_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "k" / "key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}"):
        read_key(path)
    path.chmod(0o600)
    read_key(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-3],
        lambda text: text[:40],
        lambda text: text.replace("nightread-key-1", "nightread-key-9"),
        lambda text: text[:20] + ("0" if text[20] != "0" else "1") + text[21:],
        lambda text: text + "one more",
        lambda text: "\x00" * 90,
        lambda text: "zz" * 45,
    ],
)
def test_a_damaged_key_is_refused_and_left_alone(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "k" / "key"
    create_key(path)
    broken = damage(path.read_text())  # type: ignore[operator]
    path.write_text(broken)
    with pytest.raises(IdentityError, match="damaged"):
        create_key(path)
    assert path.read_text() == broken


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path / "k" / "real")
    (tmp_path / "k" / "key").symlink_to(tmp_path / "k" / "real")
    with pytest.raises(IdentityError):
        create_key(tmp_path / "k" / "key")
    (tmp_path / "k" / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(IdentityError):
        create_key(tmp_path / "k" / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_messages_name_no_path_and_no_key(tmp_path: Path) -> None:
    path = tmp_path / "secret-folder" / "key"
    key = create_key(path)
    path.chmod(0o644)
    with pytest.raises(IdentityError) as caught:
        read_key(path)
    assert "secret-folder" not in str(caught.value) and key.hex()[:8] not in str(caught.value)


def test_an_unfinished_rotation_refuses_new_pseudonyms(settings: Settings) -> None:
    Pseudonyms.open(settings).close()
    create_key(next_key_file(settings))
    with pytest.raises(IdentityError, match="interrupted"):
        Pseudonyms.open(settings)


def test_the_lock_is_shared_by_users_and_exclusive_for_a_rotation(settings: Settings) -> None:
    first, second = Pseudonyms.open(settings), Pseudonyms.open(settings)
    with pytest.raises(IdentityError, match="in use"):
        KeyLock(settings.key_file, exclusive=True)
    first.close()
    del second  # collected: its lock goes with it
    rotating = KeyLock(settings.key_file, exclusive=True)
    with pytest.raises(IdentityError, match="rotation"):
        Pseudonyms.open(settings)
    rotating.close()
    rotating.close()
    Pseudonyms.open(settings).close()
