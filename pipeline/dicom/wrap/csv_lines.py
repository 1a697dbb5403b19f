"""Read CSV files as people's programs write them: various encodings, delimiters and spellings, but without guessing.

UTF-8, and UTF-16 with a byte order mark; comma, semicolon, tab or bar; any line ending. Messages name lines and columns
but never a value or a path, because both may identify somebody.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError

_DELIMITERS = ",;\t|"
_LARGEST = 256 * 2**20


def read_csv_lines(path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of every non-blank line, the header first.

    Args:
        path: the file.
        what: the file's name in messages, e.g. "label file".

    Raises:
        ConfigError: it cannot be read, is larger than 256 MiB, has another encoding, or is not valid CSV.
    """
    text = _text(path, what)
    delimiter = max(_DELIMITERS, key=text.lstrip("\r\n").splitlines()[0].count) if text.strip() else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        sentence = (
            f"The {what} is not valid CSV at line {reader.line_num}: {error}. Correct the line, or save it again."
        )
        raise ConfigError(sentence) from None


def wrong_length(fields: list[str], header: list[str]) -> str:
    """Return what is wrong when a line has more or fewer fields than the header, otherwise ""."""
    if len(fields) == len(header):
        return ""
    return f"it has {len(fields)} fields, but the header has {len(header)}"


def plain_name(name: str) -> str:
    """Return a column's name in lower case, without blanks, underscores and hyphens."""
    return re.sub(r"[\s_\-]", "", name).lower()


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
        raise ConfigError(f"The {what} is not UTF-8 (line {line}). Save it as CSV UTF-8.") from None
