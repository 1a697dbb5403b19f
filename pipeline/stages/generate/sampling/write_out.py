"""Write a task's images for other programs: DICOM files marked as synthetic, and the sheet as PNG."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipeline import __version__, durable
from pipeline.dicom.wrap.synthetic import SyntheticOrigin, make_synthetic
from pipeline.errors import ConfigError
from pipeline.stages.generate.sampling.sample import Drawing
from pipeline.stages.generate.task_folder import TaskFolder


def write_images(folder: TaskFolder, drawing: Drawing, out: Path) -> int:
    """Write every image of a task's drawing as a DICOM file into `out`, and the sheet beside them; return their number.

    Law: they say that they are synthetic, and ingest refuses them.

    Raises:
        ConfigError: the images are volumes, which are not written as DICOM, or the folder has more images of another
            drawing than these would replace.
    """
    if drawing.images.ndim != 4:
        raise ConfigError("Volumes cannot be written as DICOM yet. Leave out --out; the folder of the task has them.")
    names = [f"synthetic-{number:05d}.dcm" for number in range(len(drawing.images))]
    if others := {file.name for file in out.glob("synthetic-*.dcm")} - set(names):
        raise ConfigError(
            f"{out} has {len(others)} synthetic images of another drawing, which would be mixed with these "
            f"{len(names)}. Choose another folder for --out, or empty this one; the images that were drawn are kept."
        )
    facts = folder.read("task.json")
    at = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
    origin = SyntheticOrigin(folder.task_id, facts["method"], facts["model_sha256"], __version__, at)
    for number, image in enumerate(np.asarray(drawing.images[:, 0].float())):
        about = drawing.about[number] if drawing.about else {}
        durable.write(out / names[number], make_synthetic(image, number, origin, about))
    durable.write(out / "sheet.png", folder.sheet.read_bytes())
    return len(drawing.images)
