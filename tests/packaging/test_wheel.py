"""The built wheel works in a new environment without the source tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: files left in the checkout's own build folder must not get in."""
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source") / "nightread"
    source.mkdir()
    for name in ("pipeline", "flows", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    return next(out.glob("nightread-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; its dependencies are borrowed from this one, our source tree is not."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    site = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([interpreter, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    return interpreter


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command line away from the source tree."""
    return subprocess.run([python.parent / "nightread", *arguments], capture_output=True, text=True, cwd=cwd)


def test_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == {"pipeline", "flows"}
    web = ROOT / "pipeline" / "review" / "web"
    files = [file for file in web.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert {str(file.relative_to(ROOT)) for file in files} <= set(names)
    data = {name.split("/data/", 1)[1] for name in names if ".data/data/" in name}
    configs = {f"share/nightread/{file.relative_to(ROOT)}" for file in (ROOT / "configs").rglob("*.yaml")}
    assert configs <= data
    assert all(name.startswith("share/nightread/configs/") for name in data)


def test_the_installed_command_finds_what_came_with_it(python: Path, tmp_path: Path) -> None:
    done = run(python, "-w", "ws", "doctor", "--json", cwd=tmp_path)
    routes = next(row for row in json.loads(done.stdout) if row["check"] == "routes")
    assert routes["ok"]
    assert str(python.parents[1] / "share" / "nightread") in routes["detail"]
    # The configuration is found; there is only nothing to train on.
    done = run(python, "-w", "ws", "train", "configs/runs/demo-mr.yaml", cwd=tmp_path)
    assert done.returncode == 9, done.stderr
    assert "no normal scans to train on for the route 'phantom-mr'" in done.stderr


def test_the_installed_package_is_the_wheels(python: Path, tmp_path: Path) -> None:
    code = "import pipeline, flows; print(pipeline.__file__); print(flows.__file__)"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert all(Path(line).is_relative_to(python.parents[1]) for line in out)


def test_help_answers_at_once(python: Path, tmp_path: Path) -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        assert "Usage: nightread" in run(python, "--help", cwd=tmp_path).stdout
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.4  # processor time: other load on the machine does not count


def test_every_command_has_help_with_an_example(python: Path, tmp_path: Path) -> None:
    listed = run(python, "--help", cwd=tmp_path).stdout.split("Commands:")[1]
    commands = [
        line.split()[0] for line in listed.splitlines() if line.strip() and line.startswith("  ") and line[2] != " "
    ]
    assert {"ingest", "wrap", "train", "score", "evaluate", "flagged", "runs", "doctor"} <= set(commands)
    for command in sorted(set(commands) - {"labels", "identity", "benchmark"}):
        out = run(python, command, "--help", cwd=tmp_path)
        assert out.returncode == 0
        assert "Example" in out.stdout, command


def test_the_installed_command_ingests(python: Path, tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    done = run(python, "-w", "ws", "ingest", "--json", str(get_testdata_file("CT_small.dcm")), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"added": 1' in done.stdout


def test_errors_are_one_sentence_with_an_exit_code(python: Path, tmp_path: Path) -> None:
    done = run(python, "-w", "ws", "train", "missing.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Cannot read the configuration missing.yaml")
    assert "Traceback" not in done.stderr
