"""Read CSV files as people's programs write them: various encodings, delimiters and spellings, but without guessing.

UTF-8, UTF-16 with a byte order mark, and Windows-1252, as Excel saves "CSV"; comma, semicolon, tab or bar; any line
ending. Messages name lines and columns but never a value or a path, because both may identify somebody.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.errors import ConfigError

_DELIMITERS = ",;\t|"
_LARGEST = 256 * 2**20


@dataclass(frozen=True, slots=True)
class BadCsvLine:
    """A line that is not valid CSV: its number, and what is wrong with it."""

    number: int
    reason: str


def read_csv_lines(path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of every non-blank line, the header first.

    Args:
        path: the file.
        what: the file's name in messages, e.g. "label file".

    Raises:
        ConfigError: it cannot be read, is larger than 256 MiB, is in no such encoding, or is not valid CSV.
    """
    for item in read_good_csv_lines(path, what):
        if isinstance(item, BadCsvLine):
            raise _not_csv(what, item)
        yield item


def read_good_csv_lines(path: Path, what: str) -> Iterator[tuple[int, list[str]] | BadCsvLine]:
    """Do the same, but yield lines that are not valid CSV as such, and go on with the line after them.

    A quote that is never closed would swallow the rest of the file; only the line that opens it is refused.

    Raises:
        ConfigError: as `read_csv_lines`, of the lines only for the header.
    """
    text, delimiter = _delimited(_text(path, what))
    lines, first, is_header = list(io.StringIO(text, newline="")), 0, True
    while first < len(lines):
        begin = first
        reader = csv.reader(islice(lines, first, None), delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                begin = first + reader.line_num
                if any(field.strip() for field in fields):
                    is_header = False
                    yield begin, fields
            return
        except csv.Error as error:
            bad = BadCsvLine(begin + 1, f"it is not valid CSV: {error}")
        if is_header:
            raise _not_csv(what, bad)
        yield bad
        first = begin + 1


def _not_csv(what: str, bad: BadCsvLine) -> ConfigError:
    return ConfigError(
        f"The {what} is not valid CSV at line {bad.number}: {bad.reason}. Correct the line, or save it again."
    )


def wrong_length(fields: list[str], header: list[str]) -> str:
    """Return what is wrong when a line has more or fewer fields than the header, otherwise ""."""
    if len(fields) == len(header):
        return ""
    return f"it has {len(fields)} fields, but the header has {len(header)}"


def plain_name(name: str) -> str:
    """Return a column's name in lower case, without blanks, underscores and hyphens."""
    return re.sub(r"[\s_\-]", "", name).lower()


def _delimited(text: str) -> tuple[str, str]:
    """Return the text without a leading `sep=;`, which Excel reads and writes, and its delimiter."""
    lines = text.lstrip("\r\n").splitlines()
    if not lines:
        return text, ","
    if declared := re.fullmatch(r'"?sep=([,;\t|])"?', lines[0].strip(" \r\n"), re.IGNORECASE):
        return text.replace(lines[0], "", 1), declared[1]
    return text, max(_DELIMITERS, key=lines[0].count)


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"The {what} is larger than {_LARGEST // 2**20} MiB. Split it into several files.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The {what} cannot be read: {error.strerror}. Give the path of a readable CSV file."
        ) from None
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    try:  # bytes that are not UTF-8 are almost surely Windows-1252, but a NUL is in no text of it
        return content.decode("cp1252") if not utf_16 and b"\0" not in content else _refuse_encoding(what, line)
    except UnicodeDecodeError:
        return _refuse_encoding(what, line)


def _refuse_encoding(what: str, line: int) -> str:
    raise ConfigError(
        f"The {what} is neither UTF-8 nor UTF-16 nor Windows-1252 (line {line}). Save it as CSV UTF-8."
    ) from None
