"""Pages of a leaderboard: a Markdown page, and figures with all intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from matplotlib.figure import Figure

from pipeline.evaluation import style
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.matched import GIVEN, IN_STRATA
from pipeline.stages.benchmark.leaderboard import Leaderboard, LeaderRow

FIGURES = {
    "auroc": "AUROC, all",
    "auroc_central": "AUROC, central",
    "pixel_ap": "pixel AP",
    "dice": "Dice, calibrated",
    "oracle_dice": "best Dice (oracle)",
}


def leaderboard_page(board: Leaderboard) -> str:
    """Return the page: the data, the table, the comparisons, the command."""
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in board.counts.items() if value)
    parts = [
        f"# {board.title}: {board.set_name} set",
        f"{counts}. {_how(board)}",
        leaderboard_table(board),
        matched_table(board),
        seeds_table(board),
        "\n".join(f"- {line}" for line in _remarks(board)),
        f"```\n{board.command}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _how(board: Leaderboard) -> str:
    criterion = FIGURES.get(board.criterion, board.criterion)
    if not board.folds:
        return (
            f"Intervals: 95 % patient bootstrap. Each method's score was chosen on develop by {criterion}; nothing was "
            "chosen on the labels of test."
        )
    return (
        f"Cross-fitted over patients: results are means over {board.folds} folds, each evaluated on patients that its "
        "training never saw, each trained with its own seed. Intervals: 95 % patient bootstrap within folds. "
        f"If a method has several scores, the table has the one with the best {criterion} on these same patients; the "
        "pixel threshold of the calibrated Dice was also chosen on them, among thresholds from calibrate normals."
    )


def leaderboard_table(board: Leaderboard) -> str:
    """Return the Markdown table alone, as used in the documentation."""
    metrics = [name for name in FIGURES if any(name in row.figures for row in board.rows)]
    headers = [
        "method", "score", "supervision", *(FIGURES[name] for name in metrics),
        f"against the best control ({board.part})", "p (Holm)",
        "training, CPU s", "parameters", "passes", "images per CPU s",
    ]  # fmt: skip
    return markdown_table(headers, [_cells(row, metrics) for row in board.rows])


def matched_table(board: Leaderboard) -> str:
    """Return a Markdown table of the AUROC between units alike in a control; "" if the benchmark asks for none."""
    names = [name for name in board.rows[0].figures if name.startswith((IN_STRATA, GIVEN))]
    if not names:
        return ""
    rows = [row for row in board.rows if any(name in row.figures for name in names)]
    plain = "auroc_central" if "auroc_central" in board.rows[0].figures else "auroc"
    cells = [
        [
            f"control: {row.name}" if row.control else row.name,
            *(_text(row.figures.get(name)) for name in [plain, *names]),
        ]
        for row in rows
    ]
    heading = (
        "Between units that are alike in a control. A score that only reads the control is near 0.5 here, and one that "
        "is independent of it keeps its AUROC."
    )
    return f"{heading}\n\n{markdown_table(['method', FIGURES[plain], *names], cells)}"


def seeds_table(board: Leaderboard) -> str:
    """Return a Markdown table of the variation over seeds or folds; "" if there is only one."""
    rows = [row for row in board.rows if len(row.seeds) > 1]
    if not rows:
        return ""
    metrics = [name for name in FIGURES if any(name in row.figures for row in rows)]
    cells = [[row.name, str(len(row.seeds)), *(_spread(row, name) for name in metrics)] for row in rows]
    heading = (
        "Over the folds, mean ± standard deviation."
        if board.folds
        else "Over training seeds, mean ± standard deviation. The results above are of each method's first seed, and "
        "their intervals are over patients; the comparisons with the best control use the mean over seeds."
    )
    headers = ["method", "folds" if board.folds else "seeds", *(FIGURES[name] for name in metrics)]
    return f"{heading}\n\n{markdown_table(headers, cells)}"


def _spread(row: LeaderRow, name: str) -> str:
    values = [figures[name] for figures in row.seeds.values() if name in figures]
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else ""


def _cells(row: LeaderRow, metrics: Sequence[str]) -> list[str]:
    name = f"control: {row.name}" if row.control else row.name
    if row.failure:
        return [name, row.score, "", "failed", *[""] * (len(metrics) - 1), *[""] * 6]
    figures = [_text(row.figures.get(name)) for name in metrics]
    if row.control:
        return [name, "", "", *figures, *[""] * 6]
    cost = (_training(row), _number(row.parameters), _number(row.passes), _number(row.images_per_second))
    p = "" if row.holm_p is None else "< 0.001" if row.holm_p < 0.001 else f"{row.holm_p:.3f}"
    return [name, row.score, row.supervision, *figures, _difference(row), p, *cost]


def _training(row: LeaderRow) -> str:
    """Return the CPU seconds of a training, followed by those of each stage if there are several."""
    stages = f" ({' + '.join(map(_number, row.stage_seconds))})" if len(row.stage_seconds) > 1 else ""
    return _number(row.training_seconds) + stages + (" (cut short)" if row.cut_short else "")


def _difference(row: LeaderRow) -> str:
    comparison = row.against
    return (
        "" if comparison is None else f"{comparison.difference:+.3f} ({comparison.low:+.3f} to {comparison.high:+.3f})"
    )


def _text(estimate: Estimate | None) -> str:
    return "" if estimate is None else estimate.text()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.3g}"


def _remarks(board: Leaderboard) -> Iterator[str]:
    """Yield remarks on methods that lose to a control, failed, or used different units."""
    for row in board.rows:
        if row.failure:
            yield f"{row.name} failed: {' '.join(row.failure.split())}"
        if row.cut_short:
            yield f"{row.name}: {row.cut_short}"
        if row.against is not None:
            yield f"{row.name} {_verdict(row)} the best control: {row.against.sentence}"
        if row.units and row.units != board.counts["units"]:
            yield f"{row.name} was evaluated on {row.units} units, not {board.counts['units']}, so compare with care."


def _verdict(row: LeaderRow) -> str:
    if row.against is None or row.holm_p is None:
        return "cannot be compared with"
    if row.holm_p < 0.05:
        return "beats" if row.against.difference > 0 else "loses to"
    return "is not shown to beat"


def leaderboard_figure(board: Leaderboard, name: str) -> Figure | None:
    """Draw one metric's intervals, methods in colour and controls in grey; return None if no row has it.

    Open circles are the same method trained with other seeds, or single folds.

    Args:
        board: the leaderboard.
        name: a key of `FIGURES`.
    """
    rows = [row for row in board.rows if name in row.figures][::-1]
    if not rows:
        return None
    with style.plot(6.4, 1.2 + 0.34 * len(rows)) as (figure, axes):
        for place, row in enumerate(rows):
            estimate = row.figures[name]
            colour = style.BEST_CONTROL if row.control else style.MODEL
            if estimate.low is not None and estimate.high is not None:
                axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.6)
            axes.plot([estimate.value], [place], "o", color=colour, markersize=5)
            others = [figures[name] for figures in _apart(row, board) if name in figures]
            axes.plot(others, [place] * len(others), "o", color=colour, markersize=5, fillstyle="none")
        axes.set_yticks(range(len(rows)), [f"control: {row.name}" if row.control else row.name for row in rows])
        if name.startswith("auroc"):
            axes.axvline(0.5, linestyle=":", color=style.FAINT, linewidth=1)
        axes.set(xlabel=f"{FIGURES[name]}, 95 % patient bootstrap", ylim=(-0.6, len(rows) - 0.4))
        axes.set_title(f"{board.title}, {board.set_name} set")
    return figure


def _apart(row: LeaderRow, board: Leaderboard) -> list[dict[str, float]]:
    """Return the results of other trainings of a row: other seeds, or all folds of the mean."""
    return list(row.seeds.values())[0 if board.folds else 1 :]
