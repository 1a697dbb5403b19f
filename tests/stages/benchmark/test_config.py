"""The benchmark's file: cells, groups, resolved runs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.stages.benchmark.config import Benchmark

SHIPPED = sorted((Path(__file__).resolve().parents[3] / "configs" / "benchmarks").glob("*.yaml"))
RUN = """
name: base
data: {route: phantom-mr, normaliser: {kind: mr_percentile, image_size: 32}}
method: {name: dae}
detection: {residual: {kind: l1, median: 3}, aggregate: {map: mean}}
"""
FILE = """
name: b
base: {file: run.yaml, set: [data.normaliser.image_size=64]}
methods:
  - {name: one, method: ae.yaml, data: {cache: none}, training: {images: 7}, detection: {residual: {erode: 1}}}
  - {name: two, method: {name: vae}, scores: [wide]}
scores:
  - {name: own}
  - {name: wide, detection: {residual: {kind: ssim, sigma_fraction: 0.1}}}
seeds: [0, 5]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "ae.yaml").write_text("{name: ae, latent: 4}")
    (tmp_path / "b.yaml").write_text(FILE)
    return tmp_path / "b.yaml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_benchmarks_resolve(path: Path) -> None:
    benchmark = Benchmark.read(path)
    assert len({benchmark.run_config(cell).fingerprint() for cell in benchmark.cells()}) > 1
    assert path.stem == benchmark.config.name


def test_cells_are_methods_by_scores_by_seeds(file: Path) -> None:
    benchmark = Benchmark.read(file)
    assert [cell.key for cell in benchmark.cells()] == [
        *("one.own.0", "one.wide.0", "one.own.5", "one.wide.5", "two.wide.0", "two.wide.5")
    ]
    assert benchmark.groups() == [("one", 0), ("one", 5), ("two", 0), ("two", 5)]


def test_a_cell_resolves_base_method_and_score(file: Path) -> None:
    benchmark = Benchmark.read(file)
    one, wide = (benchmark.run_config(cell) for cell in list(benchmark.cells())[2:4])
    assert (one.method.name, one.method.model_dump()["latent"]) == ("ae", 4)
    assert (one.training.images, one.training.seed, one.data.normaliser.image_size) == (7, 5, 64)
    assert (one.detection.residual.kind, one.detection.residual.median, one.detection.residual.erode) == ("l1", 3, 1)
    assert (one.data.cache, one.data.route) == ("none", "phantom-mr")
    assert (wide.detection.residual.kind, wide.detection.residual.sigma_fraction) == ("ssim", 0.1)
    assert (wide.detection.residual.median, wide.detection.residual.erode) == (3, 1)  # merged, not replaced
    # one trained model: nothing but the score differs
    assert one.model_copy(update={"detection": wide.detection}) == wide


def test_a_run_configuration_is_a_benchmark_of_one(file: Path) -> None:
    (cell,) = (benchmark := Benchmark.read(file.parent / "run.yaml")).cells()
    assert cell.key == "dae.own.0"
    assert benchmark.run_config(cell).detection.residual.median == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: two", "name: one"), r"\bone\b.*unique"),
        (("scores: [wide]", "scores: [narrow]"), r"\bnarrow\b.*`scores`"),
        (("name: b", "name: ../b"), "name"),
        (("methods:", "method:"), "method"),
        (("training: {images: 7}", "data: {route: cxr}"), r"\bone\b.*\broute\b.*base"),
    ],
)
def test_what_does_not_fit_is_refused(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(FILE.replace(*change))
    with pytest.raises(ConfigError, match=message):
        Benchmark.read(file)


def test_an_unknown_method_is_reported_when_its_cell_is_resolved(file: Path) -> None:
    file.write_text(FILE.replace("{name: vae}", "{name: no_such_method}"))
    benchmark = Benchmark.read(file)
    *_, broken = benchmark.cells()
    with pytest.raises(ConfigError, match="no_such_method"):
        benchmark.run_config(broken)


def _with_row(file: Path, row: str) -> Benchmark:
    head, tail = file.read_text().split("scores:\n", 1)
    file.write_text(f"{head}  - {row}\nscores:\n{tail}")
    return Benchmark.read(file)


def test_an_ensemble_names_other_rows_and_comes_after_them(file: Path) -> None:
    benchmark = _with_row(file, "{name: both, members: [one, two], scores: [wide]}")
    cell = next(cell for cell in benchmark.cells() if cell.method.name == "both")
    named = benchmark.run_config(cell).method.model_dump()["members"]
    assert [member["run"] for member in named] == ["one.wide.0", "two.wide.0"]
    config = benchmark.run_config(cell, [{"run": "r1", "sha256": "aa"}, {"run": "r2", "sha256": "bb"}])
    assert [(member.run, member.sha256) for member in config.method.members] == [("r1", "aa"), ("r2", "bb")]
    groups = [("both", 0), ("one", 0), ("both", 5), ("two", 5)]
    assert benchmark.waves(groups) == [[("one", 0), ("two", 5)], [("both", 0), ("both", 5)]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            "{name: both, members: [one, two], seeds: [0, 9]}",
            r"\bboth\b.*\[9\].*\bone\b.*\[0, 5\]",
        ),
        ("{name: both, members: [one, two], change: {latent: 8}}", r"\bboth\b.*\blatent\b"),
        ("{name: none, method: ae.yaml, seeds: []}", "seeds: must not be empty"),
        ("{name: wide, method: ae.yaml, over_seeds: true}", r"\bwide\b.*over_seeds"),
        ("{name: both, members: [one, three]}", r"\bthree\b"),
        ("{name: both, method: ae.yaml, members: [one, two]}", r"\bboth\b.*\beither\b"),
        ("{name: both}", r"\bboth\b.*\beither\b"),
    ],
)
def test_odd_members_are_refused(file: Path, row: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        _with_row(file, row)


def test_a_row_may_have_seeds_of_its_own(file: Path) -> None:
    benchmark = _with_row(file, "{name: three, method: ae.yaml, seeds: [7, 8], scores: [own]}")
    assert [cell.key for cell in benchmark.cells() if cell.method.name == "three"] == ["three.own.7", "three.own.8"]
    assert [cell.seed for cell in benchmark.cells() if cell.method.name == "two"] == [0, 5]


def test_a_row_may_change_its_method(file: Path) -> None:
    benchmark = _with_row(file, "{name: wider, method: ae.yaml, change: {latent: 8, widths: [8, 8]}, scores: [own]}")
    methods = {cell.method.name: benchmark.run_config(cell).method.model_dump() for cell in benchmark.cells()}
    assert (methods["wider"]["latent"], methods["wider"]["widths"]) == (8, (8, 8))
    assert methods["wider"] | {"latent": 4, "widths": methods["one"]["widths"]} == methods["one"]


def test_an_ensemble_over_seeds_joins_every_training(file: Path) -> None:
    benchmark = _with_row(file, "{name: all, members: [one, two], over_seeds: true, scores: [wide]}")
    (cell,) = [cell for cell in benchmark.cells() if cell.method.name == "all"]
    joined = [member.key for member in benchmark.members(cell)]
    assert cell.key == "all.wide.0"
    assert joined == ["one.wide.0", "one.wide.5", "two.wide.0", "two.wide.5"]
    assert [member["run"] for member in benchmark.run_config(cell).method.model_dump()["members"]] == joined
