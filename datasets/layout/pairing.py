"""Which groups of files are images, and which are their masks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from datasets.decoding.decode import stem_of
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.layout.groups import ANY, Group, find_groups
from datasets.layout.words import ANNOTATOR, common_end, common_start
from datasets.sources.folder.patterns import PLACEHOLDERS, Match, Pattern, best

MIN_PAIRED: Final = 0.5
"""Minimum share of the masks of a group that belong to an image."""
MAX_CLASSES: Final = 40
CLASS_COST: Final = 100


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Images with their masks.

    Attributes:
        images: The pattern of the images.
        masks: Patterns of masks by annotator; a single one has the name "".
        image_paths: Files that are images.
        mask_paths: Files that are masks.
        paired: Number of images with a mask.
        left_out: Patterns of files that are not used.
    """

    images: Pattern
    masks: Mapping[str, Pattern]
    image_paths: Sequence[str]
    mask_paths: Sequence[str]
    paired: int
    left_out: Sequence[str]

    def matches(self) -> Mapping[str, Match]:
        """Return what the pattern reads from each image."""
        return {path: match for path in self.image_paths if (match := self.images.match(path)) is not None}


def pair(files: Files) -> Pairing:
    """Return how images and masks are paired. Raises `DataError` if they cannot be told apart or paired."""
    groups = find_groups(files)
    for group in groups:
        fault = group.pattern.fault(PLACEHOLDERS)
        if fault:
            raise DataError(f"{files.root / group.paths[0]}: the pattern of its name {fault}, or rename the folder")
    images = [group for group in groups if not group.is_mask]
    masks = [group for group in groups if group.is_mask]
    if not images:
        raise DataError(
            f"{files.root} has {len(files.images)} files with the few values of masks, and no images; allowed: a "
            "folder of images and masks; name the folder that contains both"
        )
    if not masks:
        raise DataError(
            f"{files.root} has {len(files.images)} images, and no masks; allowed: images with masks, at least of some, "
            "as a study measures segmentation; name the folder that contains both"
        )
    candidates = [(paired, matched) for image in images for paired, matched in [_paired(image, masks)] if matched]
    if not candidates:
        raise DataError(
            f"{files.root} has images ({images[0].pattern.text}) and masks ({masks[0].pattern.text}) whose names do "
            "not fit together; allowed: names that differ in a constant beginning or end; rename the masks"
        )
    image, matched = max(candidates, key=lambda candidate: sum(len(group.paths) for group in candidate[1]))
    image, matched = _with_whole_names(files, image, matched)
    patterns, used = _mask_patterns(image, matched)
    kept = {path for group in used for path in group.paths}
    taken = [best((image.pattern, *patterns.values()), path) for path in files.images]
    image_paths = [path for path, pattern in zip(files.images, taken, strict=True) if pattern == image.pattern]
    mask_paths = (
        [
            path
            for path, pattern in zip(files.images, taken, strict=True)
            if pattern is not None and path not in image_paths
        ]
        if len(files.images) < 2000
        else sorted(kept)
    )
    known = {*image_paths, *mask_paths}
    left_out = [group.pattern.text for group in groups if not known.issuperset(group.paths)]
    keys = {match.key for path in image_paths if (match := image.pattern.match(path))}
    names = {_image_key(pattern, path, keys) for path in mask_paths for pattern in patterns.values()} - {None}
    return Pairing(
        images=image.pattern, masks=patterns, image_paths=image_paths, mask_paths=mask_paths, paired=len(names),
        left_out=left_out,
    )  # fmt: skip


def _image_key(pattern: Pattern, path: str, keys: "set[str] | frozenset[str]") -> str | None:
    """Return the name of the image of a mask, None if the pattern does not match or there is no such image."""
    match = pattern.match(path)
    if match is None:
        return None
    if match.key in keys:
        return match.key
    return next((key for key in (match.name,) if key in keys), None)


def _paired(image: Group, masks: Sequence[Group]) -> tuple[Group, list[Group]]:
    """Return an image group and the groups of its masks, with the prefixes and suffixes by which most pair."""
    options = []
    for variant in image.stripped():
        keys = [match.key for path in variant.paths if (match := variant.pattern.match(path))]
        if len(set(keys)) < len(keys):
            continue
        known = frozenset(keys) | frozenset(key.partition("/")[2] for key in keys if variant.pattern.has_parts)
        matched, count, length = [], 0, len(variant.prefix) + len(variant.suffix)
        for mask in masks:
            pairs = [(len(_keys_of(other, known)), -_cost(other), other) for other in _variants(mask)]
            number, _, other = max(pairs, key=lambda entry: entry[:2])
            if number >= max(1, MIN_PAIRED * len(mask.paths)):
                matched.append(other)
                count += number
                length += len(other.prefix + other.suffix)
        options.append((count, -length, variant, matched))
    if not options:
        return image, []
    return max(options, key=lambda option: option[:2])[2:]


