"""Restoring of a workspace from a backup: every byte is checked against the manifest before the folder appears."""

from __future__ import annotations

import contextlib
import filecmp
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pipeline import durable
from pipeline.config import Settings
from pipeline.dicom.identity.keyfile import make_private_folder, read_withheld_token, withhold_key
from pipeline.errors import ArtefactError, ConfigError
from pipeline.stages.operations.backup import FORMAT, HEAD, MANIFEST, Kind, OnProgress
from pipeline.stages.operations.workspace_parts import IDENTIFYING

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored, and whether the workspace can recognise its patients."""

    folder: str
    files: int
    size_bytes: int
    identity: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def restore(
    file: Path, folder: Path, identity: Path | None = None, on_progress: OnProgress | None = None
) -> RestoreReport:
    """Restore a workspace from a backup; it appears complete and verified, or not at all.

    Without the identity archive the pseudonym key is withheld: the workspace can be read, but refuses to ingest, since
    a new key would give every patient a second pseudonym. An identity archive given as `file` completes such a
    workspace.

    Args:
        file: an archive of `back_up`.
        folder: a new or empty folder; for an identity archive alone, the restored workspace.
        identity: the identity archive of the same backup.
        on_progress: called with (files done, None).

    Raises:
        ConfigError: the folder is not empty, or the archives belong to different backups.
        ArtefactError: an archive is incomplete or damaged; the folder is unchanged.
    """
    try:
        if _read_head(file)["kind"] == "identity":
            return _complete(file, folder, on_progress)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} is not an empty folder, and a restore never overwrites files. Choose a new folder."
            )
        with durable.writing_folder(folder) as part:
            part.chmod(folder.stat().st_mode if folder.exists() else durable.PRIVATE)
            head, files, size = _unpack(file, part, "workspace", on_progress)
            if identity is not None:
                _, more, more_size = _unpack(identity, part, "identity", on_progress, head["token"])
                files, size = files + more, size + more_size
            elif head["has_key"]:
                withhold_key(Settings(workspace=part).key_file, head["token"])
        return RestoreReport(str(folder), files, size, identity is not None or not head["has_key"])
    except OSError as error:
        raise ArtefactError(
            f"The backup cannot be restored: {error.strerror or error}. Nothing was written. Free some space or "
            "choose another folder, and start again."
        ) from None


def _complete(file: Path, folder: Path, on_progress: OnProgress | None) -> RestoreReport:
    """Give a restored workspace the identity that was withheld from it."""
    key_file = Settings(workspace=folder).key_file
    token = read_withheld_token(key_file)
    if token is None:
        raise ConfigError(
            f"{file.name} contains only an identity, and {folder} is not a workspace that was restored without one. "
            "Restore the workspace's archive first, with nightread restore FILE FOLDER --identity IDENTITY"
        )
    with tempfile.TemporaryDirectory(prefix=".identity-", suffix=durable.PART, dir=folder) as place:
        _, files, size = _unpack(file, Path(place), "identity", on_progress, token)
        names = sorted(path.relative_to(place) for path in Path(place).rglob("*") if path.is_file())
        key_name = key_file.relative_to(folder)
        # The key comes last: until then the workspace refuses to ingest, and this step can be repeated.
        for name in sorted(names, key=lambda name: name == key_name):
            _place(Path(place), folder, name, replaces=name == key_name)
    return RestoreReport(str(folder), files, size, True)


def _place(place: Path, folder: Path, name: Path, replaces: bool) -> None:
    """Move one file of the identity into the workspace, in folders that only their owner may read."""
    source, target = place / name, folder / name
    if target.exists() and not replaces and not filecmp.cmp(source, target, shallow=False):
        raise ConfigError(
            f"{target} exists and differs: something was received or written since the restore. Restore both archives "
            "into a new folder, and ingest it there."
        )
    for parent in reversed(name.parents[:-1]):
        make_private_folder(folder / parent)
    durable.move(source, target)


def _read_head(file: Path) -> dict[str, Any]:
    with _opened(file) as tar:
        return _head(tar, file)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(file, type(error).__name__) from None


def _head(tar: tarfile.TarFile, file: Path) -> dict[str, Any]:
    first = tar.next()
    if first is None or first.name != HEAD or (stream := tar.extractfile(first)) is None:
        raise ConfigError(f"{file} is not a backup of Nightread. Give a file that `nightread backup` wrote.")
    head = json.loads(stream.read(_CHUNK))
    if head.get("format") != FORMAT:
        raise ConfigError(
            f"{file} has format {head.get('format')!r}, but this version restores format {FORMAT}. Use the version of "
            f"Nightread that wrote it ({head.get('nightread')})."
        )
    return head


def _damaged(file: Path, why: str) -> ArtefactError:
    return ArtefactError(
        f"The backup {file} is incomplete or damaged ({why}). Nothing was restored. Use another backup."
    )


def _unpack(
    file: Path, folder: Path, kind: Kind, on_progress: OnProgress | None, token: str | None = None
) -> tuple[dict[str, Any], int, int]:
    """Write an archive's files below `folder` and check them; return its head, the number of files, and their bytes."""
    files, size = 0, 0
    with _opened(file) as tar, tempfile.TemporaryFile() as written:
        head = _head(tar, file)
        if head["kind"] != kind or (token is not None and head["token"] != token):
            raise ConfigError(
                f"{file} is not the {kind} archive of this backup. Use the two archives that were created together."
            )
        while (info := tar.next()) is not None:  # iterating would use the member list, which is cleared below
            source = tar.extractfile(info)
            if source is None or not info.isreg():
                raise _damaged(file, f"{info.name} is not a file")
            if info.name == MANIFEST:
                _compare(source, written, folder, file)
                return head, files, size
            line = _write(source, folder / _safe(info.name, kind, file), info)
            written.write(json.dumps({"name": info.name, **line}).encode() + b"\n")
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
            files, size = files + 1, size + info.size
            if on_progress is not None:
                on_progress(files, None)
    raise _damaged(file, "its manifest is missing")


