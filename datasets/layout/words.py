"""Words in names of files and folders that tell images, masks, annotators and parts apart."""

import re
from collections.abc import Sequence
from typing import Final

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES
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
STRONG_MASK_WORD: Final = re.compile(
    r"manual\d?|labels?|gts?|truths?|annotations?|annots?|segmentations?|segs?|vessels?|lesions?|contours?",
    re.IGNORECASE,
)
"""Words for masks of structures; `mask` alone may also be the field of view."""
IMAGE_WORD: Final = re.compile(rf"(?:{_IMAGE})", re.IGNORECASE)
ANNOTATOR: Final = re.compile(rf"[ _-]*(?:{_ORDINAL})", re.IGNORECASE)
_AFFIX: Final = rf"(?:{_MASK}|{_ORDINAL}|{_IMAGE})"
SUFFIX: Final = re.compile(rf"(?<=[^_ .-])([_ .-]+{_AFFIX})$", re.IGNORECASE)
PREFIX: Final = re.compile(rf"^({_AFFIX}[_ .-]+)(?=.)", re.IGNORECASE)
_PART: Final = "|".join(sorted(PARTS, key=len, reverse=True))
PART_WORD: Final = re.compile(rf"(?<![a-z])({_PART})(?![a-z])", re.IGNORECASE)
NO_MASKS: Final = frozenset({
    "segmentationobject", "overlay", "overlays", "preview", "previews", "visualization", "visualizations",
    "visualisation", "visualisations", "thumbnail", "thumbnails", "pred", "preds", "predicted", "prediction",
    "predictions", "output", "outputs", "result", "results", "fov",
})  # fmt: skip
"""Words, in small letters, in names of folders whose files are neither images nor masks of classes."""
NO_CLASSES: Final = frozenset({"color", "colors", "colour", "colours", "instance", "instances", "id", "ids"})
"""Words, in small letters, in names of files that show all classes."""
FORMATS: Final = frozenset(suffix.lstrip(".") for suffix in SUFFIXES | VOLUME_SUFFIXES) | {"jpeg", "jpg", "tiff"}
"""Names of file formats."""


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


def is_left_out(path: str) -> bool:
    """Return whether a file is in a folder of predictions, overlays or the like."""
    folders = path.split("/")[:-1]
    return any(not NO_MASKS.isdisjoint({folder.lower(), *words_of(folder)}) for folder in folders)


def may_name_class(text: str) -> bool:
    """Return whether a text may be the name of a class: no number, format, part, word for masks or other pictures."""
    words = words_of(text)
    return (
        any(char.isalpha() for char in text)
        and not MASK_WORD.fullmatch(text)
        and not IMAGE_WORD.fullmatch(text)
        and text.lower() not in PARTS
        and not (FORMATS | NO_MASKS | NO_CLASSES).intersection({text.lower(), *words})
    )


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
