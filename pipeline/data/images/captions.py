"""Captions of images: a written grammar for what an image shows, which is parsed back exactly.

    caption = head [", " third] [", " finding]
    head    = words of view, plane, image and body, in this order and each at most once, then [" of " subject]
    third   = "lower third" | "middle third" | "upper third"
    finding = "no finding" | "lesion" [" " side] [", " size]

"axial FLAIR brain, upper third, lesion left, large". A part that is not known is left out. The side is that of the
picture, not of the patient, since many images do not say how they lie. The words of each part are `GRAMMAR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.nn.condition import VOCABULARY

NO_FINDING, LESION = "no finding", "lesion"
SUBJECTS = ("vrx", "qzk", "wjf", "zqp")  # rare words for one scanner or one patient, as in DreamBooth, arXiv:2208.12242
IMAGES = {
    "CT": "CT", "MR": "MR", "CR": "radiograph", "DX": "radiograph", "RF": "fluoroscopy", "XA": "angiogram",
    "US": "ultrasound", "MG": "mammogram", "NM": "scintigram", "PT": "PET",
}  # fmt: skip
GRAMMAR: dict[str, tuple[str, ...]] = {
    "view": VOCABULARY["view"],
    "plane": ("axial", "coronal", "sagittal"),
    "image": ("FLAIR", "T1", "T2", *dict.fromkeys(IMAGES.values())),
    "body": tuple(part.lower() for part in VOCABULARY["body_part"]),
    "subject": SUBJECTS,
    "third": ("lower third", "middle third", "upper third"),
    "finding": (NO_FINDING, LESION),
    "side": ("left", "right", "central"),
    "size": ("small", "medium", "large"),
}
HEAD = ("view", "plane", "image", "body")
SIDED = 0.7  # share of a lesion on one side of the picture's middle that makes it that side's
SMALL, LARGE = 0.01, 0.03  # share of the picture that a lesion covers, up to which it is small, from which it is large


@dataclass(frozen=True, slots=True)
class Caption:
    """What an image shows; "" is what is not known.

    Raises:
        ConfigError: a word is not in the grammar, the head is empty, or a lesion's side or size has no lesion.
    """

    view: str = ""
    plane: str = ""
    image: str = ""
    body: str = ""
    subject: str = ""
    third: str = ""
    finding: str = ""
    side: str = ""
    size: str = ""

    def __post_init__(self) -> None:
        for name, word in self.words.items():
            if word not in GRAMMAR[name]:
                raise ConfigError(
                    f"{word!r} is not a {name} of the grammar of captions. Choose one of {', '.join(GRAMMAR[name])}."
                )
        if not any(getattr(self, name) for name in HEAD):
            raise ConfigError("A caption begins with what the image is, such as 'axial FLAIR brain'. Add that.")
        if (self.side or self.size) and self.finding != LESION:
            raise ConfigError(
                f"Only a lesion has a side and a size, but the finding is {self.finding or 'missing'!r}. Write "
                f"'lesion {self.side or 'left'}', or leave them out."
            )

    @property
    def words(self) -> dict[str, str]:
        """The parts that are known, by name."""
        return {one.name: word for one in fields(self) if (word := getattr(self, one.name))}

    def write(self) -> str:
        """Return the caption as text."""
        head = " ".join(word for name in HEAD if (word := getattr(self, name)))
        of = f" of {self.subject}" if self.subject else ""
        return ", ".join(part for part in (head + of, self.third, self.write_finding()) if part)

    def write_finding(self) -> str:
        """Return the part about the finding; "" if it is not known."""
        return ", ".join(part for part in (f"{self.finding} {self.side}".rstrip(), self.size) if part)

    def includes(self, part: Caption | Mapping[str, str]) -> bool:
        """Return whether the caption says at least what another says."""
        words = part.words if isinstance(part, Caption) else part
        return words.items() <= self.words.items()


def parse_caption(text: str) -> Caption:
    """Return the caption that is written so; `parse_caption(caption.write())` is the caption.

    Raises:
        ConfigError: the text is empty, has a word that the grammar lacks, or another order.
    """
    head, *parts = text.split(", ")
    values: dict[str, str] = {}
    before, of, subject = head.partition(" of ")
    if of:
        values["subject"] = subject
    for word in before.split():
        _enter(values, _part_of(word, HEAD, text), word, text)
    _enter_parts(values, parts, text)
    caption = Caption(**values)
    if caption.write() != text:
        raise ConfigError(f"The caption {text!r} is not in the order of the grammar. Write it as {caption.write()!r}.")
    return caption


def parse_words(text: str) -> dict[str, str]:
    """Return the words of a part of a caption, such as 'upper third, lesion left', by their names in the grammar.

    Raises:
        ConfigError: a word is not in the grammar, or the text is empty.
    """
    values: dict[str, str] = {}
    _enter_parts(values, text.split(", "), text)
    return values


def describe(about: Mapping[str, Any], head: Caption | None = None) -> Caption | None:
    """Return the caption of an image from its attributes (`pipeline.data.images.conditions`) and its `finding`.

    Args:
        about: attributes; `finding` is text, as `Caption.write_finding` returns it, and `subject` a rare word.
        head: what the image is, where the files do not say it; None takes modality, body part and view.

    Returns:
        None where neither says what the image is.
    """
    values = {
        "view": str(about.get("view", "")),
        "image": IMAGES.get(str(about.get("modality", "")), ""),
        "body": str(about.get("body_part", "")).lower(),
    }
    words = {name: word for name, word in values.items() if word in GRAMMAR[name]} if head is None else head.words
    if not words:
        return None
    position = about.get("relative_position")
    if position is not None:
        words["third"] = GRAMMAR["third"][min(int(3 * float(position)), 2)]
    if about.get("subject"):
        words["subject"] = str(about["subject"])
    finding = parse_words(str(about["finding"])) if about.get("finding") else {}
    return Caption(**{**words, **finding})


def describe_lesion(head: Caption, mask: np.ndarray | None) -> Caption:
    """Return the caption with a lesion: its side and its size by its mask, bool [H, W]; without a mask only that."""
    lesion = replace(head, finding=LESION, side="", size="")
    if mask is None or not mask.any():
        return lesion
    columns = np.flatnonzero(mask) % mask.shape[1] + 0.5
    left = float((columns < mask.shape[1] / 2).mean())
    side = "left" if left >= SIDED else "right" if left <= 1 - SIDED else "central"
    share = float(mask.mean())
    return replace(lesion, side=side, size="small" if share < SMALL else "large" if share >= LARGE else "medium")


def _enter_parts(values: dict[str, str], parts: list[str], text: str) -> None:
    for part in parts:
        lesion, _, side = part.partition(" ")
        if lesion == LESION and side:
            _enter(values, "finding", LESION, text)
            _enter(values, _part_of(side, ("side",), text), side, text)
        else:
            _enter(values, _part_of(part, ("third", "finding", "size"), text), part, text)


def _part_of(word: str, names: tuple[str, ...], text: str) -> str:
    for name in names:
        if word in GRAMMAR[name]:
            return name
    allowed = "; ".join(f"{name}: {', '.join(GRAMMAR[name])}" for name in names)
    raise ConfigError(f"{word!r} in the caption {text!r} is not in the grammar of captions, which has here {allowed}.")


def _enter(values: dict[str, str], name: str, word: str, text: str) -> None:
    if name in values:
        raise ConfigError(f"The caption {text!r} has two words for its {name}: {values[name]!r} and {word!r}.")
    values[name] = word
