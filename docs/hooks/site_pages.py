"""Add the pages that are generated: results, commands, configuration, codes, library, and the files of the root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from code_reference import code_reference
from command_reference import command_reference
from library_reference import library_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from pipeline.cli.config_table import document

ROOT = Path(__file__).resolve().parents[2]
LEADERBOARDS = ROOT / "notebooks" / "leaderboards"
FIGURES = ROOT / "notebooks" / "figures"
ROOT_PAGES = {"CONTRIBUTING.md": "reference/contributing.md", "CHANGELOG.md": "reference/changelog.md"}
TITLES = {
    "lgg": "LGG brain MR",
    "lgg-folds": "LGG, every patient held out once",
    "lgg-families": "LGG, the three families, every patient held out once",
    "lgg-taught": "LGG, taught by unlabelled slices",
    "lgg-ablation": "LGG, what bought what",
    "lgg-repair": "LGG, the three families repairing",
    "lgg-textbook-repair": "LGG, the textbook methods repairing",
    "lgg-family": "LGG, the rest of the family",
    "nih": "NIH chest radiographs",
    "nih-features": "NIH, features between images alike in noise",
    "pneumonia": "PneumoniaMNIST",
    "pneumonia-features": "PneumoniaMNIST, features",
}
WHY_OPENED = {  # what was given to --open-test when the leaderboard was written; the others never opened test
    "lgg": "three seeds of the best three",
    "lgg-family": "where the rest of the family falls",
    "nih": "first table",
    "nih-features": "features between images alike in noise",
    "pneumonia": "first table",
    "pneumonia-features": "Gaussians of features",
}
_BOARD = """---
hide: [navigation, toc]
---
# {title}

Written by this command, unedited; [in words](index.md).

```
{command}
```

<div class="leaderboard"></div>

## {first}
{later}"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add generated pages and the figures, and put the library's pages into the navigation."""
    library = library_pages(ROOT / "pipeline")
    for uri, text in {**dict(_written_pages()), **library}.items():
        files.append(File.generated(config, uri, content=text))
    for figure in sorted(FIGURES.iterdir()):
        files.append(File.generated(config, f"figures/{figure.name}", abs_src_path=str(figure)))
    _enter_library(config.nav or [], sorted(library))
    return files


def _written_pages() -> Iterator[tuple[str, str]]:
    yield "reference/commands.md", command_reference()
    yield "reference/configuration.md", document()
    yield "reference/codes.md", code_reference()
    for name, uri in ROOT_PAGES.items():
        yield uri, without_links_outside((ROOT / name).read_text(encoding="utf-8"))
    for board in sorted(LEADERBOARDS.glob("*.md")):
        yield f"results/{board.name}", leaderboard_page(board)


def leaderboard_page(board: Path) -> str:
    """Return a leaderboard as a page: the command that makes it, then the tables as the benchmark wrote them."""
    text = board.read_text(encoding="utf-8")
    title, _, rest = text.partition("\n")
    later = re.sub(r"^# (.+)$", r"## \1", rest, flags=re.MULTILINE)
    why = f' --open-test "{WHY_OPENED[board.stem]}"' if board.stem in WHY_OPENED else ""
    command = f"nightread benchmark configs/benchmarks/{board.stem}.yaml{why}"
    return _BOARD.format(title=TITLES[board.stem], command=command, first=title.lstrip("# "), later=later)


def without_links_outside(text: str) -> str:
    """Return Markdown whose relative links, which lead out of the site, are plain text."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


def _enter_library(nav: list[Any], pages: list[str]) -> None:
    """Replace the one place-holder of the navigation by the library's pages."""
    for section in nav:
        for items in section.values():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and item.get("Library") == "reference/api/":
                    item["Library"] = pages
