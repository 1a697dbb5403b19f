"""Draw a Mermaid flowchart as SVG: the small part of its language that the documents use, from top to bottom.

Understood: `flowchart TD`, boxes `a[text]`, stores `a[(text)]`, people `a([text])`, arrows `a --> b`, and dotted ones
with a word, `a -. word .-> b`; `<br>` breaks a line. Mermaid itself is a script of 3 MB that its usual
plug-ins load from elsewhere when a page is read.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

LINE, PAD, GAP_X, GAP_Y, LETTER = 19, 12, 34, 46, 7.3
_NODE = r"(\w+)(?:(\[\(|\(\[|\[)\"?(.*?)\"?(?:\)\]|\]\)|\]))?"
_EDGE = re.compile(rf"^{_NODE}\s*(?:(-->)|-\.\s*(.*?)\s*\.->)\s*{_NODE}$")
_KINDS = {"[": "box", "[(": "store", "([": "people"}


@dataclass
class Node:
    """One box: its lines, its shape, and its place once it is laid out."""

    lines: list[str]
    kind: str = "box"
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """Pixels that the longest line needs."""
        return max(len(line) for line in self.lines) * LETTER + 2 * PAD

    @property
    def height(self) -> float:
        """Pixels that the lines need."""
        return len(self.lines) * LINE + 2 * PAD - 4


@dataclass
class Flowchart:
    """Boxes by name and the arrows between them: from, to, and the word of a dotted one (None: solid)."""

    nodes: dict[str, Node] = field(default_factory=dict)
    arrows: list[tuple[str, str, str | None]] = field(default_factory=list)


def parse_flowchart(source: str) -> Flowchart:
    """Read a flowchart.

    Raises:
        ValueError: a line is not one of those understood.
    """
    head, *lines = [line.strip() for line in source.strip().splitlines() if line.strip()]
    if head != "flowchart TD":
        raise ValueError(f"A flowchart begins with 'flowchart TD', not with {head!r}.")
    chart = Flowchart()
    for line in lines:
        match = _EDGE.match(line)
        if match is None:
            raise ValueError(f"This line is not an arrow between two boxes: {line!r}.")
        first, last = _enter(chart, *match.group(1, 2, 3)), _enter(chart, *match.group(6, 7, 8))
        chart.arrows.append((first, last, None if match[4] else match[5]))
    return chart


def _enter(chart: Flowchart, name: str, bracket: str | None, text: str | None) -> str:
    if bracket is not None:
        chart.nodes[name] = Node([part.strip() for part in (text or name).split("<br>")], _KINDS[bracket])
    return name


def draw_flowchart(source: str) -> str:
    """Return the SVG of a Mermaid flowchart; colours are those of the page."""
    chart = parse_flowchart(source)
    width, height = _place(chart)
    arrows = "".join(_arrow(chart.nodes[a], chart.nodes[b], word) for a, b, word in chart.arrows)
    boxes = "".join(_box(node) for node in chart.nodes.values())
    marker = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px"'
    return f'<svg class="flowchart" role="img" {size}><defs>{marker}</defs>{arrows}{boxes}</svg>'


def _place(chart: Flowchart) -> tuple[float, float]:
    """Give every box its layer (the longest way to it) and its place; return the drawing's size."""
    for _ in chart.nodes:
        for first, last, _word in chart.arrows:
            chart.nodes[last].layer = max(chart.nodes[last].layer, chart.nodes[first].layer + 1)
    layers: dict[int, list[Node]] = {}
    for node in chart.nodes.values():
        layers.setdefault(node.layer, []).append(node)
    widths = {i: sum(n.width for n in row) + GAP_X * (len(row) - 1) for i, row in layers.items()}
    width, y = max(widths.values()) + 2, 1.0
    for i in sorted(layers):
        x, tallest = (width - widths[i]) / 2, max(node.height for node in layers[i])
        for node in layers[i]:
            node.x, node.y = x, y + (tallest - node.height) / 2
            x += node.width + GAP_X
        y += tallest + GAP_Y
    return width, y - GAP_Y + 2


def _arrow(first: Node, last: Node, word: str | None) -> str:
    x1, y1 = first.x + first.width / 2, first.y + first.height
    x2, y2 = last.x + last.width / 2, last.y
    if first.layer == last.layer:
        x1, y1, x2, y2 = first.x + first.width, first.y + first.height / 2, last.x, last.y + last.height / 2
    turn = max(y1, y2 - GAP_Y) if first.layer < last.layer else y1  # past several layers: straight down first
    bend = (y2 - turn) / 2
    path = f"M{x1:.0f} {y1:.0f} V{turn:.0f} C{x1:.0f} {turn + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    style = "arrow" if word is None else "arrow dotted"
    text = f'<text class="word" x="{(x1 + x2) / 2:.0f}" y="{(y1 + y2) / 2 + 4:.0f}">{html.escape(word or "")}</text>'
    return f'<path class="{style}" d="{path}" marker-end="url(#tip)"/>{text if word else ""}'


def _box(node: Node) -> str:
    middle = node.x + node.width / 2
    lines = "".join(
        f'<text x="{middle:.0f}" y="{node.y + PAD + 11 + LINE * i:.0f}">{html.escape(html.unescape(line))}</text>'
        for i, line in enumerate(node.lines)
    )
    round_by = {"box": 5, "store": 14, "people": node.height / 2}[node.kind]
    shape = f'x="{node.x:.0f}" y="{node.y:.0f}" width="{node.width:.0f}" height="{node.height:.0f}" rx="{round_by:.0f}"'
    return f'<rect class="{node.kind}" {shape}/>{lines}'