def _keys_of(mask: Group, known: frozenset[str]) -> list[str]:
    return [key for path in mask.paths if (key := _image_key(mask.pattern, path, known)) is not None]


def _variants(mask: Group) -> list[Group]:
    """Return the ways to read the names of masks: folders may be classes, or of no meaning."""
    variants = [*mask.stripped(), *_with_class_suffix(mask)]
    for text in (f"{ANY}/", "*/"):
        if mask.folder.endswith(text) and not mask.fixed:
            outer = mask.folder.removesuffix(text)
            for meaning in ("{class}/", "*/"):
                variants += replace(mask, folder=outer + meaning).stripped()
            variants += _with_class_suffix(replace(mask, folder=f"{outer}*/"))
    return variants


def _cost(mask: Group) -> int:
    """Return how much a way to read names of masks assumes: removed text, and most of all classes at their end."""
    return len(mask.prefix + mask.suffix) + CLASS_COST * ("{class}" in mask.suffix)


def _with_class_suffix(mask: Group) -> list[Group]:
    """Return the ways to read the end of the names of masks as their class, if there are few ends."""
    variants = []
    for separator in ("_", "-"):
        ends = {stem_of(path).rpartition(separator)[2] for path in mask.paths}
        are_words = all(re.fullmatch("[A-Za-z][A-Za-z0-9]*", end) for end in ends)
        if not mask.fixed and 1 < len(ends) <= MAX_CLASSES and are_words:
            variants.append(replace(mask, prefix="", suffix=f"{separator}{{class}}"))
    return variants


def _with_whole_names(files: Files, image: Group, masks: Sequence[Group]) -> tuple[Group, list[Group]]:
    """Move text at the start or end that the names of images and masks have in common into the name."""
    changed = [image, *masks]
    prefixes, suffixes = ({getattr(group, key) for group in changed} for key in ("prefix", "suffix"))
    if len(prefixes) == 1:
        changed = [replace(group, prefix="") for group in changed]
    if len(suffixes) == 1 and "{" not in next(iter(suffixes)):
        changed = [replace(group, suffix="") for group in changed]
    patterns = [group.pattern for group in changed]
    before = [group.pattern for group in (image, *masks)]
    for path in files.images:
        old, new = best(before, path), best(patterns, path)
        if (None if old is None else before.index(old)) != (None if new is None else patterns.index(new)):
            return image, list(masks)
    return changed[0], changed[1:]


def _mask_patterns(image: Group, masks: Sequence[Group]) -> tuple[dict[str, Pattern], list[Group]]:
    """Return the patterns of masks by annotator, and the groups that they read."""
    largest = max(masks, key=lambda group: len(group.paths))
    if len(masks) == 1:
        return {"": largest.pattern}, [largest]
    by_annotator = [(_annotator(group), group) for group in sorted(masks, key=lambda group: group.pattern.text)]
    annotators = {name: group for name, group in by_annotator if name}
    if len(annotators) > 1 and len(annotators) == sum(bool(name) for name, _ in by_annotator):
        return {name: group.pattern for name, group in annotators.items()}, list(annotators.values())
    texts = [group.pattern.text for group in masks]
    start = common_start(texts)
    end = common_end([text[len(start) :] for text in texts])
    start = re.sub(r"[^/_\-. {}]+$", "", start)
    end = re.sub(r"^[^/_\-. {}]+", "", end)
    names = [text[len(start) : len(text) - len(end)] for text in texts]
    together = Pattern(f"{start}{{class}}{end}")
    if (
        all(re.fullmatch(r"[^/{}*]+", name) for name in names)
        and not together.fault(("name", "class", "part"))
        and all(best((image.pattern, together), path) == image.pattern for path in image.paths)
        and len(names) <= MAX_CLASSES
    ):
        return {"": together}, list(masks)
    return {"": largest.pattern}, [largest]


def _annotator(group: Group) -> str:
    """Return the name of the annotator in the names of files or folders, "" if they name none."""
    texts = [group.suffix, group.prefix, group.fixed, *group.folder.split("/")]
    name = next((text for text in texts if text and ANNOTATOR.fullmatch(text.strip("_ -."))), "")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.strip("_ -."))
