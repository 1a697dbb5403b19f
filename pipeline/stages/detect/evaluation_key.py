"""Hash of an evaluation's inputs, so that the same evaluation is not repeated."""

from __future__ import annotations

import hashlib
import json

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import fingerprint
from pipeline.stages.detect.source_closure import hash_closure
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef

EVALUATION = "pipeline.stages.detect.evaluate"


def hash_evaluation_inputs(run: RunRef, settings: Settings) -> str:
    """Return SHA-256 over detector, configuration, develop set (pixels, labels, masks), picture policy and code.

    Of our code, only the modules that the evaluation imports, so that a change in the web pages repeats no evaluation.

    Raises:
        ArtefactError: the run folder is missing.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    with Catalogue.open(settings) as catalogue:
        develop = choose(catalogue, config, settings, sets=("develop",))
    facts = {
        "detector": run.sha256,
        "folder": folder.run_id,
        "config": config.fingerprint(),
        "data": fingerprint(develop.slices)["sha256"],
        "pictures": settings.burned_in,
        "mlflow": settings.mlflow_uri,  # not the path of the workspace's own store, which differs in a copy
        "code": hash_closure(EVALUATION),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
