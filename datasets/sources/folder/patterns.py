"""Patterns of paths, such as `train/*/{name}.jpg`, by which images and masks are paired where they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from datasets.cache.manifest import Listing, walk
from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, Kind, suffix_of
from datasets.settings import VolumeSettings

Part = Literal["train", "validation", "test", ""]
PARTS: Final[Mapping[str, Part]] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Published parts by the names of their folders, in small letters."""
PLACEHOLDERS: Final = ("name", "class", "part")
ANY_SUFFIX: Final = ".*"
_TOKEN = re.compile(r"(\*\*/|\*|\{[^{}]*\})")
_MEANING: Final = {
    "name": "[^/]+",
    "class": "[^/]+",
    "part": f"(?i:{'|'.join(sorted(PARTS, key=len, reverse=True))})",
}


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a pattern reads from a path: the name of the image, of the class and of the published part."""

    name: str
    class_name: str = ""
    part: str = ""

    @property
    def key(self) -> str:
        """Return the name that images and masks have in common, with the folder of its part."""
        return f"{self.part}/{self.name}" if self.part else self.name

    @property
    def official(self) -> Part:
        """Return the published part."""
        return PARTS.get(self.part.casefold(), "")


@dataclass(frozen=True)
class Pattern:
    """A pattern of paths relative to the root of a data set.

    `{name}` is the name that pairs images and masks, `{class}` that of a class and `{part}` a folder such as `train`.
    `*` is any text within a folder or file name, `**/` any number of folders, which belong to the name, and `.*` at the
    end any suffix of an image.
    """

    text: str

    def fault(self, allowed: Sequence[str]) -> str:
        """Return what is wrong with the pattern, "" if nothing is; `allowed` are its placeholders."""
        found = re.findall(r"\{([^{}]*)\}", self.text)
        unknown = [name for name in found if name not in allowed]
        names = ", ".join(f"{{{name}}}" for name in allowed)
        segments = self.text.split("/")
        if unknown or self.text.count("{") != len(found) or self.text.count("}") != len(found):
            return f"has {{{unknown[0] if unknown else '...'}}}; allowed: {names}; correct the pattern"
        if "name" not in found:
            return "lacks {name}; allowed: a pattern such as masks/{name}.png; add it where the names differ"
        if "" in segments or ".." in segments or "." in segments or "\\" in self.text:
            return "is no path below `root`; allowed: such as masks/{name}.png; make it relative"
        if segments.count("**") != self.text.count("**") or self.text.count("**") > 1 or segments[-1] == "**":
            return "has ** in a wrong place; allowed: once, in place of folders, as in images/**/{name}.png; correct it"
        return ""

    @property
    def weight(self) -> int:
        """Return the number of characters besides placeholders: of two patterns that match, the larger one counts."""
        return len(re.sub(r"\{[^{}]*\}|\*", "", self.text))

    @property
    def has_classes(self) -> bool:
        """Whether the pattern names classes."""
        return "{class}" in self.text

    @property
    def has_parts(self) -> bool:
        """Whether the pattern names published parts."""
        return "{part}" in self.text

    @cached_property
    def _regex(self) -> "re.Pattern[str]":
        text = self.text.removesuffix(ANY_SUFFIX)
        seen = set[str]()
        parts = []
        for token in _TOKEN.split(text):
            if token == "**/":
                parts.append("(?P<folders>(?:[^/]+/)*)")
            elif token == "*":
                parts.append("[^/]*")
            elif token.startswith("{"):
                name = token[1:-1]
                parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{_MEANING[name]})")
                seen.add(name)
            else:
                parts.append(re.escape(token))
        return re.compile("".join(parts))

    @cached_property
    def _folders(self) -> list["re.Pattern[str] | None"]:
        """Return a pattern of each folder, None for any number of them."""
        return [
            None if segment == "**" else re.compile("".join(map(_loosely, _TOKEN.split(segment))))
            for segment in self.text.split("/")[:-1]
        ]

    def match(self, path: str) -> Match | None:
        """Return what the pattern reads from the path of an image or volume, None if it does not match."""
        suffix = suffix_of(path)
        if self.text.endswith(ANY_SUFFIX):
            path = path[: len(path) - len(suffix)]
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        groups = found.groupdict()
        name = f"{groups.get('folders') or ''}{groups['name']}"
        return Match(name=name, class_name=groups.get("class") or "", part=groups.get("part") or "")

    def enters(self, folder: str) -> bool:
        """Return whether files below a folder may match."""
        for number, segment in enumerate(folder.split("/")):
            if number >= len(self._folders):
                return False
            expected = self._folders[number]
            if expected is None:
                return True
            if not expected.fullmatch(segment):
                return False
        return True


def _loosely(token: str) -> str:
    """Return a regular expression for a token within one folder name."""
    if token == "*":
        return "[^/]*"
    return _MEANING.get(token[1:-1], "[^/]+") if token.startswith("{") else re.escape(token)


def best(patterns: Sequence[Pattern], path: str) -> Pattern | None:
    """Return the most specific pattern that matches a path, the first of equal ones, None if none does."""
    matching = [pattern for pattern in patterns if pattern.match(path) is not None]
    return max(matching, key=lambda pattern: pattern.weight, default=None)


def scan_patterns(root: Path, kinds: Mapping[Pattern, Kind], volumes: VolumeSettings | None) -> Listing:
    """List the images and volumes that match a pattern, each with the kind of its most specific pattern.

    Raises `DataError` as `datasets.cache.manifest.scan` does.
    """
    patterns, suffixes = list(kinds), SUFFIXES | VOLUME_SUFFIXES

    def wanted(path: str, is_folder: bool) -> bool:
        if is_folder:
            return any(pattern.enters(path) for pattern in patterns)
        return suffix_of(path) in suffixes and best(patterns, path) is not None

    files = dict(sorted(walk(root, "", wanted)))
    by_path = {path: pattern for path in files if (pattern := best(patterns, path)) is not None}
    return Listing(
        root=root,
        folders={pattern.text: kind for pattern, kind in kinds.items()},
        files=files,
        volumes=volumes,
        kinds={path: kinds[pattern] for path, pattern in by_path.items()},
    )
