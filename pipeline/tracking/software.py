"""The software behind a run: commit of the checkout, and versions of what results depend on."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


def git_state(folder: Path = SOURCE) -> dict[str, str]:
    """Return commit and cleanliness of the running checkout, or "not a checkout".

    An installed package may be inside another repository, whose commit would be meaningless and is not used.
    """
    try:
        ours = _git(folder, "ls-files", "--error-unmatch", "pipeline/tracking/software.py") != ""
        commit = _git(folder, "rev-parse", "HEAD") if ours else ""
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no")) if commit else False
    except (OSError, subprocess.TimeoutExpired):
        commit, dirty = "", False
    return {"git.commit": commit or "not a checkout", "git.dirty": str(dirty).lower() if commit else "unknown"}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Return the versions with the most influence on results."""
    names = ("nightread", "torch", "monai", "pydicom", "scikit-learn", "mlflow", "prefect")
    versions_by_tag = {}
    for name in names:
        try:
            versions_by_tag[f"version.{name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions_by_tag[f"version.{name}"] = "not installed"
    return versions_by_tag
