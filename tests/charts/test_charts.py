"""Charts are measured: what lies where, read from the SVG as numbers."""

from __future__ import annotations

import re
from datetime import date, timedelta
from itertools import combinations
from xml.etree import ElementTree

import pytest

from pipeline.charts import forest_chart, rate_chart, roc_chart, score_chart, trend_chart
from pipeline.charts.axes import Scale, log_ticks, round_ticks
from pipeline.charts.forest_chart import ForestData, ForestRow
from pipeline.charts.rate_chart import PValueData, RateData, RatePoint
from pipeline.charts.roc_chart import RocBand, RocCurve, RocData
from pipeline.charts.score_chart import ScoreData, ScoreThreshold
from pipeline.charts.svg import STYLES
from pipeline.charts.text_size import STRONG, break_lines, width_of
from pipeline.charts.trend_chart import DayBox, DayBoxes, DayCounts

SVG = "{http://www.w3.org/2000/svg}"
DAYS = tuple(date(2026, 3, 1) + timedelta(days=day) for day in range(10))

ROC = RocData(
    title="slices",
    curves=(
        RocCurve(name="ae", part="model", area="0.90", fpr=(0, 0.25, 1), tpr=(0, 0.75, 1)),
        RocCurve(name="size & <b>", part="best control", area="0.60", fpr=(0, 1), tpr=(0, 1)),
        RocCurve(name="noise", part="control", area="0.50", fpr=(0, 1), tpr=(0, 1)),
    ),
    band=RocBand(fpr=(0, 1), low=(0.1, 1), high=(0.5, 1)),
)
SCORES = ScoreData(
    edges=(0, 1, 2),
    normal=(0.75, 0.25),
    abnormal=(0, 1),
    normals=4,
    abnormals=2,
    thresholds=(ScoreThreshold(value=1.5, fpr=0.05), ScoreThreshold(value=1.0, fpr=0.1)),
)
RATES = RateData(
    points=(
        RatePoint(promised=0.05, spread=(0.02, 0.08), realised=0.1, low=0.04, high=0.2),
        RatePoint(promised=0.1, realised=0.1),
    ),
    normals=40,
    patients=40,
)
P_VALUES = PValueData(
    expected=(0.01, 0.1, 1), observed=(0.005, 0.1, 1), low=(0.006, 0.05, 0.8), high=(0.1, 0.2, 1), normals=99
)
FOREST = ForestData(
    metric="AUROC",
    rows=(
        ForestRow(attribute="sex", name="F", count=20, value=0.8, low=0.6, high=0.9),
        ForestRow(attribute="sex", name="M", count=3, note="too small"),
    ),
    overall=ForestRow(attribute="", name="all units", count=23, value=0.7, low=0.6, high=0.8),
)
COUNTS = DayCounts(title="Arrivals", unit="images", days=DAYS, values=(0, 4, None, 8, *([0] * 5), 2))
BOX = DayBox(day=DAYS[3], studies=5, quantiles=(0, 0.25, 0.5, 0.75, 1))
BOXES = DayBoxes(title="p-values", days=DAYS, boxes=(BOX,))
DRAWN = {
    "roc": roc_chart.draw_roc(ROC, "k"),
    "scores": score_chart.draw_scores(SCORES, "k"),
    "rates": rate_chart.draw_rates(RATES, "k"),
    "p_values": rate_chart.draw_p_values(P_VALUES, "k"),
    "forest": forest_chart.draw_forest(FOREST, "k"),
    "counts": trend_chart.draw_counts(COUNTS, "k"),
    "spark": trend_chart.draw_spark(COUNTS, "k"),
    "boxes": trend_chart.draw_boxes(BOXES, "k"),
}


def marks(svg: str, kind: str, shape: str = "") -> list[ElementTree.Element]:
    """Return the marks of a kind in their order."""
    every = ElementTree.fromstring(svg).iter(f"{SVG}{shape}" if shape else None)
    return [one for one in every if one.get("class") == f"c-{kind}"]


def numbers(path: ElementTree.Element) -> list[tuple[float, float]]:
    """Return the points of a path."""
    pairs = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
    return [(float(x), float(y)) for x, y in pairs]


