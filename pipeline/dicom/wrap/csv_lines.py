"""Lines of a CSV file as people's programs write it: encodings, delimiters, spellings; nothing is guessed at.

UTF-8, and UTF-16 with a byte order mark; comma, semicolon, tab or bar; any line ends. Messages name lines and columns,
never a value or a path: both may identify somebody.
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


def csv_lines(path: Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of every line that is not blank; the header is the first.

    Args:
        path: the file.
        what: how messages call it, e.g. "label file".

    Raises:
        ConfigError: it cannot be read, is larger than 256 MiB, of another encoding, or no valid CSV.
    """
    text = _text(path, what)
    delimiter = max(_DELIMITERS, key=text.lstrip("\r\n").splitlines()[0].count) if text.strip() else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ConfigError(f"The {what} is no valid CSV at line {reader.line_num}: {error}.") from None


def wrong_length(fields: list[str], header: list[str]) -> str:
    """Say that a line has another number of fields than the header; "" where it has not."""
    if len(fields) == len(header):
        return ""
    return f"it has {len(fields)} fields, and the header has {len(header)}"


def plain_name(name: str) -> str:
    """Return a column's name without regard to case, blanks, underscores and hyphens."""
    return re.sub(r"[\s_\-]", "", name).lower()


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"The {what} is larger than {_LARGEST // 2**20} MiB. Split it.")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"The {what} cannot be read: {error.strerror}. Give an existing CSV file.") from None
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"The {what} is not UTF-8 (line {line}). Save it as CSV UTF-8.") from None
