"""Which groups of files are images, and which are their masks."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from datasets.decoding.decode import stem_of
from datasets.errors import DataError
from datasets.layout.choice import MAX_CLASSES, check_left_out, choose_masks
from datasets.layout.files import Files, endings_of, spread
from datasets.layout.groups import ANY, Group, find_groups
from datasets.layout.words import common_end, common_start, is_left_out, is_mask_folder, may_name_class, words_of
from datasets.sources.folder.patterns import Match, Pattern, best

MIN_PAIRED: Final = 0.5
"""Minimum share of the masks of a group that belong to an image."""
MIN_READ: Final = 0.9
"""Minimum share of the image files that are read."""
CLASS_COST: Final = 100
SAMPLE: Final = 100
"""Number of masks of a group with which ways to read their names are compared."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Images with their masks.

    Attributes:
        images: The pattern of the images.
        masks: Patterns of masks by annotator; a single one has the name "".
        image_paths: Files that are images.
        mask_paths: Files that are masks.
        paired: Number of images with a mask.
        left_out: Patterns of files, and folders, that are not used.
        check: Other readings that fit as well.
    """

    images: Pattern
    masks: Mapping[str, Pattern]
    image_paths: Sequence[str]
    mask_paths: Sequence[str]
    paired: int
    left_out: Sequence[str]
    check: Sequence[str] = ()

    def matches(self) -> Mapping[str, Match]:
        """Return what the pattern reads from each image."""
        return {path: match for path in self.image_paths if (match := self.images.match(path)) is not None}


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """Images and the groups of masks whose names fit, each with the number of its masks of an image."""

    image: Group
    masks: Sequence[Group]
    counts: Sequence[int]


def pair(files: Files) -> Pairing:
    """Return how images and masks are paired.

    Folders that are alike stand for cases or classes; if names do not fit together so, each folder is of its own kind.

    Raises:
        DataError: Images and masks cannot be told apart or paired, or no reading explains nearly all images.
    """
    groups = find_groups(files)
    try:
        return _pair(files, groups)
    except DataError as error:
        try:
            separate = find_groups(files, cases=False)
            if {group.folder for group in separate} == {group.folder for group in groups}:
                raise
            return _pair(files, separate)
        except DataError:
            raise error from None


def _pair(files: Files, groups: Sequence[Group]) -> Pairing:
    images, masks = _kinds(files, groups)
    partners = _partners(images, masks)
    candidates = [
        candidate
        for image in images
        if (candidate := _candidate(image, [mask for mask in masks if image in partners.get(mask, (image,))])).masks
    ]
    if not candidates:
        raise _misfit(files, images[0], masks[0])
    chosen = max(candidates, key=lambda candidate: sum(candidate.counts))
    image, matched = _with_whole_names(files, chosen.image, chosen.masks)
    patterns, used = choose_masks(files, image, matched)
    taken = {path: best((image.pattern, *patterns.values()), path) for path in files.images}
    image_paths = [path for path, pattern in taken.items() if pattern == image.pattern]
    mask_paths = [path for path, pattern in taken.items() if pattern not in (None, image.pattern)]
    members = {path for group in groups for path in group.paths}
    for pattern in (image.pattern, *patterns.values()):
        check_left_out(
            files, pattern, [path for path in files.images if taken[path] == pattern and path not in members]
        )
    keys = {match.key for path in image_paths if (match := image.pattern.match(path))}
    _check_nearly_all_read(files, images, candidates, chosen, image_paths, keys)
    known = {*image_paths, *mask_paths}
    left_out = [group.pattern.text for group in groups if not known.issuperset(group.paths)]
    names = {_image_key(pattern, path, keys) for path in mask_paths for pattern in patterns.values()} - {None}
    return Pairing(
        images=image.pattern, masks=patterns, image_paths=image_paths, mask_paths=mask_paths, paired=len(names),
        left_out=[*left_out, *_left_out_folders(files, known)],
        check=[*_unlike_masks(used), *_other_masks(matched, used, patterns), *_other_images(candidates, chosen, known)],
    )  # fmt: skip


def _kinds(files: Files, groups: Sequence[Group]) -> tuple[list[Group], list[Group]]:
    """Return the groups of images and of masks: without files that look like masks, those that are named so."""
    by_values = any(group.is_mask for group in groups)
    masks = [group for group in groups if (group.is_mask if by_values else group.is_named_mask)]
    images = [group for group in groups if not (group.is_mask if by_values else group.is_named_mask)]
    if not images:
        raise DataError(
            f"{files.root} has {len(files.images)} files with the few values of masks, and no images; allowed: a "
            "folder of images and masks; name the folder that contains both"
        )
    if not masks:
        others = f" (other files: {endings_of(files.others)})" if files.others else ""
        raise DataError(
            f"{files.root} has {len(files.images)} images, and no masks{others}; allowed: images with masks, at least "
            "of some, as a study measures segmentation; name the folder that contains both"
        )
    return images, masks


def _partners(images: Sequence[Group], masks: Sequence[Group]) -> Mapping[Group, Sequence[Group]]:
    """Return the images of masks whose folder is named after that of the images, such as left and left_mask."""
    partners: dict[Group, list[Group]] = {}
    for image in images:
        words = set(words_of(image.folder.rstrip("/").rpartition("/")[2]))
        if not words or any(is_mask_folder(word) is not None for word in words) or any("*" in word for word in words):
            continue
        for mask in masks:
            if mask.folder != image.folder and words < set(words_of(mask.folder.rstrip("/").rpartition("/")[2])):
                partners.setdefault(mask, []).append(image)
    return partners


def _check_nearly_all_read(
    files: Files,
    images: Sequence[Group],
    candidates: Sequence[_Candidate],
    chosen: _Candidate,
    read: Sequence[str],
    keys: Collection[str],
) -> None:
    """Raise `DataError` if too few images are read; other files of images that are read do not count."""
    explained = {path for mask in chosen.masks for path in mask.paths}
    own = {
        candidate.image.paths
        for candidate in candidates
        if not explained.issuperset(path for mask in candidate.masks for path in mask.paths)
    }
    whole = replace(chosen.image, prefix="", suffix="").pattern
    whole_keys = {match.key for path in read if (match := whole.match(path))}
    unread = []
    for group in images:
        known = keys if group.folder == chosen.image.folder else whole_keys
        if not set(group.paths).issubset(read) and (group.paths in own or not _are_copies(group, known)):
            unread.append(group)
    count = len({path for group in unread for path in group.paths}.difference(read))
    if len(read) < MIN_READ * (len(read) + count):
        texts = ", ".join(group.pattern.text for group in unread[:4])
        raise DataError(
            f"{files.root}: {len(read):,} of {len(read) + count:,} images would be read, as "
            f"{chosen.image.pattern.text}, and others ({texts}) not; allowed: images and masks whose names follow one "
            "pattern; name a folder inside, move the others away, or write `images` and `masks` as patterns yourself"
        )


def _are_copies(group: Group, known: Collection[str]) -> bool:
    """Return whether the names of files are those of images, or continue them."""
    pattern = replace(group, prefix="", suffix="").pattern
    copies = sum(
        _image_key(pattern, path, known) is not None or bool(_after_name(pattern, path, known)) for path in group.paths
    )
    return copies >= MIN_READ * len(group.paths)


def _left_out_folders(files: Files, known: Collection[str]) -> list[str]:
    """Return the folders of predictions, overlays and the like."""
    paths = [path for path in files.images if path not in known and is_left_out(path)]
    return sorted({f"{path.rpartition('/')[0]}/" for path in paths})


def _unlike_masks(used: Sequence[Group]) -> Iterator[str]:
    if not any(group.is_mask for group in used):
        yield "masks are named so, but have more values than usual: whether they are masks, and their classes are right"


def _other_masks(matched: Sequence[Group], used: Sequence[Group], patterns: Mapping[str, Pattern]) -> Iterator[str]:
    others = [group.pattern.text for group in matched if group not in used and len(patterns) == 1]
    if others:
        yield (
            f"masks are read from {patterns[''].text}; {', '.join(others)} also fit the images: if those are the "
            "masks, replace `masks`"
        )


def _other_images(candidates: Sequence[_Candidate], chosen: _Candidate, known: Collection[str]) -> Iterator[str]:
    others = [
        candidate.image.pattern.text
        for candidate in candidates
        if candidate.image.folder != chosen.image.folder and not set(candidate.image.paths).issubset(known)
    ]
    if others:
        yield (
            f"images are read from {chosen.image.pattern.text}; {', '.join(others)} also fit the masks: replace "
            "`images` to read those"
        )


def _misfit(files: Files, image: Group, mask: Group) -> DataError:
    """Return the error for images and masks whose names do not fit together."""
    cases: list[Counter[str]] = [
        Counter(match.key.rpartition("/")[0] for path in group.paths if (match := group.pattern.match(path)))
        for group in (image, mask)
    ]
    shared = [case for case in cases[0] if case and case in cases[1]]
    several = [case for case in shared if cases[0][case] == 1 and cases[1][case] > 1]
    if 2 * len(several) > len(cases[0]):
        path = next(path for path in image.paths if (found := image.pattern.match(path)) and several[0] in found.key)
        return DataError(
            f"{files.root} has several masks per image, one for each object, such as {cases[1][several[0]]} for "
            f"{path}; allowed: one mask an image, or one for each class; combine the masks of each image in one file"
        )
    names = stem_of(image.paths[0]), stem_of(mask.paths[0])
    start = common_start(names)
    end = common_end([name[len(start) :] for name in names])
    differing = [name[len(start) : len(name) - len(end)] for name in names]
    reason = f"'{differing[0]}' against '{differing[1]}'" if any(differing) else "equal, in folders that differ"
    return DataError(
        f"{files.root} has images such as {image.paths[0]} and masks such as {mask.paths[0]}, whose names do not fit "
        f"together ({reason}); allowed: masks with the name of the image and a constant beginning or end; rename the "
        "masks, or write `images` and `masks` as patterns yourself"
    )


def _image_key(pattern: Pattern, path: str, keys: Collection[str]) -> str | None:
    """Return the name of the image of a mask, None if the pattern does not match or there is no such image."""
    match = pattern.match(path)
    if match is None:
        return None
    return next((key for key in (match.key, match.name) if key in keys), None)


def _candidate(image: Group, masks: Sequence[Group]) -> _Candidate:
    """Return images and their masks, with the prefixes and suffixes by which most pair."""
    options = []
    for variant in image.stripped():
        keys = [match.key for path in variant.paths if (match := variant.pattern.match(path))]
        if len(set(keys)) < len(keys):
            continue
        known = frozenset(keys) | frozenset(key.partition("/")[2] for key in keys if variant.pattern.has_parts)
        matched, counts, length = [], [], len(variant.prefix) + len(variant.suffix)
        for mask in masks:
            sample = replace(mask, paths=tuple(spread(mask.paths, SAMPLE)))
            ways = [(len(_reads(way, known)), -_cost(way), way) for way in _variants(sample, known)]
            count, _, way = max(ways, key=lambda entry: entry[:2])
            way = replace(way, paths=mask.paths)
            number = len(_reads(way, known)) if count else 0
            if number >= max(1, MIN_PAIRED * len(mask.paths)):
                matched.append(way)
                counts.append(number)
                length += len(way.prefix + way.suffix)
        options.append((sum(counts), -length, _Candidate(image=variant, masks=matched, counts=counts)))
    if not options:
        return _Candidate(image=image, masks=(), counts=())
    return max(options, key=lambda option: option[:2])[2]


def _reads(group: Group, known: Collection[str]) -> set[tuple[str, str]]:
    """Return the images and classes of files."""
    return {
        (key, match.class_name)
        for path in group.paths
        if (key := _image_key(group.pattern, path, known)) is not None and (match := group.pattern.match(path))
    }


def _variants(group: Group, known: Collection[str]) -> list[Group]:
    """Return the ways to read the names of masks: folders may be classes, or of no meaning."""
    folders = [group.folder]
    for text in (f"{ANY}/", "*/"):
        if group.folder.endswith(text):
            outer = group.folder.removesuffix(text)
            folders += [outer + "{class}/", outer + "*/"]
    folders += [folder.replace(f"{ANY}/", "*/") for folder in folders]
    variants = []
    for folder in dict.fromkeys([group.folder] if group.fixed else folders):
        way = replace(group, folder=folder)
        if not way.pattern.has_classes or _are_classes({_class_of(way, path) for path in way.paths}):
            variants += way.stripped()
        if not way.pattern.has_classes:
            variants += _with_class_suffix(way, known)
    return variants


def _cost(mask: Group) -> int:
    """Return how much a way to read names of masks assumes: removed text, and most of all classes at their end."""
    return len(mask.prefix + mask.suffix) + CLASS_COST * ("{class}" in mask.suffix)


def _class_of(group: Group, path: str) -> str:
    match = group.pattern.match(path)
    return "" if match is None else match.class_name


def _are_classes(names: Collection[str]) -> bool:
    return len(names) <= MAX_CLASSES and all(map(may_name_class, names))


def _with_class_suffix(mask: Group, known: Collection[str]) -> list[Group]:
    """Return the ways to read what follows the name of the image as a class: `{name}_{class}`."""
    variants = []
    for prefix in dict.fromkeys(("", mask.prefix)) if not mask.fixed else ():
        whole = replace(mask, prefix=prefix, suffix="")
        rests = {_after_name(whole.pattern, path, known) for path in mask.paths}
        if len(rests) < 2 or "" in rests:
            continue
        start = re.sub(r"[^_. -]+$", "", common_start([*rests]))
        end = re.sub(r"^[^_. -]+", "", common_end([rest[len(start) :] for rest in rests]))
        names = {rest[len(start) : len(rest) - len(end)] for rest in rests}
        way = replace(whole, suffix=f"{start}{{class}}{end}")
        is_plain = all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_ -]*", name) for name in names)
        if start and is_plain and _are_classes(names) and {_class_of(way, path) for path in way.paths} == names:
            variants.append(way)
    return variants


def _after_name(pattern: Pattern, path: str, known: Collection[str]) -> str:
    """Return what follows the longest name of an image in the name of a mask, "" if none does."""
    match = pattern.match(path)
    for text in () if match is None else (match.key, match.name):
        for place in range(len(text) - 1, 0, -1):
            if not text[place].isalnum() and text[:place] in known:
                return text[place:]
    return ""


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
