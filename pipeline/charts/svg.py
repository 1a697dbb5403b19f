"""Marks of a chart as SVG text, escaped and rounded to a tenth of a pixel.

Every mark carries its colours for white paper as attributes, so that a chart can be printed or opened by itself. Its
kind, after `c-`, is its class, by which the style sheet of a page gives it other colours. The colours are those of
Okabe and Ito (2008), darkened to at least 3 : 1 on white; what has a colour also has a dash, a shape or a fill of its
own.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLES: dict[str, dict[str, object]] = {
    "label": {"fill": "#3c3c3c", "font_size": 12},
    "strong": {"fill": "#111111", "font_size": 12, "font_weight": 600},
    "halo": {
        **{"fill": "#3c3c3c", "font_size": 11, "stroke": "#ffffff", "stroke_width": 6, "paint_order": "stroke"},
        "stroke_linejoin": "round",
    },
    "grid": {"stroke": "#e2e2e2", "stroke_width": 1},
    "axis": {"stroke": "#767676", "stroke_width": 1},
    "ideal": {"stroke": "#767676", "stroke_width": 1.3, "stroke_dasharray": "2 4", "fill": "none"},
    "band": {"fill": "#0072b2", "fill_opacity": 0.16, "stroke": "none"},
    "model": {"stroke": "#0072b2", "stroke_width": 2.4, "fill": "none"},
    "member-1": {"stroke": "#00795a", "stroke_width": 1.6, "fill": "none", "stroke_dasharray": "9 3"},
    "member-2": {"stroke": "#a8487f", "stroke_width": 1.6, "fill": "none", "stroke_dasharray": "3 2"},
    "member-3": {"stroke": "#a66300", "stroke_width": 1.6, "fill": "none", "stroke_dasharray": "9 2 2 2"},
    "best-control": {"stroke": "#4d4d4d", "stroke_width": 1.8, "fill": "none", "stroke_dasharray": "6 4"},
    "control": {"stroke": "#9a9a9a", "stroke_width": 1, "fill": "none"},
    "normal": {"stroke": "#0072b2", "stroke_width": 1.5, "fill": "#0072b2", "fill_opacity": 0.28},
    "abnormal": {
        **{"stroke": "#c44601", "stroke_width": 2, "stroke_dasharray": "5 2"},
        **{"fill": "#c44601", "fill_opacity": 0.12},
    },
    "threshold": {"stroke": "#111111", "stroke_width": 1.4, "stroke_dasharray": "4 3"},
    "point": {"fill": "#0072b2", "stroke": "none"},
    "range": {"stroke": "#0072b2", "stroke_width": 2},
    "spread": {"stroke": "#9a9a9a", "stroke_width": 7, "stroke_opacity": 0.55},
    "bar": {"fill": "#0072b2", "stroke": "none"},
    "bar-chosen": {"fill": "#c44601", "stroke": "none"},
    "box": {"fill": "#cfe3f1", "stroke": "#0072b2", "stroke_width": 1},
    "middle": {"stroke": "#111111", "stroke_width": 2.4},
    "held-back": {"fill": "#efefef", "stroke": "#767676", "stroke_width": 1, "stroke_dasharray": "2 2"},
}


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def element(name: str, *children: str, **attributes: object) -> str:
    """Return one element; children are SVG already, attributes are escaped, and `_` in their names becomes `-`."""
    values = {key.rstrip("_").replace("_", "-"): _value(value) for key, value in attributes.items()}
    head = "".join(f' {key}="{escape(value)}"' for key, value in values.items())
    return f"<{name}{head}>{''.join(children)}</{name}>" if children else f"<{name}{head}/>"


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) and abs(value) >= 3 else f"{value}"


def mark(shape: str, kind: str, tip: str = "", **place: float | str) -> str:
    """Return a shape of a kind (`STYLES`) at its place; a tip is shown by the browser under the pointer."""
    placed = {key: number(value) if isinstance(value, (int, float)) else value for key, value in place.items()}
    tips = [element("title", escape(tip))] if tip else []
    return element(shape, *tips, class_=f"c-{kind}", **{**STYLES[kind], **placed})


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight line."""
    return mark("line", kind, x1=x1, y1=y1, x2=x2, y2=y2)


def path(kind: str, points: Iterable[tuple[float, float]], closed: bool = False) -> str:
    """Return the line through points, or the area that they enclose."""
    steps = " L".join(f"{number(x)} {number(y)}" for x, y in points)
    return mark("path", kind, d=f"M{steps}{' Z' if closed else ''}")


def write(x: float, y: float, text: str, anchor: str = "start", kind: str = "label", turned: bool = False) -> str:
    """Return words at a place; turned ones read upwards."""
    turn = {"transform": f"rotate(-90 {number(x)} {number(y)})"} if turned else {}
    placed = {"x": number(x), "y": number(y), "text_anchor": anchor, **turn}
    return element("text", escape(text), class_=f"c-{kind}", **{**STYLES[kind], **placed})


def chart(key: str, title: str, about: str, size: tuple[float, float], parts: Iterable[str]) -> str:
    """Return the whole chart, as an image with a name and a description for a screen reader.

    Args:
        key: letters and digits, not used twice on a page.
        title: name of the chart.
        about: its content in words and numbers.
        size: width and height in pixels.
        parts: marks, from the back to the front.
    """
    width, height = size
    return element(
        "svg",
        element("title", escape(title), id=f"{key}-title"),
        element("desc", escape(about), id=f"{key}-about"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        class_="chart",
        role="img",
        aria_labelledby=f"{key}-title",
        aria_describedby=f"{key}-about",
        font_family="system-ui, 'DejaVu Sans', sans-serif",
    )
