"""Commands that take data in: ingest, wrap, labels, rejections."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import OutputFolder, json_option, print_json, print_rows, progress_bar, settings_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Settings


@click.command(
    short_help="Read DICOM files, folders and archives.",
    epilog="""\b
Example:
  nightread ingest
  nightread ingest /data/inbox /data/archive.zip
  nightread ingest --json /data/inbox | jq .rejected""",
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def ingest(context: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Read DICOM files, folders and archives into the catalogue; running it again adds nothing twice.

    Without PATHS it reads the studies that `nightread listen` and `nightread pull` have completed in the inbox.

    Unusable files are listed with a code and a sentence; they are never moved or changed. The exit code is 0 even when
    some files were rejected: see `nightread rejections`.
    """
    for path in paths:
        if not os.path.lexists(path):
            raise ConfigError(
                f"{path} does not exist, so nothing was ingested. Check the spelling and that the drive is mounted."
            )
    from pipeline.data.ingest.ingest import ingest as run

    paths = paths or (_require_inbox(settings_of(context)),)
    with progress_bar("Ingesting", quiet=as_json) as update:
        report = run(paths, settings_of(context), on_progress=update)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(
        f"{report.files} files: {report.added} new, {report.same} unchanged objects, {report.new_versions} "
        f"corrections, {report.skipped} seen before, {sum(report.rejected.values())} rejected ({report.seconds:.1f} s)."
    )
    for code, count in sorted(report.rejected.items()):
        click.echo(f"  {count:6d}  {code}")


def _require_inbox(settings: Settings) -> Path:
    """Return the folder of the studies that arrived over the network.

    Raises:
        ConfigError: nothing has arrived yet.
    """
    complete = settings.inbox / "complete"
    if not complete.is_dir():
        raise ConfigError(
            f"No path was given, and nothing has arrived yet: {complete} does not exist. Give the files, folders or "
            "archives to read, or fill the inbox with nightread listen or nightread pull."
        )
    return complete


@click.command(
    short_help="Turn PNG, NIfTI, npz ... with a manifest into DICOM.",
    epilog="""\b
Example:
  nightread wrap lgg/manifest.csv --out lgg-dicom
  nightread wrap pneumoniamnist.npz --modality CR --out pneumonia-dicom
  nightread ingest lgg-dicom/dicom && nightread labels import lgg-dicom/labels.csv""",
)
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=OutputFolder(), required=True, help="Folder for the DICOM files and labels.csv.")
@click.option("--modality", default="OT", show_default=True, help="DICOM modality for rows without one.")
@click.option(
    "--normal", type=int, multiple=True, default=(0,), show_default=True, help="Label in an .npz that means normal."
)
@json_option
@click.pass_context
def wrap(
    context: click.Context, manifest: Path, out: Path, modality: str, normal: tuple[int, ...], as_json: bool
) -> None:
    """Turn PNG, JPEG, TIFF, NIfTI or npz images with a CSV manifest into valid DICOM (Secondary Capture).

    MANIFEST has the columns `file` and, where known, patient_id, label, mask, modality, split, slice_index,
    relative_position. A medmnist-style .npz can replace the manifest. No geometry is invented; labels and masks
    go into labels.csv, never into the pixels.
    """
    from pipeline.dicom.wrap.wrap import wrap as run

    with progress_bar("Wrapping", quiet=as_json) as update:
        report = run(manifest, out, modality=modality, normal=normal, on_progress=update)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(report.sentence())


@click.command(
    short_help="Spoil images of an npz, to test detectors with.",
    epilog="""\b
Example (a class of MedNIST as normal, the others as a source of patches):
  nightread spoil mednist.npz --normal 4 --out hands.npz
  nightread wrap hands.npz --out hands-dicom""",
)
@click.argument("npz", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The npz to write.")
@click.option(
    "--normal", type=int, multiple=True, default=(0,), show_default=True, help="Label that means normal; repeatable."
)
@click.option("--share", type=float, default=0.3, show_default=True, help="Share of the normal images to spoil.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed spoils other images.")
@json_option
def spoil(npz: Path, out: Path, normal: tuple[int, ...], share: float, seed: int, as_json: bool) -> None:
    """Write an npz with the normal images of another, some of them spoilt: turned, cut, or with a foreign patch.

    The labels are 0 for normal images, 1 for turned, 2 for cut and 3 for patched ones; patches come from the images of
    other classes, which are left out. Wrap and ingest the file, train on its normals, and evaluate.
    """
    from pipeline.corruption.spoil import spoil_npz

    report = spoil_npz(npz, out, normal, share, seed)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.sentence())


