"""The table of false alarms by scanner: counts add up, and a pooled threshold is uneven where an own one is not."""

from __future__ import annotations

from pipeline.stages.benchmark.group_rates import measure_group_rates, show_group_rates


def test_rows_add_up_and_pooled_thresholds_are_uneven() -> None:
    *scanners, every = measure_group_rates(300, 300, 0.1)
    assert sum(one.n for one in scanners) == every.n == 300
    assert sum(one.fresh for one in scanners) == every.fresh == 300
    assert sum(round(one.pooled[0] * one.fresh) for one in scanners) == round(every.pooled[0] * 300)
    for one in (*scanners, every):
        assert one.pooled[1] <= one.pooled[0] <= one.pooled[2] and one.own_threshold
    pooled, own = ([getattr(one, name)[0] for one in scanners] for name in ("pooled", "own"))
    assert max(pooled) - min(pooled) > 0.15 > max(own) - 0.1
    assert "pooled" in show_group_rates(scanners)[0]
