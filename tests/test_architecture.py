"""The tree's rules, read from the source: permitted imports between rooms, permitted packages, and lengths.

`python tests/test_architecture.py` prints files, arrows and circles.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
WRITTEN = [f for f in SOURCES if "versions" not in f.parts]  # migrations are generated, and never edited afterwards
# From the bottom to the top; rooms of one tuple lie side by side. A room that has sub-rooms is listed by them.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("types", "errors", "config", "durable", "nested", "progress", "sealed_folder", "invalid_values", "wall_clock"),
    ("charts",),
    ("dicom.decode",),
    ("dicom.identity", "dicom.intake"),
    ("dicom.wrap", "dicom.export", "dicom.network"),
    ("dicom.phantom",),
    ("nn", "data.migrations", "data.store"),
    ("data.catalogue",),
    ("data.labels", "data.ingest"),
    ("data.sets",),
    ("data.images",),
    ("diffusion",),
    ("corruption",),
    ("methods",),
    ("training", "detection", "retrieval"),
    ("evaluation", "monitoring"),
    ("tracking",),
    ("stages.run",),
    ("stages.detect", "stages.speed"),
    ("stages.auto", "stages.choose", "stages.generate", "stages.operations", "stages.watch"),
    ("stages.audit",),
    ("stages.benchmark", "stages.pacs", "stages.up"),
    ("stages.reliability",),
    ("review",),
    ("review.web",),
    ("cli", "flows"),
)
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
SHARED_NAMES = {
    **dict.fromkeys(("benchmark", "pull"), "the command of the flow or stage"),
    **dict.fromkeys(("evaluate", "gallery", "generate", "ingest", "score", "train"), "the flow around the stage"),
    "demo": "the flow that reads the archive which the other file makes",
    "prospective": "the stage that computes the rates of the other file",
}
MAY_IMPORT = {"prefect": {"flows"}, "mlflow": {"tracking", "flows"}, "click": {"cli"}}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "manager"}


def room_of(name: str) -> str:
    """Return the room of a dotted name, as `LAYERS` lists it; "" for what is not ours, or no room."""
    top, *parts = name.split(".")
    if top == "flows":
        return "flows"
    places = (".".join(parts[:depth]) for depth in (2, 1)) if top == "pipeline" else ()
    return next((place for place in places if place in LEVELS), "")


def module_of(file: Path) -> str:
    """Return the dotted name of a source file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[str]:
    """Yield every absolute module name that a file imports, wherever in the file; `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions_of(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def violations(file: Path) -> list[str]:
    """Return the imports of a file that go upwards or reach for a package that its room may not use."""
    room, errors = room_of(module_of(file)), []
    for name in imports_of(file):
        top, target = name.split(".")[0], room_of(name)
        if room and target and LEVELS[target] > LEVELS[room]:
            errors.append(f"{room} imports {name}, which lies above it")
        if top in MAY_IMPORT and room.split(".")[0] not in MAY_IMPORT[top]:
            errors.append(f"{room} imports {top}")
    return errors


def file_arrows(sources: list[Path]) -> set[tuple[str, str]]:
    """Return (importer, imported) for every two of our files of which one imports the other."""
    ours = {module_of(file) for file in sources}
    arrows = set()
    for file in sources:
        for name in imports_of(file):
            target = name if name in ours else name.rpartition(".")[0]
            arrows |= {(module_of(file), target)} if target in ours and target != module_of(file) else set()
    return arrows


def room_arrows(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the arrows between rooms that arrows between files make."""
    return {pair for a, b in arrows if all(pair := (room_of(a), room_of(b))) and pair[0] != pair[1]}


def circles(arrows: set[tuple[str, str]]) -> list[set[str]]:
    """Return the groups of nodes that reach each other (strongly connected components of two or more)."""
    graph = networkx.DiGraph(sorted(arrows))
    return [group for group in networkx.strongly_connected_components(graph) if len(group) > 1]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downwards_only(file: Path) -> None:
    assert violations(file) == []