def place(element: ElementTree.Element, *names: str) -> tuple[float, ...]:
    """Return attributes as numbers."""
    return tuple(float(element.get(name, "nan")) for name in names)


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_an_image_with_a_name_and_a_description(name: str) -> None:
    root = ElementTree.fromstring(DRAWN[name])
    assert root.get("role") == "img"
    by_id = {one.get("id"): one for one in root if one.get("id")}
    assert by_id[root.get("aria-labelledby")].tag == f"{SVG}title"
    assert by_id[root.get("aria-describedby")].tag == f"{SVG}desc"
    assert all(len(one.text or "") > 5 for one in by_id.values())
    assert "style=" not in DRAWN[name] and "<script" not in DRAWN[name]  # the pages' policy would refuse both


@pytest.mark.parametrize("name", DRAWN)
def test_every_mark_lies_within_its_chart(name: str) -> None:
    root = ElementTree.fromstring(DRAWN[name])
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for one in root.iter():
        xs = [float(one.get(key, "0")) for key in ("x", "x1", "x2", "cx")]
        ys = [float(one.get(key, "0")) for key in ("y", "y1", "y2", "cy")]
        points = numbers(one)
        assert all(0 <= x <= width for x in [*xs, *(x for x, _ in points)]), ElementTree.tostring(one)
        assert all(0 <= y <= height for y in [*ys, *(y for _, y in points)]), ElementTree.tostring(one)


def test_roc_points_lie_at_their_rates() -> None:
    (model,) = marks(DRAWN["roc"], "model", "path")
    assert numbers(model) == [(58, 318), (58 + 300 / 4, 318 - 0.75 * 300), (358, 18)]
    (band,) = marks(DRAWN["roc"], "band")
    assert numbers(band) == [(58, 168), (358, 18), (358, 18), (58, 288)]
    kinds = [one.get("class") for one in ElementTree.fromstring(DRAWN["roc"]) if one.tag == f"{SVG}path"]
    assert kinds == ["c-band", "c-control", "c-best-control", "c-model"]  # the model is drawn last, above the others


def test_words_are_escaped() -> None:
    assert "<b>" not in DRAWN["roc"] and "size &amp; &lt;b&gt;" in DRAWN["roc"]


def test_score_bins_and_thresholds_lie_at_their_scores() -> None:
    normal, abnormal = (marks(DRAWN["scores"], kind, "path")[0] for kind in ("normal", "abnormal"))
    assert [x for x, _ in numbers(normal)] == [58, 58, 322, 322, 586, 586]
    top = 36 + 290 * (1 - 1 / 1.06)
    assert numbers(abnormal)[3] == (322, pytest.approx(top, abs=0.06))
    assert numbers(normal)[1][1] == pytest.approx(326 - 0.75 * (326 - top), abs=0.1)
    assert [place(one, "x1", "x2") for one in marks(DRAWN["scores"], "threshold")] == [(454, 454), (322, 322)]


def test_realised_rates_lie_above_the_line_where_they_exceed_the_promise() -> None:
    (first, second), plot = marks(DRAWN["rates"], "point", "circle")[:2], rate_chart.place_rates(RATES)
    assert place(first, "cx", "cy") == pytest.approx(plot.at(0.05, 0.1), abs=0.06)
    assert plot.y.at(0.1) < plot.y.at(0.05), "y grows upwards"
    assert place(second, "cx") == pytest.approx((plot.x.at(0.1),), abs=0.06)
    (interval,) = [one for one in marks(DRAWN["rates"], "range") if one.get("x1") == one.get("x2")]
    assert place(interval, "y1", "y2") == pytest.approx((plot.y.at(0.04), plot.y.at(0.2)), abs=0.06)


def test_p_values_lie_on_logarithmic_axes() -> None:
    plot = rate_chart.place_p_values(P_VALUES)
    points = [place(one, "cx", "cy") for one in marks(DRAWN["p_values"], "point")][:3]
    assert points == [pytest.approx(plot.at(x, y), abs=0.06) for x, y in ((0.01, 0.005), (0.1, 0.1), (1, 1))]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2), "a factor of ten each"
    assert "1 of 3 points lie below" in DRAWN["p_values"]


