"""Text as numbers of BERT's vocabulary: uncased words cut into their longest known beginnings (WordPiece).

Devlin et al., arXiv:1810.04805; the cutting is that of Wu et al., arXiv:1609.08144, section 4.1. Deviation from the
original: Chinese characters are not words of their own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ConfigError

LONGEST = 100  # characters of a word; a longer one is unknown
UNKNOWN, FIRST, LAST, PADDING = "[UNK]", "[CLS]", "[SEP]", "[PAD]"


class WordPieces:
    """A vocabulary, one piece a line; the line's number is the piece's.

    Raises:
        ConfigError: the file is missing, or lacks one of BERT's special pieces.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ConfigError(f"The text encoder's vocabulary {file} does not exist. Correct method.text.folder.")
        self.numbers = {piece: number for number, piece in enumerate(file.read_text(encoding="utf-8").split("\n"))}
        if missing := [one for one in (UNKNOWN, FIRST, LAST, PADDING) if one not in self.numbers]:
            raise ConfigError(f"{file} is not a vocabulary of BERT: it lacks {', '.join(missing)}. Choose another.")

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text's pieces, between those of [CLS] and [SEP]."""
        pieces = [piece for word in _words(text) for piece in self._cut(word)]
        return [self.numbers[piece] for piece in (FIRST, *pieces, LAST)]

    def _cut(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            end = next((e for e in range(len(word), start, -1) if mark + word[start:e] in self.numbers), None)
            if end is None or len(word) > LONGEST:
                return [UNKNOWN]
            pieces.append(mark + word[start:end])
            start = end
        return pieces


def _words(text: str) -> Iterator[str]:
    """Yield lower-case words without accents; each punctuation mark is a word of its own."""
    for chunk in unicodedata.normalize("NFD", text.lower()).split():
        word = ""
        for character in chunk:
            if unicodedata.category(character) in ("Mn", "Cc", "Cf"):
                continue
            if _is_punctuation(character):
                yield from (part for part in (word, character) if part)
                word = ""
            else:
                word += character
        if word:
            yield word


def _is_punctuation(character: str) -> bool:
    ascii_mark = character.isascii() and not character.isalnum()
    return ascii_mark or unicodedata.category(character).startswith("P")
