"""Words in names of files and folders that tell images, masks, annotators and parts apart."""

import re
from collections.abc import Sequence
from typing import Final

from datasets.sources.folder.patterns import PARTS

_MASK: Final = (
    r"masks?|segmentations?|segs?|segmentationclass|gts?|ground[ _-]?truths?|truths?|labels?|annotations?|annots?|"
    r"annos?|anns?|"
    r"manual\d?|manualmasks?|contours?|outlines?|rois?|lesions?"
)
_IMAGE: Final = (
    r"images?|imgs?|jpegimages|scans?|photos?|pictures?|originals?|raw|inputs?|cxrs?|slices?|frames?|volumes?"
)
_ORDINAL: Final = (
    r"(?:1st|2nd|3rd|[1-9]th)[ _-]?(?:ho|manual|observer|annotator|expert|reader|rater|grader)?|"
    r"(?:observer|annotator|expert|reader|rater|grader|manual|ho)[ _-]?[0-9a-e]"
)
MASK_WORD: Final = re.compile(rf"(?:{_MASK}|{_ORDINAL})", re.IGNORECASE)
IMAGE_WORD: Final = re.compile(rf"(?:{_IMAGE})", re.IGNORECASE)
ANNOTATOR: Final = re.compile(rf"[ _-]*(?:{_ORDINAL})", re.IGNORECASE)
_AFFIX: Final = rf"(?:{_MASK}|{_ORDINAL}|{_IMAGE})"
SUFFIX: Final = re.compile(rf"(?<=[^_ .-])([_ .-]+{_AFFIX})$", re.IGNORECASE)
PREFIX: Final = re.compile(rf"^({_AFFIX}[_ .-]+)(?=.)", re.IGNORECASE)
_PART: Final = "|".join(sorted(PARTS, key=len, reverse=True))
PART_WORD: Final = re.compile(rf"(?<![a-z])({_PART})(?![a-z])", re.IGNORECASE)
NO_MASKS: Final = frozenset({"segmentationobject", "overlay", "overlays", "preview", "previews", "visualization"})
"""Folders, in small letters, of pictures that are neither images nor masks of classes."""


def words_of(name: str) -> list[str]:
    """Return the words of a folder name in small letters."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[ _.\-]+", parted.lower()) if word]


def is_mask_folder(name: str) -> bool | None:
    """Return whether a folder has masks according to its name, None if it does not tell."""
    if MASK_WORD.fullmatch(name):
        return True
    words = words_of(name)
    if any(IMAGE_WORD.fullmatch(word) for word in words[-1:]):
        return False
    if any(MASK_WORD.fullmatch(word) for word in words):
        return True
    return False if any(IMAGE_WORD.fullmatch(word) for word in words) else None


def structure_of(texts: Sequence[str]) -> str:
    """Return the last of some texts that may name a structure, without words for masks, images and parts."""
    for text in reversed(texts):
        words = [word for word in re.split(r"[ _.\-]+", PART_WORD.sub(" ", text)) if word]
        named = [word for word in words if not MASK_WORD.fullmatch(word) and not IMAGE_WORD.fullmatch(word)]
        name = "_".join(named)
        if named and len(named) == len(words) and re.fullmatch(r"[A-Za-z][A-Za-z_]{2,24}", name):
            return name.lower()
    return ""


def common_start(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first, last = min(texts, default=""), max(texts, default="")
    length = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    return first[: min(length, len(last))]


def common_end(texts: Sequence[str]) -> str:
    """Return what all texts end with."""
    return common_start([text[::-1] for text in texts])[::-1]
