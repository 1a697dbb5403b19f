"""Labelled scans that a text-to-image model learns from, with the words for what their labels and masks say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.config import Config, Settings
from pipeline.data.images.captions import NO_FINDING, Caption, describe_lesion, parse_words
from pipeline.data.images.conditions import about_slice
from pipeline.data.images.load_slice import load_mask
from pipeline.data.sets.selection import Selection
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import ConfigError
from pipeline.methods.text_to_image import TextToImageConfig
from pipeline.types import SliceRef

ANY = Caption(image="MR")  # a head, which the words of a finding do not need


class CaptionsConfig(Config):
    """Learning from labelled scans and their captions, which a model of normality never does."""

    labelled_in: tuple[Literal["gate", "develop"], ...] = Field(
        ("gate",), min_length=1, description="sets whose labelled slices are learned from as well, lesions included"
    )
    hold_out: tuple[str, ...] = Field(
        (), description="words of a caption, such as 'upper third, lesion left'; slices with all of them are left out"
    )

    @field_validator("hold_out")
    @classmethod
    def _are_words(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for text in texts:
                parse_words(text)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return texts

    def holds_out(self, caption: Caption) -> bool:
        """Return whether a caption has all the words of one of `hold_out`."""
        return any(caption.includes(parse_words(text)) for text in self.hold_out)


def find_finding(ref: SliceRef, store: PixelStore) -> str:
    """Return the words for a slice's finding by its label and its mask; "" without a label."""
    if ref.label == "unknown":
        return ""
    normal = Caption(image="MR", finding=NO_FINDING)
    return (normal if ref.label == "normal" else describe_lesion(ANY, load_mask(store, ref))).write_finding()


def about_labelled(ref: SliceRef, store: PixelStore) -> dict[str, Any]:
    """Return the conditions of a slice, and its finding where it has a label."""
    words = find_finding(ref, store)
    return about_slice(ref) | ({"finding": words} if words else {})


def read_findings_of(selection: Selection, settings: Settings) -> dict[str, dict[str, str]]:
    """Return the words for each slice's finding, by its id, as attributes of its image."""
    store = PixelStore(settings.store)
    return {ref.slice_id: {"finding": words} for ref in selection.slices if (words := find_finding(ref, store))}


def captions_of(selection: Selection, method: TextToImageConfig, settings: Settings) -> dict[str, Caption]:
    """Return the caption of each slice, by its id; masks are read for it."""
    store = PixelStore(settings.store)
    captions = method.caption([about_labelled(ref, store) for ref in selection.slices])
    return {ref.slice_id: caption for ref, caption in zip(selection.slices, captions, strict=True)}


def leave_out(selection: Selection, captions: Mapping[str, Caption], config: CaptionsConfig) -> Selection:
    """Return the selection without the slices whose caption is held out."""
    return replace(
        selection, slices=tuple(ref for ref in selection.slices if not config.holds_out(captions[ref.slice_id]))
    )
