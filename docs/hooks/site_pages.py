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
GALLERY = FIGURES / "gallery"  # written by `make gallery`
PICTURES = {".png", ".webp"}
ROOT_PAGES = {"CONTRIBUTING.md": "reference/contributing.md", "CHANGELOG.md": "reference/changelog.md"}
TITLES = {
    "lgg": "LGG brain MR",
    "lgg-folds": "LGG, every patient held out once",
    "lgg-families": "LGG, the three families, every patient held out once",
    "lgg-taught": "LGG, taught by unlabelled slices",
    "lgg-ablation": "LGG, what bought what",
    "lgg-repair": "LGG, the three families repairing",
    "lgg-textbook-repair": "LGG, the textbook methods repairing",
    "lgg-repair-rest": "LGG, codes and coarse noise",
    "lgg-family": "LGG, the rest of the family",
    "lgg-samplers-as-detectors": "LGG, samplers as detectors",
    "lgg-samplers": "LGG, new images",
    "nih": "NIH chest radiographs",
    "nih-features": "NIH, features between images alike in noise",
    "nih-painting": "NIH, lesions painted within the lungs",
    "pneumonia": "PneumoniaMNIST",
    "pneumonia-features": "PneumoniaMNIST, features",
    "pneumonia-samplers": "PneumoniaMNIST, new images",
    "mednist-samplers": "MedNIST, new images",
}
WHY_OPENED = {  # what was given to --open-test when the leaderboard was written; the others never opened test
    "lgg": "three seeds of the best three",
    "lgg-family": "where the rest of the family falls",
    "nih": "first table",
    "nih-features": "features between images alike in noise",
    "pneumonia": "first table",
    "pneumonia-features": "Gaussians of features",
}
OTHERS = {
    "walk": "Walk from one image to another",
    "traverse": "One dimension of a code at a time",
    "denoise": "Remove noise",
    "super-resolve": "Enlarge small images",
    "inpaint": "Fill holes",
    "repaint": "Fill holes with a model that learned no task",
    "outpaint": "Continue an image beyond its border",
    "restore": "Undo blur, noise and missing k-space",
    "retrieve": "Find similar images",
    "edit": "Change one attribute",
    "purify": "Purify attacked images",
    "out-of-domain": "Refuse strangers",
    "synthesise-training": "Teach with synthetic images",
    "text-to-image": "Draw from words",
    "translate": "Make one scanner's images into another's",
    "tokenise-signal": "Write speech in units",
    "classify-signal": "Name what an ECG shows",
}
_GALLERY = """---
hide: [navigation, toc]
---
# Gallery of generative tasks

Every sampler drew ten images from nothing after about a minute of training on invented patients, at 32 px: the pictures
show what kind of images a method draws, not what it can reach. Not for diagnosis; no picture is of a
patient. How to draw your own: [Draw new images](../how-to/generate.md); what the numbers say:
[Generated images](../concepts/generated-images.md). Written by this command, unedited:

```
make gallery
```
"""
_BOARD = """---
hide: [navigation, toc]
---
# {title}

Written by {these}, unedited; [in words](index.md).

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
    for uri, figure in figures().items():
        files.append(File.generated(config, uri, abs_src_path=str(figure)))
    _enter_library(config.nav or [], sorted(library))
    return files


def figures() -> dict[str, Path]:
    """Return the pictures of the site by their place in it."""
    pictures = sorted(file for file in FIGURES.rglob("*") if file.suffix in PICTURES)
    return {f"figures/{file.relative_to(FIGURES).as_posix()}": file for file in pictures}


def _written_pages() -> Iterator[tuple[str, str]]:
    yield "reference/commands.md", command_reference()
    yield "reference/configuration.md", document()
    yield "reference/codes.md", code_reference()
    for name, uri in ROOT_PAGES.items():
        yield uri, without_links_outside((ROOT / name).read_text(encoding="utf-8"))
    yield "results/gallery.md", gallery_page(GALLERY)
    for board in sorted(LEADERBOARDS.glob("*.md")):
        yield f"results/{board.name}", leaderboard_page(board)


def leaderboard_page(board: Path) -> str:
    """Return a leaderboard as a page: the command that makes it, then the tables as the benchmark wrote them."""
    text = board.read_text(encoding="utf-8")
    title, _, rest = text.partition("\n")
    later = re.sub(r"^# (.+)$", r"## \1", rest, flags=re.MULTILINE)
    command = _command(board.stem, text)
    these = "these commands, whose rows share a table" if "\n" in command else "this command"
    parts = {"title": TITLES[board.stem], "these": these, "command": command, "first": title.lstrip("# ")}
    return _BOARD.format(later=later, **parts)


def _command(name: str, text: str) -> str:
    """Return the command of a benchmark; a comparison of samplers ends with its own."""
    if not (ROOT / "configs" / "benchmarks" / f"{name}.yaml").is_file():
        return text.rsplit("```", 2)[1].strip()
    why = f' --open-test "{WHY_OPENED[name]}"' if name in WHY_OPENED else ""
    return f"nightread benchmark configs/benchmarks/{name}.yaml{why}"


def gallery_page(folder: Path) -> str:
    """Return the page of the generative tasks on phantoms: a picture of each sampler, the table, the other tasks."""
    if not (folder / "leaderboard.md").is_file():
        return f"{_GALLERY}\nNothing is drawn yet: run the command."
    board = (folder / "leaderboard.md").read_text(encoding="utf-8").partition("\n")[2].strip()
    names = sorted(file.stem for file in folder.glob("*.png") if file.stem != "kid")
    parts = [f"**{name}**\n\n![Ten images of {name}](../figures/gallery/{name}.png){{ width=760 }}" for name in names]
    curves = "![KID against CPU seconds per image](../figures/gallery/kid.png){ width=760 }"
    table = f'## The judge\n\n<div class="leaderboard"></div>\n\n{board}'
    return "\n\n".join([_GALLERY, "## Samplers", *parts, table, curves, *_other_tasks(folder / "tasks")])


def _other_tasks(folder: Path) -> Iterator[str]:
    """Yield the sections of the tasks that begin with an image."""
    for kind, title in OTHERS.items():
        if (folder / f"{kind}.md").is_file():
            yield f"## {title}"
            for picture in sorted(folder.glob(f"{kind}-*.png")):
                yield f"![{title}](../figures/gallery/tasks/{picture.name}){{ width=760 }}"
            yield (folder / f"{kind}.md").read_text(encoding="utf-8").strip()


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
