"""Texts that people type: any script, up to a length limit, stored as typed, refused if a database cannot store them.

Such texts may name a patient. They are stored only in their own column and never appear in a log or message.
"""

from __future__ import annotations

import unicodedata

from pipeline.review.refusals import BadText


def clean_text(text: str, what: str, longest: int) -> str:
    """Return a text as it is stored: with newlines as line ends and without surrounding blanks.

    Raises:
        BadText: it is longer than `longest`, or has a NUL or half a surrogate pair, which databases cannot store.
    """
    if not isinstance(text, str):
        raise BadText(f"The {what} is not text. Send a string.")
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) > longest:
        raise BadText(
            f"The {what} has {len(text)} characters, but at most {longest} can be stored. Shorten it by "
            f"{len(text) - longest} and send it again."
        )
    if "\0" in text or any(unicodedata.category(character) == "Cs" for character in text):
        raise BadText(
            f"The {what} contains a character that is not text (NUL or half a surrogate pair). Remove it and send it "
            "again."
        )
    return text