def _safe(name: str, kind: Kind, file: Path) -> PurePosixPath:
    """Return a member's path; a path outside the folder is refused, since an archive may come from anywhere (path
    traversal).
    """
    path = PurePosixPath(name)
    inside = path.parts and not path.is_absolute() and ".." not in path.parts
    if not inside or (path.parts[0] in IDENTIFYING) != (kind == "identity"):
        raise _damaged(file, "it has a path outside its folder")
    return path


def _write(source: IO[bytes], target: Path, info: tarfile.TarInfo) -> dict[str, Any]:
    """Write one new file; return its size and SHA-256 as read."""
    for parent in () if target.parent.is_dir() else reversed(target.parents):
        if not parent.is_dir():  # identifying data is readable by its owner only
            parent.mkdir(mode=0o700 if parent.name in IDENTIFYING else 0o777)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, info.mode & 0o777)
    with os.fdopen(descriptor, "wb") as out:
        while data := source.read(_CHUNK):
            digest.update(data)
            size += out.write(data)
    return {"size": size, "sha256": digest.hexdigest()}


def _compare(manifest: IO[bytes], written: IO[bytes], folder: Path, file: Path) -> None:
    """Check the written files against the manifest, line by line, and set the time of each file."""
    written.seek(0)
    for line in manifest:
        expected, row = json.loads(line), json.loads(written.readline() or b"{}")
        if any(row.get(key) != expected[key] for key in ("name", "size", "sha256")):
            raise _damaged(file, f"{expected['name']} does not match its manifest")
        # Ingest skips files whose size and time are unchanged.
        os.utime(folder / expected["name"], ns=(expected["mtime_ns"], expected["mtime_ns"]))
    if written.readline():
        raise _damaged(file, "its manifest lacks a file")