def test_intervals_of_subgroups_lie_beside_the_whole() -> None:
    plot = forest_chart.place_forest(FOREST)
    whole, group = marks(DRAWN["forest"], "range")
    assert place(whole, "x1", "x2") == pytest.approx((plot.x.at(0.6), plot.x.at(0.8)), abs=0.06)
    assert place(group, "x1", "x2") == pytest.approx((plot.x.at(0.6), plot.x.at(0.9)), abs=0.06)
    (line,) = marks(DRAWN["forest"], "threshold")
    assert place(line, "x1") == pytest.approx((plot.x.at(0.7),), abs=0.06)
    assert place(group, "y1")[0] == pytest.approx(forest_chart.TOP + 2.5 * forest_chart.ROW), "a heading between them"
    assert "too small" in DRAWN["forest"]


LONG = "SIEMENS MAGNETOM Prisma Fit with a name that goes on", "核磁" * 20, "W" * 64, "x" * 300, "short"
CROWDED = FOREST.model_copy(
    update={
        "metric": "sensitivity at 90 % specificity, mean over folds",
        "rows": (
            *(ForestRow(attribute="a" * 90, name=name, count=12_345_678, value=0.7, low=0, high=1) for name in LONG),
            ForestRow(attribute="sex", name="M", count=3, note="3 abnormal and no normal patients; " * 3),
        ),
    }
)


def boxes_of(svg: str) -> list[tuple[float, float, float, float]]:
    """Return (left, right, top, bottom) of every text, by the estimated widths."""
    boxes = []
    for one in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if one.get("transform"):
            continue
        (x, y, size), words = place(one, "x", "y", "font-size"), one.text or ""
        width = width_of(words, size) * (STRONG if one.get("font-weight") else 1)
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[one.get("text-anchor", "start")]
        boxes.append((left, left + width, y - 0.75 * size, y + 0.2 * size))
    return boxes


def test_a_subgroup_without_a_number_has_no_mark() -> None:
    nan = float("nan")
    rows = (
        ForestRow(attribute="sex", name="F", count=20, value=nan, low=nan, high=nan),
        ForestRow(attribute="sex", name="M", count=20, value=0.9, low=nan, high=0.95),
    )
    svg = forest_chart.draw_forest(FOREST.model_copy(update={"rows": rows}), "k")
    assert "sex F: not measured" in svg and "nan" not in svg
    assert len(marks(svg, "point")) == 2 and len(marks(svg, "range")) == 1, "those of M and of all units"


@pytest.mark.parametrize("last", [1e300, 1e-300, 123456.0])
def test_labels_of_scores_lie_within_the_chart(last: float) -> None:
    svg = score_chart.draw_scores(SCORES.model_copy(update={"edges": (0.0, last / 2, last), "thresholds": ()}), "k")
    for one in marks(svg, "label"):
        if one.get("text-anchor") == "middle" and one.get("transform") is None:
            half = width_of(one.text or "") / 2
            assert half <= float(one.get("x", "nan")) <= score_chart.SIZE[0] - half + 0.1


@pytest.mark.parametrize("svg", [forest_chart.draw_forest(CROWDED, "k"), DRAWN["forest"]])
def test_texts_of_a_forest_lie_within_it_and_not_on_one_another(svg: str) -> None:
    _, _, width, height = map(float, ElementTree.fromstring(svg).get("viewBox", "").split())
    boxes = boxes_of(svg)
    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for left, right, top, bottom in boxes)
    for one, other in combinations(boxes, 2):
        assert one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]


def test_a_long_note_is_whole_in_the_forest() -> None:
    words = " ".join(one.text or "" for one in marks(forest_chart.draw_forest(CROWDED, "k"), "label"))
    assert "3 abnormal and no normal patients; 3 abnormal and no normal patients" in words


@pytest.mark.parametrize(
    "values", [(1.0, 1.0001, 1.01, 1.02), (0.01, 1.99, 1.2), tuple(0.5 + i / 40 for i in range(30))]
)
def test_labels_of_thresholds_lie_apart_and_above_all_lines(values: tuple[float, ...]) -> None:
    rates = tuple(ScoreThreshold(value=value, fpr=0.5 - place / 100) for place, value in enumerate(values))
    svg = score_chart.draw_scores(SCORES.model_copy(update={"thresholds": rates}), "k")
    labels = [
        one for one in boxes_of(svg) if score_chart.TOP < one[2] < score_chart.BOTTOM and one[0] > score_chart.LEFT
    ]
    assert labels and all(left >= score_chart.LEFT and right <= score_chart.RIGHT for left, right, *_ in labels)
    assert all(one[3] <= other[2] or other[3] <= one[2] for one, other in combinations(labels, 2))
    order = [one.get("class") for one in ElementTree.fromstring(svg).iter()]
    assert max(place for place, kind in enumerate(order) if kind == "c-threshold") < order.index("c-halo")