@click.group(short_help="Say which scans are normal.", epilog="Example: nightread labels import reports.csv")
def labels() -> None:
    """Say which scans are normal: import labels from a CSV file, or show them."""


@labels.command(
    "import",
    epilog="""\b
Example (columns: StudyInstanceUID or AccessionNumber or PatientID and date; label; source; reader; date):
  nightread labels import reports.csv""",
)
@click.argument("csv_file", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Exit with code 1 if a row could not be used.")
@click.option(
    "--level",
    type=click.Choice(["study", "patient"]),
    default="study",
    show_default=True,
    help="Meaning of a row with a PatientID alone: refused (study), or about all studies so far (patient).",
)
@json_option
@click.pass_context
def labels_import(context: click.Context, csv_file: Path, strict: bool, level: str, as_json: bool) -> None:
    """Import normal/abnormal/unknown labels; identifiers are replaced by pseudonyms before anything is stored.

    With --level patient, a row that names a patient alone labels the patient's studies up to the row's date; without a
    date, those in the catalogue when the row is first imported. Later studies stay unknown, and a row about a study
    itself overrides it.
    """
    from pipeline.data.labels.labels import import_labels

    report = import_labels(csv_file, settings_of(context), patient_level=level == "patient")
    if as_json:
        print_json(asdict(report))
    else:
        click.echo(f"{report.added} labels added, {report.unchanged} unchanged, {len(report.problems)} rows not used.")
        if report.ignored:
            click.echo(f"  Columns that were ignored: {', '.join(report.ignored)}")
        for problem in report.problems[:20]:
            click.echo(f"  {problem}")
        if len(report.problems) > 20:
            click.echo(f"  ... and {len(report.problems) - 20} more (--json lists all)")
    if strict and report.problems:
        context.exit(1)


@labels.command("show", epilog="Example: nightread labels show --json")
@json_option
@click.pass_context
def labels_show(context: click.Context, as_json: bool) -> None:
    """Show the labels, newest last."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.labels.labels import list_labels as rows

    with Catalogue.open(settings_of(context)) as catalogue:
        print_rows(list(rows(catalogue)), as_json, "No labels yet. Import some with nightread labels import FILE.csv")


@click.command(
    short_help="List rejected files and unscored series, with reasons.", epilog="Example: nightread rejections --reveal"
)
@click.option("--reveal", is_flag=True, help="Show the real paths from the crosswalk (identifying).")
@click.option("--all", "everything", is_flag=True, help="Also list files that have been read since.")
@json_option
@click.pass_context
def rejections(context: click.Context, reveal: bool, everything: bool, as_json: bool) -> None:
    """List rejected files, and series that no detector could score, each with its reason.

    A file that was corrected and has been read since under the same name is no longer listed, unless --all is given,
    nor is a series whose images have all arrived again in other series of its study. A file that was corrected under
    another name stays listed: nothing in it says which one it replaces. So does an archive refused as a whole.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.dicom.identity.crosswalk import Crosswalk

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        rows: list[dict[str, Any]] = [
            {"subject": r.subject, "level": r.level, "code": r.code, "sentence": r.sentence}
            for r in catalogue.list_rejections(with_settled=everything)
        ]
        rows += [
            {"subject": r.series_id, "level": "series", "code": r.code, "sentence": r.sentence}
            for r in catalogue.list_still_not_scored()
        ]
    if reveal:
        with Crosswalk.open(settings) as crosswalk:
            rows = [{**row, "path": crosswalk.find_path(row["subject"])} for row in rows]
    print_rows(rows, as_json, "Nothing was rejected.")