def test_the_rule_would_catch_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "pipeline" / "dicom" / "intake" / "planted.py"
    planted.parent.mkdir(parents=True)
    planted.write_text(
        "from pipeline.data.store.pixel_store import PixelStore\n"
        "from pipeline.dicom.wrap import wrap\n"
        "from pipeline.dicom.decode import read\n"
        "import prefect\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(violations(planted)) == 3


def test_every_source_has_a_room() -> None:
    packages = {"pipeline", "pipeline.dicom", "pipeline.data", "pipeline.stages"}
    assert {name for file in SOURCES if not room_of(name := module_of(file))} == packages


def test_there_is_no_circle_between_rooms_or_files() -> None:
    arrows = file_arrows(SOURCES)
    assert circles(room_arrows(arrows)) == []
    assert circles(arrows) == []


def test_a_circle_would_be_seen() -> None:
    arrows = {("pipeline.data.sets.a", "pipeline.data.images.b"), ("pipeline.data.images.c", "pipeline.data.sets.a")}
    assert circles(arrows) == []
    assert circles(room_arrows(arrows)) == [{"data.sets", "data.images"}]


def test_methods_do_not_import_each_other() -> None:
    # Modules that all methods share.
    shared = (
        "__init__", "base", "capabilities", "artefact", "stored_model", "component", "composite", "frozen_features",
        "direct_restorer", "inverted_gan", "method_registry", "variational",
    )  # fmt: skip
    methods = [f for f in SOURCES if room_of(module_of(f)) == "methods" and f.stem not in shared]
    names = {f"pipeline.methods.{f.stem}" for f in methods}
    assert methods
    ours = [(f.stem, n) for f in methods for n in imports_of(f) if not names.isdisjoint((n, n.rpartition(".")[0]))]
    assert ours == []


def test_files_are_short_and_named_for_their_job() -> None:
    too_long = {str(f.relative_to(ROOT)): n for f in SOURCES if (n := len(f.read_text().splitlines())) > 300}
    assert too_long == {}
    assert [f for f in SOURCES if f.stem in FORBIDDEN_NAMES] == []


def test_a_file_name_means_one_thing() -> None:
    names = Counter(f.stem for f in WRITTEN if f.stem not in ("__init__", "config"))
    assert {name for name, count in names.items() if count > 1} == set(SHARED_NAMES)


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
    offenders = []
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if calls & {"eval", "exec"} or any(n.split(".")[0] in ("pickle", "dill", "joblib") for n in imports_of(file)):
            offenders.append(str(file.relative_to(ROOT)))
    assert offenders == []


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


def test_no_room_exports_a_name_that_one_of_its_files_has() -> None:
    """The first import of such a file puts the module in place of what the room exports from another file."""
    hidden = [
        f"{room.relative_to(ROOT)}: {name.name}"
        for room in ROOT.glob("pipeline/**/__init__.py")
        if "__all__" in room.read_text()
        for node in ast.parse(room.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if (room.parent / f"{name.name}.py").is_file() and (node.module or "").split(".")[-1] != name.name
    ]
    assert hidden == []


def test_revisions_of_the_catalogue_are_one_line() -> None:
    """Two that were written at the same time, each after the same one, would let no catalogue open."""
    from pipeline.data.migrations import HEAD

    files = sorted((ROOT / "pipeline/data/migrations/versions").glob("rev_*.py"))
    values = [dict(re.findall(r'^(\w*revision) = "?([\w.]+)"?$', file.read_text(), re.MULTILINE)) for file in files]
    revisions = [one["revision"] for one in values]
    assert [one["down_revision"] for one in values] == ["None", *revisions[:-1]]
    assert revisions[-1] == HEAD


def print_counts() -> None:
    """Print files and arrows of each room with sub-rooms, the arrows between rooms, and every circle."""
    arrows = file_arrows(SOURCES)
    for top in ("dicom", "data", "stages", "review"):
        within = {pair for pair in arrows if all(name.startswith(f"pipeline.{top}.") for name in pair)}
        files = [file for file in SOURCES if module_of(file).startswith(f"pipeline.{top}.") and file.stem != "__init__"]
        print(f"{top:7} {len(files):4} files {len(within):4} arrows, {len(room_arrows(within)):3} between sub-rooms")
    upward = sorted({line for file in SOURCES for line in violations(file)})
    print(f"all     {len(SOURCES):4} files {len(arrows):4} arrows, {len(room_arrows(arrows)):3} between rooms")
    print(f"{len(upward)} upward or forbidden", *upward, sep="\n  ")
    for title, edges in (("rooms", room_arrows(arrows)), ("files", arrows)):
        groups = circles(edges)
        print(f"{len(groups)} circles of {title}", *(", ".join(sorted(group)) for group in groups), sep="\n  ")


if __name__ == "__main__":
    print_counts()