def test_thresholds_at_one_place_share_a_label() -> None:
    rates = (ScoreThreshold(value=1.0, fpr=0.01), ScoreThreshold(value=1.0, fpr=0.05))
    (label,) = marks(score_chart.draw_scores(SCORES.model_copy(update={"thresholds": rates}), "k"), "halo")
    assert label.text == "1 %, 5 % false positives"


@pytest.mark.parametrize("text", ["", "a b", "word " * 40, "x" * 500, "核" * 80, "I" * 90])
def test_broken_lines_fit_and_keep_what_they_can(text: str) -> None:
    lines = break_lines(text, 120, most=3)
    assert 1 <= len(lines) <= 3 and all(width_of(one) <= 120 for one in lines)
    whole = break_lines(text, 120, most=1000)
    assert "".join(whole).replace(" ", "") == text.replace(" ", "")
    assert lines == whole or lines[-1].endswith("…")


def test_bars_have_the_height_of_their_count_on_their_day() -> None:
    bars = marks(DRAWN["counts"], "bar")
    assert len(bars) == 2 and len(marks(DRAWN["counts"], "bar-chosen")) == 1
    width = (trend_chart.RIGHT - trend_chart.LEFT) / 10
    xs, heights = zip(*(place(bar, "x", "height") for bar in bars), strict=True)
    assert xs[1] - xs[0] == pytest.approx(2 * width, abs=0.1)
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    labels = [one.text for one in marks(DRAWN["counts"], "label")]
    assert "10 Mar" in labels and "03 Mar" in labels


def test_a_day_that_is_held_back_looks_the_same_whatever_it_holds() -> None:
    (column,) = marks(DRAWN["counts"], "held-back")
    assert place(column, "y", "height") == (trend_chart.TOP, trend_chart.BOTTOM - trend_chart.TOP)
    # The scale is that of the other days: it does not tell either.
    least = COUNTS.model_copy(update={"values": (0, 4, None, 8)[:4] + (0,) * 6})
    assert place(marks(trend_chart.draw_counts(least, "k"), "held-back")[0], "y", "height") == place(
        column, "y", "height"
    )


def test_a_box_spans_its_quartiles() -> None:
    plot = trend_chart.place_days(DAYS, 1.0)
    (box,) = marks(DRAWN["boxes"], "box")
    assert place(box, "y", "height") == pytest.approx((plot.y.at(0.75), plot.y.at(0.25) - plot.y.at(0.75)), abs=0.1)
    assert place(box, "x") == pytest.approx((plot.x.at(3.12),), abs=0.06)
    (median,) = marks(DRAWN["boxes"], "middle")
    assert place(median, "y1", "y2") == pytest.approx((plot.y.at(0.5),) * 2, abs=0.06)


def test_ticks_are_round() -> None:
    assert round_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert round_ticks(0, 2.2, 4, whole=True) == [0, 1, 2]
    assert round_ticks(0, 0.12) == [0, 0.05, 0.1]
    assert round_ticks(3, 3) == [3]
    assert log_ticks(0.01, 1) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert log_ticks(0.00008, 1) == pytest.approx([0.0001, 0.001, 0.01, 0.1, 1])
    assert Scale(0, 0, 5, 10).at(0) == 5


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("kind", ["model", "member-1", "member-2", "member-3", "best-control", "abnormal", "axis"])
def test_lines_can_be_seen_on_paper(kind: str) -> None:
    assert 1.05 / (luminance(str(STYLES[kind]["stroke"])) + 0.05) >= 3


def test_what_differs_in_colour_differs_in_another_way_too() -> None:
    lines = ("model", "member-1", "member-2", "member-3", "best-control")
    dashes = [STYLES[kind].get("stroke_dasharray") for kind in lines]
    assert len(set(dashes)) == len(lines)
    assert STYLES["normal"].get("stroke_dasharray") != STYLES["abnormal"]["stroke_dasharray"]
