"""Images and masks that belong together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets.cache.manifest import Listing
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.sources.common.published import MaskFile
from datasets.sources.folder.images import ImageFile
from datasets.sources.folder.patterns import Match, Pattern, best

Masks = Mapping[str, list[MaskFile]]
"""Masks by the id of their image."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Images and masks; `masks` of each annotator, `names` by id the texts that may name patients."""

    images: Sequence[ImageFile]
    masks: tuple[Masks, ...]
    names: Mapping[str, str]


def read_pairs(listing: Listing, images: Pattern, masks: Sequence[Pattern]) -> Pairs:
    """Pair images and masks by patterns; an image without a mask is unlabelled.

    Raises `DataError` for two images or two masks of one name, and for masks without an image.
    """
    matches: dict[Pattern, dict[str, Match]] = {pattern: {} for pattern in (images, *masks)}
    for path in listing.files:
        pattern = best((images, *masks), path)
        match = pattern.match(path) if pattern is not None else None
        if pattern is not None and match is not None:
            matches[pattern][path] = match
    found: dict[str, ImageFile] = {}
    names: dict[str, str] = {}
    for path, match in matches[images].items():
        key = normal(match.key)
        if key in found:
            raise DataError(
                f"{listing.root}: images ({images.text}) matches {found[key].path} and {path}, both named '{key}'; "
                "allowed: one image a name; use ** for folders that belong to the name, or a narrower pattern"
            )
        found[key] = ImageFile(id=key, path=path, official=match.official)
        names[key] = match.name
    if not found:
        raise DataError(
            f"{listing.root}: images ({images.text}) matches no image; allowed: a pattern of paths below `root`; "
            "correct it"
        )
    by_name: dict[str, list[str]] = defaultdict(list)
    for key, name in names.items():
        by_name[normal(name)].append(key)
    of_annotators = tuple(
        _masks(listing, pattern, matches[pattern], found, {} if images.has_parts and pattern.has_parts else by_name)
        for pattern in masks
    )
    return Pairs(images=list(found.values()), masks=of_annotators, names=names)


def _masks(
    listing: Listing,
    pattern: Pattern,
    matches: Mapping[str, Match],
    images: Mapping[str, ImageFile],
    by_name: Mapping[str, Sequence[str]],
) -> Masks:
    """Return the masks that a pattern matches, by image; `by_name` are images by their name without its part."""
    masks: dict[str, list[MaskFile]] = defaultdict(list)
    orphans = []
    for path, match in matches.items():
        key, keys = normal(match.key), by_name.get(normal(match.name), ())
        if key not in images and len(keys) > 1:
            raise DataError(
                f"{listing.root / path} is the mask of {len(keys)} images ({', '.join(keys[:2])}); allowed: one; use "
                "{part} in both patterns"
            )
        if key not in images and not keys:
            orphans.append(path)
            continue
        image = key if key in images else keys[0]
        other = next((mask.path for mask in masks[image] if mask.name == match.class_name), None)
        if other is not None:
            raise DataError(
                f"{listing.root}: {image} has two masks, {other} and {path}; allowed: one (a class); use a narrower "
                "pattern, or `annotators`"
            )
        masks[image].append(MaskFile(path=path, name=match.class_name))
    if orphans:
        raise DataError(
            f"{listing.root / orphans[0]} belongs to no image ({len(orphans)} such masks); allowed: the name of an "
            f"image, such as {next(iter(images))}; correct `masks` ({pattern.text}) or `images`, or remove it"
        )
    if not matches:
        raise DataError(
            f"{listing.root}: masks ({pattern.text}) matches no mask; allowed: a pattern of paths below `root`; "
            "correct or remove it"
        )
    return masks
