"""Write equations as MathML while the site is built, so that no script has to be loaded to read them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(text: str, **_: Any) -> str:
    """Replace what pymdownx.arithmatex marked."""
    return _EQUATION.sub(_mathml, text)


def _mathml(match: re.Match[str]) -> str:
    tag, latex = match[1], html.unescape(match[2]).strip()
    display = "block" if tag == "div" else "inline"
    return f'<{tag} class="equation">{convert(latex, display=display)}</{tag}>'
