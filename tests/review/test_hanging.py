"""Hangings: which layout and window the scans of a route open with, and what a file of them may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import ReviewPolicy, Settings
from pipeline.data.sets.routes import load_routes
from pipeline.errors import ConfigError
from pipeline.review.hanging import Hanging, load_hangings


def test_the_shipped_list_names_routes_that_exist() -> None:
    shipped, routes = load_hangings(ReviewPolicy()), load_routes(Settings().routes_folder)
    assert set(shipped.routes) <= {route.name for route in routes}
    assert shipped.of("ct-head") == Hanging(layout="1x2", window=(40, 80), beside=("earlier",))
    assert shipped.of("mednist") == Hanging()


def test_a_site_has_its_own_list(tmp_path: Path) -> None:
    file = tmp_path / "hanging.yaml"
    file.write_text("default: {layout: 2x2}\nroutes: {cxr: {window: [0.5, 1]}}\n")
    own = load_hangings(ReviewPolicy(hanging=file))
    assert (own.of("ct-head").layout, own.of("cxr").layout, own.of("cxr").window) == ("2x2", "1x1", (0.5, 1.0))


@pytest.mark.parametrize(
    "text", ["routes: {a: {layout: 3x3}}", "default: {window: [40, 0]}", "default: {beside: [later]}"]
)
def test_what_cannot_hang_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hanging.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_hangings(ReviewPolicy(hanging=file))
