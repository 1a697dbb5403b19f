"""The JSON log of a night: every line parses and says which night it belongs to, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.json_console import WRITTEN, JsonConsole
from pipeline.stages.watch.json_log import LOG, json_line, log_within, write_json_line

NIGHT = """
import logging, sys, threading, warnings
import flows.nightly as nightly

find_untrained = nightly.find_untrained

def warn(*arguments):
    warnings.warn("a library\\nwarns")
    thread = threading.Thread(target=logging.getLogger("some.package").warning, args=("two\\nlines: %s", '"quoted"'))
    thread.start()
    thread.join()
    raise ValueError("a fault of the program")

nightly.find_untrained = warn
try:
    nightly.run_nightly([sys.argv[2]], [sys.argv[3]], [], sys.argv[1])
except ValueError:
    nightly.find_untrained = find_untrained
nightly.run_nightly([sys.argv[2]], [sys.argv[3]], ["/nowhere/labels.csv"], sys.argv[1])
"""


def line_of(level: int, message: str, *arguments: Any, **values: Any) -> dict[str, Any]:
    stream = io.StringIO()
    record = logging.LogRecord("a.package", level, "a.py", 1, message, arguments, values.pop("exc_info", None))
    record.__dict__.update(values)
    JsonConsole(stream).handle(record)
    lines = stream.getvalue().splitlines()
    assert len(lines) == bool(lines)
    return json.loads(lines[0]) if lines else {}


def test_a_record_is_one_line_with_its_run() -> None:
    line = line_of(
        logging.ERROR, 'two\nlines of %s, "quoted" \u2028', "b", flow_run_id="f", task_run_name="t", other="o"
    )
    assert line.pop("time").endswith("+00:00")
    about = {"level": "error", "logger": "a.package", "message": 'two\nlines of b, "quoted" \u2028'}
    assert line == about | {"flow_run_id": "f", "task_run_name": "t"}


def test_a_traceback_is_part_of_its_line() -> None:
    try:
        raise ValueError("a fault")
    except ValueError:
        line = line_of(logging.WARNING, "It failed", exc_info=sys.exc_info())
    assert line["message"] == "It failed" and line["traceback"].endswith("ValueError: a fault\n")


def test_a_line_that_the_night_has_written_is_not_written_again() -> None:
    assert line_of(logging.ERROR, "It failed", **{WRITTEN: True}) == {}
    assert line_of(logging.ERROR, "It failed", **{WRITTEN: False})["message"] == "It failed"


def test_the_night_of_a_line_is_that_of_its_process() -> None:
    with log_within(night_run_id="n", schedule=None):
        with log_within(night_run_id="inner"):
            assert json.loads(json_line("info", "night", "A"))["night_run_id"] == "inner"
        assert json.loads(json_line("info", "night", "A", flow_run_id="f"))["night_run_id"] == "n"
    assert "night_run_id" not in json.loads(json_line("info", "night", "A"))
    assert "night_run_id" not in json.loads(json_line("info", "night", "A", flow_run_id="f"))
    # Prefect says that a run failed after its end.
    assert json.loads(json_line("error", "prefect", "It failed", flow_run_id="n"))["night_run_id"] == "n"


@pytest.mark.parametrize(("value", "count"), [("json", 1), ("", 0), ("text", 0)])
def test_lines_are_written_only_where_they_are_asked_for(
    value: str, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LOG, value)
    write_json_line("info", "night", "A")
    assert len(capsys.readouterr().err.splitlines()) == count


@pytest.mark.slow
def test_every_line_of_a_night_parses_and_names_the_night(trained: Any, phantom_night: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.settings.workspace, tmp_path / "site")
    home = {"PREFECT_HOME": str(tmp_path / "site" / "prefect"), LOG: "json"}
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", NIGHT, str(tmp_path / "site"), str(phantom_night.inbox), str(phantom_night.config)],
        env={**alone, **home},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    nights = list(dict.fromkeys(line.get("night_run_id") for line in lines))
    assert len(nights) == 2 and None not in nights, [line for line in lines if "night_run_id" not in line]
    assert all(line.get("flow_run_id") for line in lines if line["logger"] != "some.package")
    for logger, text in (("py.warnings", "a library\nwarns"), ("some.package", 'two\nlines: "quoted"')):
        assert any(line["logger"] == logger and text in line["message"] for line in lines)
    sentences = [
        (line["night_run_id"], line["flow_run_id"], line["message"]) for line in lines if "flow_run_id" in line
    ]
    assert len(sentences) == len(set(sentences)), "a line is written twice"
    assert phantom_night.planted not in done.stderr
