"""The tree's rules, read off the source: who may import whom, who may import what, how long things are."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
WRITTEN = [f for f in SOURCES if "versions" not in f.parts]  # migrations are generated, and never edited afterwards
LEVELS: dict[str, int] = {
    **dict.fromkeys(("types", "errors", "config", "durable"), 0),
    "dicom": 1,
    **dict.fromkeys(("data", "nn"), 2),
    "diffusion": 3,
    "corruption": 4,
    "methods": 5,
    **dict.fromkeys(("training", "detection"), 6),
    "evaluation": 7,
    "tracking": 8,
    "stages": 9,
    "review": 10,
    **dict.fromkeys(("cli", "flows"), 11),
}
MAY_IMPORT = {"prefect": {"flows"}, "mlflow": {"tracking", "flows"}, "click": {"cli"}}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager"}


def room_of(file: Path) -> str:
    """Return the room of a source file: `flows`, a package of `pipeline`, or one of its top modules."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return "flows" if parts[0] == "flows" else parts[1] if len(parts) > 1 else ""


def imports_of(file: Path) -> Iterator[str]:
    """Yield every absolute module name that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def functions_of(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def violations(file: Path) -> list[str]:
    """Return the imports of a file that go upwards or reach for a package that its room may not use."""
    room, found = room_of(file), []
    for name in imports_of(file):
        top, *rest = name.split(".")
        target = "flows" if top == "flows" else rest[0] if top == "pipeline" and rest else ""
        if target in LEVELS and room in LEVELS and LEVELS[target] > LEVELS[room]:
            found.append(f"{room} imports {name}, which lies above it")
        if top in MAY_IMPORT and room not in MAY_IMPORT[top]:
            found.append(f"{room} imports {top}")
    return found


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downwards_only(file: Path) -> None:
    assert violations(file) == []


def test_the_rule_would_catch_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "pipeline" / "dicom" / "planted.py"
    planted.parent.mkdir(parents=True)
    planted.write_text("from pipeline.data.store.pixel_store import PixelStore\nimport prefect\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(violations(planted)) == 2


def test_methods_do_not_import_each_other() -> None:
    shared = ("__init__", "base", "artefact", "sealed", "component")  # what methods are made, kept and nested with
    methods = [f for f in SOURCES if room_of(f) == "methods" and f.stem not in shared]
    names = {f"pipeline.methods.{f.stem}" for f in methods}
    assert methods
    assert not [(f.stem, n) for f in methods for n in imports_of(f) if n in names]


def test_files_are_short_and_named_for_their_job() -> None:
    too_long = {str(f.relative_to(ROOT)): n for f in SOURCES if (n := len(f.read_text().splitlines())) > 300}
    assert too_long == {}
    assert [f for f in SOURCES if f.stem in FORBIDDEN_NAMES] == []


def test_functions_are_short() -> None:
    lengths = sorted((n.end_lineno or 0) - n.lineno + 1 for f in WRITTEN for n in functions_of(f))
    assert statistics.median(lengths) <= 10
    assert lengths[int(0.95 * len(lengths))] <= 40
    assert lengths[-1] <= 60


def private_members(file: Path) -> set[int]:
    """Return the lines of the functions that live in private classes."""
    classes = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ClassDef) and n.name[0] == "_"]
    return {n.lineno for c in classes for n in ast.walk(c) if isinstance(n, ast.FunctionDef)}


def lacks_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a public function of more than a few lines says nothing of itself."""
    overrides = {"forward", "__init__", "predict", "load_context"}
    short = (node.end_lineno or 0) - node.lineno < 5
    return not (node.name.startswith("_") or node.name in overrides or short or ast.get_docstring(node))


def lacks_annotation(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether an argument or the return has no type."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return node.returns is None or any(a.annotation is None and a.arg not in ("self", "cls") for a in arguments)


def test_public_functions_are_documented_and_annotated() -> None:
    undocumented, unannotated = [], []
    for file in WRITTEN:
        private = private_members(file)
        for node in functions_of(file):
            where = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
            undocumented += [where] if lacks_docstring(node) and node.lineno not in private else []
            unannotated += [where] if lacks_annotation(node) else []
    assert undocumented == []
    assert unannotated == []


def test_no_pickle_eval_or_exec() -> None:
    found = []
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if calls & {"eval", "exec"} or any(n.split(".")[0] in ("pickle", "dill", "joblib") for n in imports_of(file)):
            found.append(str(file.relative_to(ROOT)))
    assert found == []


def test_pipeline_and_flows_are_ours() -> None:
    # Packages of these names exist on the public index: an install that shadows ours must not pass unseen.
    import flows
    import pipeline

    assert Path(pipeline.__file__).parent == ROOT / "pipeline"
    assert Path(flows.__file__).parent == ROOT / "flows"


def test_light_imports_stay_light() -> None:
    code = (
        "import sys, pipeline.types, pipeline.config, pipeline.errors, pipeline.cli, pipeline.dicom.decode.read\n"
        "import pipeline.stages.pacs.push\n"
        "heavy = {'torch', 'monai', 'mlflow', 'prefect'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


SLOW = {"monai", "mlflow", "accelerate"}  # MONAI alone takes 4.6 of the 5.5 CPU seconds that importing all of us took


def imports_at_once(file: Path) -> set[str]:
    """Return the packages that importing a file imports: those of its top level, outside `if TYPE_CHECKING`."""
    body = ast.parse(file.read_text()).body
    modules = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[0] for module in modules}


def test_slow_packages_are_imported_where_they_are_used() -> None:
    early = {str(file.relative_to(ROOT)) for file in SOURCES if imports_at_once(file) & SLOW}
    assert early == {"pipeline/tracking/served_model.py"}  # only MLflow reads it, and its base class is MLflow's


def test_nothing_names_where_it_was_made() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    words = ("/work" + "/", "/tmp" + "/w/", "." + "library")
    suspicious = [
        name
        for name in tracked
        if Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".ipynb", ".cfg"}
        and any(word in (ROOT / name).read_text(errors="replace") for word in words)
    ]
    assert suspicious == []
