"""Flow `nightly`: the whole night. `python -m flows.nightly CONFIG... -- PATH...` or `nightread nightly`"""

from __future__ import annotations

import sys
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows import WORKSPACE
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.score import score
from flows.train import train
from pipeline.config import Settings
from pipeline.stages.night import night_report, untrained


@flow(name="nightly", flow_run_name="night of {workspace}", persist_result=False)
def nightly(roots: list[str], configs: list[str], labels: list[str], workspace: str) -> dict[str, Any]:
    """Take in what arrived and what reports say of it, train routes that have no champion, score, evaluate, report.

    A route that cannot be trained (too few normals, say) is reported and does not stop the others.
    """
    settings = Settings.load(workspace)
    ingested = ingest(roots, labels, workspace)
    trained = [train(config, workspace, return_state=True) for config in untrained(configs, settings)]
    failures = [state.message or "failed" for state in trained if state.is_failed()]
    scored = score(workspace)
    evaluated = evaluate(workspace)
    report = night_report(settings, ingested, scored, evaluated, failures)
    create_markdown_artifact(key="night", markdown=report["markdown"], description="The night in one page")
    return report


def run_nightly(roots: list[str], configs: list[str], labels: list[str], workspace: str) -> dict[str, Any]:
    """Run the night once, for callers that know nothing of Prefect."""
    return nightly(roots, configs, labels, workspace)


if __name__ == "__main__":
    separator = sys.argv.index("--")
    nightly(sys.argv[separator + 1 :], sys.argv[1:separator], [], str(WORKSPACE))
