"""Texts that people type: any script and any length up to a limit, kept as typed, refused where no database holds them.

Such texts may name a patient. They stay in the column that they were typed for, and appear in no log and no message.
"""

from __future__ import annotations

import unicodedata

from pipeline.review.refusals import BadText


def kept(text: str, what: str, longest: int) -> str:
    """Return a text as it is to be kept: line ends as newlines, no blanks around.

    Raises:
        BadText: longer than `longest` characters, or with NUL or half a surrogate pair, which no database holds.
    """
    if not isinstance(text, str):
        raise BadText(f"The {what} is no text. Send a string.")
    if len(text) > longest:
        raise BadText(
            f"The {what} has {len(text)} characters, and at most {longest} are kept. Nothing was saved: "
            "shorten it, and send it again."
        )
    if "\0" in text or any(unicodedata.category(character) == "Cs" for character in text):
        raise BadText(
            f"The {what} holds a character that is no text (NUL or half a pair). Remove it, and send it again."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()
