"""Every page can be reached, every link of the sources resolves, and every method and command has its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import yaml

pytest.importorskip("mkdocs", reason="mkdocs (extra `docs`) is not installed")
pytest.importorskip("latex2mathml", reason="latex2mathml (extra `docs`) is not installed")

from code_reference import code_reference
from command_reference import command_reference, commands
from dicom_tables import received_syntaxes, sent_classes, storage_classes
from equations import on_page_content
from flowchart import draw_flowchart, parse_flowchart
from key_table import STATIC, bound_keys, key_table
from library_reference import library_pages
from page_markers import on_page_markdown
from site_pages import LEADERBOARDS, ROOT_PAGES, figures, gallery_page, leaderboard_page, without_links_outside

from pipeline.cli import group
from pipeline.dicom.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from pipeline.errors import RejectionCode
from pipeline.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROOT_FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
SOURCES = [*(ROOT / name for name in ROOT_FILES), *sorted(DOCS.rglob("*.md"))]
GENERATED = {
    *("reference/commands.md", "reference/configuration.md", "reference/codes.md", *ROOT_PAGES.values()),
    *(f"results/{board.name}" for board in LEADERBOARDS.glob("*.md")),
    *figures(),
    "results/gallery.md",
    *library_pages(ROOT / "pipeline"),
}


def links(text: str) -> Iterator[str]:
    """Yield the places that the links and pictures of Markdown lead to, code left out."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target.partition("#")[0])


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: str(f.relative_to(ROOT)))
def test_internal_links_resolve(source: Path) -> None:
    broken = []
    for target in links(source.read_text(encoding="utf-8")):
        file = (source.parent / target).resolve() if target else source
        inside = file.is_relative_to(DOCS) and str(file.relative_to(DOCS)) in GENERATED
        if not file.exists() and not inside:
            broken.append(target)
    assert broken == []


def pages_of(nav: list[Any]) -> Iterator[str]:
    """Yield the pages that a navigation names."""
    for item in nav:
        value = next(iter(item.values())) if isinstance(item, dict) else item
        if isinstance(value, list):
            yield from pages_of(value)
        else:
            yield value


def test_every_page_is_in_the_navigation() -> None:
    nav = set(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    written = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert written - nav == set()
    assert nav - written - GENERATED == {"reference/api/"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_with_its_equations_and_fields(name: str) -> None:
    page = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# `{name}`") and "$$" in page and "**When to use it.**" in page and "**Source.**" in page
    filled = on_page_markdown(page)
    fields = [field for field in METHODS[name].model_fields if f"| `{field}` |" not in filled]
    assert fields == [] and f"configs/methods/{name}.yaml" in filled


def test_every_command_is_in_the_reference() -> None:
    page = command_reference()
    root = click.Context(group, info_name="nightread")
    paths = [context.command_path for _, context in commands(group, root)]
    assert len(paths) > 30 and [path for path in paths if f"## `{path}`\n" not in page] == []


def test_every_rejection_code_is_in_the_reference() -> None:
    page = code_reference()
    assert [code for code in RejectionCode if f"| `{code.value}` |" not in page] == []


def test_the_conformance_tables_have_a_row_for_everything_that_is_negotiated() -> None:
    assert storage_classes().count("\n") == 1 + len(STORAGE_CLASSES)
    assert received_syntaxes().count("\n") == 1 + len(TRANSFER_SYNTAXES)
    assert "1.2.840.10008.5.1.4.1.1.66.4" in sent_classes()  # Segmentation Storage, PS3.6 table A-1


def test_every_key_that_is_bound_is_in_the_table() -> None:
    bound = re.findall(r"\bbind\((?!keys,|key,)", "".join(f.read_text(encoding="utf-8") for f in STATIC.glob("*.js")))
    keys = list(bound_keys())
    assert len(keys) == len(bound) + 4 and len(bound) > 30  # the four outcomes are bound in a loop
    assert {"c", "h", "Enter", "?"} <= {key for _, several, _ in keys for key in several}
    assert key_table().count("\n") > 35 and "| `[` `]` |" in key_table()


def test_a_leaderboard_begins_with_the_command_that_wrote_it() -> None:
    page = leaderboard_page(LEADERBOARDS / "nih.md")
    assert "\n# NIH chest radiographs\n" in page and page.index(
        "nightread benchmark configs/benchmarks/nih.yaml"
    ) < page.index("| ")
    assert page.count("\n# ") == 1
    samplers = leaderboard_page(LEADERBOARDS / "mednist-samplers.md")
    assert samplers.index("nightread generate compare configs/tasks/mednist-samplers.yaml") < samplers.index("| ")


def test_the_gallery_shows_every_picture_that_was_written(tmp_path: Path) -> None:
    assert "](../figures/" not in gallery_page(tmp_path)
    (tmp_path / "tasks").mkdir()
    for name in ("pca.png", "kid.png", "tasks/walk-sheet.png", "tasks/denoise-sheet.png", "tasks/denoise-sweep.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "leaderboard.md").write_text("# phantom-samplers\n\n120 images of each\n\n| sampler |\n")
    for kind in ("walk", "denoise"):
        (tmp_path / "tasks" / f"{kind}.md").write_text(f"| {kind} |\n")
    page = gallery_page(tmp_path)
    pictures = re.findall(r"\]\(\.\./figures/gallery/([^)]+)\)", page)
    tasks = ["tasks/denoise-sheet.png", "tasks/denoise-sweep.png", "tasks/walk-sheet.png"]
    assert sorted(pictures) == ["kid.png", "pca.png", *tasks]
    assert page.index("| sampler |") < page.index("| walk |") < page.index("| denoise |")


def test_links_that_leave_the_site_become_text() -> None:
    assert without_links_outside("[a](b/c.py) [d](https://e)") == "a [d](https://e)"


def test_equations_become_mathml() -> None:
    html = on_page_content(r'<p><span class="arithmatex">\(x &lt; \hat x\)</span></p>')
    assert html.startswith('<p><span class="equation"><math') and html.endswith("</math></span></p>")
    assert "<mo>&#x0003C;</mo>" in html and "arithmatex" not in html


def test_a_flowchart_is_laid_out_by_the_longest_way() -> None:
    chart = parse_flowchart("flowchart TD\n a[A] --> b[B]\n b --> c[(C)]\n a -. late .-> c")
    draw_flowchart("flowchart TD\n a[A] --> b[B]")
    assert chart.arrows == [("a", "b", None), ("b", "c", None), ("a", "c", "late")]
    assert chart.nodes["c"].kind == "store"
    svg = draw_flowchart("flowchart TD\n a[A] --> b[B & D]\n a --> c[C]\n b --> c")
    assert svg.count("<rect") == 3 and svg.count("marker-end") == 3 and "B &amp; D" in svg
    heights = [float(y) for y in re.findall(r'<rect [^>]*? y="(\d+)"', svg)]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("source", ["graph LR\n a --> b", "flowchart TD\n a ==> b"])
def test_a_drawing_that_is_not_understood_is_refused(source: str) -> None:
    with pytest.raises(ValueError):
        parse_flowchart(source)
