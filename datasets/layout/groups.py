"""Groups of files that one pattern of paths describes."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from datasets.decoding.decode import VOLUME_SUFFIXES, stem_of, suffix_of
from datasets.errors import DataError
from datasets.layout.files import Files, spread
from datasets.layout.values import looks_like_masks, sample_masks
from datasets.layout.words import (
    MASK_WORD,
    PART_WORD,
    PREFIX,
    SUFFIX,
    common_end,
    common_start,
    is_left_out,
    is_mask_folder,
)
from datasets.sources.folder.patterns import Pattern

ANY: Final = "**"
MAX_KNOWN: Final = 8
"""Maximum number of sibling folders whose files are looked at to tell images and masks apart."""
LOOKED_AT: Final = 3
"""Number of files of a group that are looked at."""
MAX_GROUPS: Final = 64
"""Maximum number of groups that are compared."""
RESERVED: Final = frozenset("{}*")
"""Characters that have a meaning in patterns."""
MIN_SHARE: Final = 0.2
"""Minimum share of the files of a folder that an unknown ending of names must have."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files of one kind.

    Attributes:
        folder: Pattern of their folder with a slash at the end, "" for the root.
        prefix: Text before the name that pairs images and masks.
        suffix: Text after it.
        paths: The files.
        fixed: The file name, if folders have the names instead.
        is_mask: Whether these are masks, by names and values.
        is_named_mask: Whether these are masks by their names.
    """

    folder: str
    prefix: str
    suffix: str
    paths: tuple[str, ...]
    fixed: str = ""
    is_mask: bool = False
    is_named_mask: bool = False

    @cached_property
    def ending(self) -> str:
        """Return the suffix of the files, `.*` if they differ."""
        endings = {path[len(path) - len(suffix_of(path)) :] for path in self.paths}
        return endings.pop() if len(endings) == 1 else ".*"

    @cached_property
    def pattern(self) -> Pattern:
        """Return the pattern of the files."""
        if self.fixed:
            return Pattern(f"{self.folder}{{name}}/{self.fixed}{self.ending}")
        return Pattern(f"{self.folder}{self.prefix}{{name}}{self.suffix}{self.ending}")

    def stripped(self) -> list["Group"]:
        """Return the group with what all names have in common at their start, end or both moved out of the name."""
        if self.fixed or len(self.paths) < 2:
            return [self]
        cores = [stem_of(path)[len(self.prefix) :] for path in self.paths]
        cores = [
            core[: len(core) - len(self.suffix)] if self.suffix and "{" not in self.suffix else core for core in cores
        ]
        start = re.sub(r"[0-9]+$", "", common_start(cores))
        end = re.sub(r"^[0-9]+", "", common_end(cores))
        if any(len(core) <= len(start) + len(end) for core in cores):
            start = end = ""
        texts = [(start, ""), ("", end), (start, end)]
        variants = [
            replace(self, prefix=self.prefix + before, suffix=after + self.suffix)
            for before, after in dict.fromkeys(texts)
            if (before or after) and not RESERVED.intersection(before + after)
        ]
        return [self, *variants]


def find_groups(files: Files, *, cases: bool = True) -> list[Group]:
    """Return the groups of the images and masks of a data set, largest first.

    Args:
        files: The files; those of predictions, overlays and the like are in no group.
        cases: Whether folders that are alike may stand for cases or classes; otherwise each folder is of its own kind.

    Raises:
        DataError: There are too many groups, or a folder whose name no pattern can have.
    """
    paths = [path for path in files.images if not is_left_out(path)] or files.images
    by_folder: dict[str, list[str]] = defaultdict(list)
    templates = _templates(files.root, paths, cases=cases)
    for path in paths:
        by_folder[templates[path.rpartition("/")[0]]].append(path)
    groups = [group for folder, members in by_folder.items() for group in _by_name(folder, members)]
    if len(groups) > MAX_GROUPS:
        examples = ", ".join(group.paths[0] for group in groups[:3])
        raise DataError(
            f"{files.root} has {len(groups):,} kinds of files by folders and endings of names ({examples}, ...); "
            f"allowed: at most {MAX_GROUPS}; name a folder inside with the images and masks of one data set"
        )
    known = [_with_kind(files.root, group) for group in groups]
    return sorted(known, key=lambda group: -len(group.paths))


def _templates(root: Path, paths: Sequence[str], *, cases: bool) -> Mapping[str, str]:
    """Return the pattern of each folder: parts, and folders that stand for cases or classes, become placeholders."""
    folders = sorted({path.rpartition("/")[0] for path in paths})
    examples: dict[str, str] = {}
    for path in paths:
        for end in range(len(path)):
            if path[end] == "/":
                examples.setdefault(path[:end], path)
    parts = {match[1].lower() for folder in folders for match in [PART_WORD.search(folder)] if match}
    several = len({name[:3] for name in parts}) > 1
    children: dict[str, set[str]] = defaultdict(set)
    for folder in examples:
        parent, _, name = folder.rpartition("/")
        if is_mask_folder(name) is None and not (several and PART_WORD.search(name)):
            children[parent].add(name)
    variable = {parent: cases and _are_cases(root, parent, names, examples) for parent, names in children.items()}
    result = {}
    for folder in folders:
        parts_of: list[str] = []
        segments = folder.split("/") if folder else []
        for number, name in enumerate(segments):
            parent = "/".join(segments[:number])
            is_case = name in children.get(parent, ()) and variable[parent]
            if not is_case and RESERVED.intersection(name):
                raise DataError(
                    f"{root / parent / name} has one of the characters {{ }} * in its name, which have a meaning in "
                    "patterns of paths; allowed: folder names without them; rename the folder"
                )
            if several and PART_WORD.search(name) and "{part}" not in "/".join(parts_of):
                parts_of.append(PART_WORD.sub("{part}", name, count=1))
            elif is_case:
                if ANY not in parts_of:
                    parts_of.append(ANY)
                elif parts_of[-1] != ANY:
                    parts_of.append("*")
            else:
                parts_of.append(name)
        result[folder] = "".join(f"{part}/" for part in parts_of)
    return result


def _are_cases(root: Path, parent: str, names: set[str], examples: Mapping[str, str]) -> bool:
    """Return whether sibling folders are alike, as those of cases or classes, and not of images and masks."""
    if len(names) < 2:
        return False
    if len(names) > MAX_KNOWN:
        return True
    paths = [examples[f"{parent}/{name}" if parent else name] for name in sorted(names)]
    folders = [path.rpartition("/")[0] for path in paths]
    if any(is_mask_folder(segment) is not None for folder in folders for segment in folder.split("/")):
        return True  # further folders tell images and masks apart
    return len({looks_like_masks(sample_masks(root, [path])) for path in paths}) == 1


def _by_name(folder: str, paths: Sequence[str]) -> list[Group]:
    """Return the groups of the files of alike folders, by the beginnings and ends of their names."""
    fixed = _fixed_names(folder, paths)
    if fixed is not None:
        return fixed
    affixes = _affixes(folder, paths)
    counts = Counter(affixes.values())
    least = 2 if len(paths) > 3 else 1
    affixes = {path: affix if counts[affix] >= least else ("", "") for path, affix in affixes.items()}
    plain = {path for path, affix in affixes.items() if not affix[1]}
    affixes |= _continued(plain, affixes, len(paths))
    by_affix: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, affix in affixes.items():
        by_affix[affix].append(path)
    groups = []
    for (prefix, suffix), members in by_affix.items():
        names = set(map(_whole, members))
        endings = {suffix_of(path) for path in members} if len(names) < len(members) else {""}
        for ending in sorted(endings):
            chosen = tuple(path for path in members if not ending or suffix_of(path) == ending)
            groups.append(Group(folder=folder, prefix=prefix, suffix=suffix, paths=chosen))
    return groups


def _fixed_names(folder: str, paths: Sequence[str]) -> list[Group] | None:
    """Return groups of equal file names in folders that have the names of cases, None if names are not like that."""
    if not folder.endswith(f"{ANY}/"):
        return None
    folders = {path.rpartition("/")[0] for path in paths}
    counts = Counter(stem_of(path) for path in paths)
    are_counted = len(counts) > 1 and len({re.sub(r"\d+", "", stem) for stem in counts}) == 1
    is_fixed = (
        len(folders) > 1
        and not are_counted
        and len(counts) <= MAX_KNOWN
        and all(re.search("[A-Za-z]", stem) and 5 * count >= 4 * len(folders) for stem, count in counts.items())
    )
    if not is_fixed:
        return None
    depths = {path.count("/") for path in paths}
    outer = folder.removesuffix(f"{ANY}/") if len(depths) == 1 and min(depths) == folder.count("/") else folder
    return [
        Group(
            folder=outer, prefix="", suffix="", fixed=stem, paths=tuple(path for path in paths if stem_of(path) == stem)
        )
        for stem in counts
    ]


def _affixes(folder: str, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return the texts before and after the name in each file name.

    Names that continue the name of their folder belong to images of the case, as in `p1/p1_7.png`, unless masks lack
    what follows: then it tells apart the files of the case, as in `p1/p1_flair.png` beside `p1/p1_seg.png`.
    """
    affixes = {path: _affix(path, folder) for path in paths}
    if not folder.endswith(f"{ANY}/"):
        return affixes
    plain = {_whole(path) for path, (_, suffix) in affixes.items() if not suffix}
    cores = [_whole(path).removesuffix(suffix) for path, (_, suffix) in affixes.items() if suffix]
    if not cores or 2 * sum(core in plain for core in cores) >= len(cores):
        return affixes
    rests = {path: _after_case(path) for path in paths}
    counts, folders = Counter(rests.values()), {path.rpartition("/")[0] for path in paths}
    return {
        path: ("", rest) if rest and 2 * counts[rest] >= len(folders) else affixes[path] for path, rest in rests.items()
    }


