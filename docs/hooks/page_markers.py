"""Fill the places in hand-written pages that are read off the code: fields, DICOM tables, drawings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from dicom_tables import (
    decoded_syntaxes,
    received_syntaxes,
    sent_classes,
    storage_classes,
    store_statuses,
)
from flowchart import draw_flowchart
from key_table import key_table

from pipeline.cli.config_table import models_below, table
from pipeline.methods import METHODS

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "methods"
_MARKER = re.compile(r"^<!-- ([a-z-]+)(?:: ([\w-]+))? -->$", re.MULTILINE)
_DRAWING = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(text: str, **_: Any) -> str:
    """Replace `<!-- name: argument -->` by what the code says, and Mermaid by a drawing.

    Raises:
        KeyError: no such marker. ValueError: a drawing uses more of Mermaid than is understood.
    """
    filled = _MARKER.sub(lambda match: MARKERS[match[1]](match[2] or ""), text)
    return _DRAWING.sub(lambda match: draw_flowchart(match[1]), filled)


def method_fields(name: str) -> str:
    """Return the recipes and the configuration table of a method."""
    recipes = ", ".join(
        f"`configs/methods/{path.name}`" for path in sorted(CONFIGS.glob("*.yaml")) if method_of(path) == name
    )
    tables = "\n".join(table(model) for model in models_below(METHODS[name]).values())
    return f"## Configuration\n\nRecipes: {recipes}.\n\n{tables.replace('## ', '### ')}"


def method_of(path: Path) -> str:
    """Return the method that a recipe is for: several may be for one, as `dae_lesions` is for `dae`."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return str(values["name"]) if "name" in values else method_of(path.parent / values["extends"])


MARKERS: dict[str, Callable[[str], str]] = {
    "fields": method_fields,
    "keys": lambda _: key_table(),
    "storage-classes": lambda _: storage_classes(),
    "received-syntaxes": lambda _: received_syntaxes(),
    "decoded-syntaxes": lambda _: decoded_syntaxes(),
    "sent-classes": lambda _: sent_classes(),
    "store-statuses": lambda _: store_statuses(),
}
