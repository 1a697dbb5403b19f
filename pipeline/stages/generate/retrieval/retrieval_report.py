"""Report of a retrieval: table, numbers, what did not beat its baseline, and the sheet of queries and neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Settings
from pipeline.errors import EmptySelection
from pipeline.evaluation.retrieval_quality import PrecisionRow
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.nn.rng import row_key
from pipeline.retrieval.neighbours import Neighbour
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.retrieval.relevance import Library
from pipeline.stages.generate.task_config import RetrieveTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import classes_of, read_real
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel

SHOWN = 4  # queries of the sheet


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """What one way to search answered.

    Attributes:
        name: of the way.
        neighbours: of each query, nearest first.
        recall: share of the true nearest vectors that the index returns; None where it compares all of them.
        vector_bytes: bytes per image that a query reads through.
        query_ms: median time of a query, without its encoding.
        encode_seconds: CPU seconds to encode an image.
    """

    name: str
    neighbours: Sequence[Sequence[Neighbour]]
    recall: float | None
    vector_bytes: int
    query_ms: float
    encode_seconds: float


def report_retrieval(
    config: RetrieveTask,
    trained: TrainedModel,
    folder: TaskFolder,
    settings: Settings,
    library: Library,
    results: Sequence[RetrievalResult],
    rows: Sequence[PrecisionRow],
) -> TaskReport:
    """Draw the sheet, and return the report; the results are those of `rows` without the first, which is chance.

    Raises:
        EmptySelection: no query may be shown.
    """
    _draw(config, trained, folder, settings, library, results)
    lines = [_line(config, row, None) for row in rows[:1]]
    lines += [_line(config, row, result) for row, result in zip(rows[1:], results, strict=True)]
    judged = [{**row.model_dump(mode="json"), **_facts(result)} for row, result in _pairs(rows, results)]
    metrics = _metrics(rows, results)
    return TaskReport(folder, table_of(lines), metrics, tuple(judged), tuple(_warn(config, rows, results)))


def _pairs(
    rows: Sequence[PrecisionRow], results: Sequence[RetrievalResult]
) -> list[tuple[PrecisionRow, RetrievalResult | None]]:
    return list(zip(rows, [None, *results], strict=True))


def _facts(result: RetrievalResult | None) -> dict[str, float | None]:
    if result is None:
        return {}
    return {
        "recall": result.recall,
        "vector_bytes": result.vector_bytes,
        "query_ms": result.query_ms,
        "encode_seconds": result.encode_seconds,
    }


def _line(config: RetrieveTask, row: PrecisionRow, result: RetrievalResult | None) -> dict[str, str]:
    over = {} if result is None else {name: value.text() for name, value in row.over.items()}
    facts = {} if result is None else _texts(result)
    count = config.neighbours
    return {
        "neighbours by": row.name,
        f"precision@{count}": row.precision.text(),
        "over pixels": over.get("pixels", ""),
        "over frozen features": over.get("frozen features", ""),
        f"recall@{count} of exact": facts.get("recall", ""),
        "bytes per image": facts.get("bytes", ""),
        "ms per query": facts.get("ms", ""),
        "CPU s to encode": facts.get("seconds", ""),
    }


def _texts(result: RetrievalResult) -> dict[str, str]:
    return {
        "recall": "" if result.recall is None else f"{result.recall:.3f}",
        "bytes": str(result.vector_bytes),
        "ms": f"{result.query_ms:.2g}",
        "seconds": f"{result.encode_seconds:.2g}",
    }


def _metrics(rows: Sequence[PrecisionRow], results: Sequence[RetrievalResult]) -> dict[str, float]:
    chance, pixels, frozen, *own = rows
    metrics = {
        "precision": own[-1].precision.value,
        "precision_over_pixels": own[-1].over["pixels"].value,
        "precision_over_frozen_features": own[-1].over["frozen features"].value,
        "precision_exact": own[0].precision.value,
        "precision_pixels": pixels.precision.value,
        "precision_frozen_features": frozen.precision.value,
        "precision_by_chance": chance.precision.value,
        "query_ms": results[-1].query_ms,
    }
    recall = results[-1].recall
    return metrics if recall is None else {**metrics, "recall": recall}


def _warn(config: RetrieveTask, rows: Sequence[PrecisionRow], results: Sequence[RetrievalResult]) -> list[str]:
    """Return a sentence for each baseline that the codes do not surely beat, and one where nothing was compressed."""
    own, sentences = rows[-1], []
    for name, gain in own.over.items():
        if gain.low is not None and gain.low > 0:
            continue
        outcome = "loses to" if gain.high is not None and gain.high < 0 else "does not beat"
        sentences.append(f"{own.name} {outcome} {name}: {gain.text()}, paired patient bootstrap.")
    if results[-1].recall is None and config.index.kind != "exact":
        sentences.append(
            f"The index has fewer than {config.index.exact_below} images, so every one is compared, and "
            f"{config.index.kind} is not used."
        )
    return sentences


def _draw(
    config: RetrieveTask,
    trained: TrainedModel,
    folder: TaskFolder,
    settings: Settings,
    library: Library,
    results: Sequence[RetrievalResult],
) -> None:
    """Draw some queries, each before its neighbours by every way; images with burned-in text are left out."""
    by_address = {ref.content_id: ref for ref in library.chosen.slices if may_show(ref, settings)}
    queries = _choose_queries(library, settings)
    near = {
        (number, result.name): [one.address for one in result.neighbours[number] if one.address in by_address]
        for number in queries
        for result in results
    }
    needed = {address for addresses in near.values() for address in addresses[: COLUMNS - 1]}
    part = replace(library.chosen, slices=tuple(by_address[address] for address in sorted(needed)))
    read = read_real(part, trained.run, settings, trained.model)
    pictures = {ref.content_id: image for ref, image in zip(read.refs, to_pixels(read.images), strict=True)}
    strips = [
        _strip(library, number, result.name, [pictures[a] for a in near[number, result.name] if a in pictures])
        for number in queries
        for result in results
    ]
    save_png(draw_sheet(strips, f"{config.name}: held-out images and their nearest training images"), folder.sheet)


def _choose_queries(library: Library, settings: Settings) -> list[int]:
    """Return queries that may be shown, of different classes as far as there are any."""
    refs = library.queries.refs
    allowed = [number for number, ref in enumerate(refs) if may_show(ref, settings)]
    if not allowed:
        raise EmptySelection(
            f"None of {len(refs)} queries may be shown, since text may be burned into them. See the setting burned_in."
        )
    allowed.sort(key=lambda number: row_key("shown query", refs[number].content_id))
    names = classes_of(library.queries.about, ("modality", "body_part")) or [""] * len(refs)
    first: dict[str, int] = {}
    for number in allowed:
        first.setdefault(names[number], number)
    return [*first.values(), *(n for n in allowed if n not in first.values())][:SHOWN]


def _strip(library: Library, number: int, way: str, images: Sequence[np.ndarray]) -> Strip:
    about: Mapping[str, object] = library.queries.about[number]
    what = " ".join(str(about[name]) for name in ("modality", "body_part") if name in about)
    query = to_pixels(library.queries.images[number : number + 1])
    row = np.concatenate([query, *(image[None] for image in images[: COLUMNS - 1])])
    return Strip(f"{what or 'Query'}, then its nearest by {way}", row)