def _after_case(path: str) -> str:
    """Return what follows the name of the folder in a file name, "" if nothing does."""
    stem, case = stem_of(path), path.rpartition("/")[0].rpartition("/")[2]
    rest = stem.removeprefix(case)
    return rest if rest not in ("", stem) and not rest[0].isalnum() and not RESERVED.intersection(rest) else ""


def _whole(path: str) -> str:
    """Return a path without the suffix of the file."""
    return path[: len(path) - len(suffix_of(path))]


def _affix(path: str, folder: str) -> tuple[str, str]:
    """Return known words before and after the name in a file name."""
    stem = stem_of(path)
    before, after = PREFIX.search(stem), SUFFIX.search(stem)
    prefix = before[1] if before else ""
    part = PART_WORD.search(stem)
    if part and "{part}" in folder and stem.endswith(part[0]) and f"/{path}".find(part[0]) < len(path) - len(stem):
        stem_end = stem[part.start() - 1 :] if part.start() > 1 and not stem[part.start() - 1].isalnum() else part[0]
        return prefix, stem_end.replace(part[0], "{part}")
    return prefix, after[1] if after else ""


def _continued(plain: set[str], affixes: Mapping[str, tuple[str, str]], count: int) -> dict[str, tuple[str, str]]:
    """Return the ends of names that continue the name of another file in the folder: `1_x.png` beside `1.png`."""
    stems = set(map(_whole, plain))
    found: dict[str, tuple[str, str]] = {}
    for path in plain:
        whole = _whole(path)
        cuts = [at for at in range(len(whole) - 1, whole.rfind("/") + 1, -1) if not whole[at].isalnum()]
        cut = next((at for at in cuts if whole[:at] in stems), None)
        if cut is not None and not RESERVED.intersection(whole[cut:]):
            found[path] = (affixes[path][0], whole[cut:])
    counts = Counter(suffix for _, suffix in found.values())
    return {path: affix for path, affix in found.items() if counts[affix[1]] >= max(2, MIN_SHARE * count)}


def _with_kind(root: Path, group: Group) -> Group:
    """Return the group with whether it has masks, by the words in names and the values in a few files."""
    by_name = MASK_WORD.fullmatch(group.suffix.strip("_ .-")) or MASK_WORD.fullmatch(group.prefix.strip("_ .-"))
    by_name = by_name or MASK_WORD.fullmatch(group.fixed)
    folders = [is_mask_folder(name.replace("{part}", "")) for name in group.folder.split("/")[:-1]]
    by_folder = next((known for known in reversed(folders) if known is not None), None)
    is_named = bool(by_name or by_folder)
    if by_name is None and by_folder is False:
        return group
    paths = spread(group.paths, LOOKED_AT)
    are_volumes = all(suffix_of(path) in VOLUME_SUFFIXES for path in paths)
    is_mask = is_named if are_volumes else looks_like_masks(sample_masks(root, paths, LOOKED_AT))
    return replace(group, is_mask=is_mask, is_named_mask=is_named)
