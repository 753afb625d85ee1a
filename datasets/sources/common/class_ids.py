"""Mapping from ids in masks to classes, and validation of class names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import StrictInt, field_validator

from datasets.decoding.text import normal, read_text
from datasets.errors import DataError
from datasets.settings import BaseDataSettings
from datasets.source import IGNORE

RESERVED: Final = frozenset({"macro", "micro", "weighted"})
"""Names of averages over classes in the results."""
NO_CLASS: Final = frozenset({"background", "bg", "ignore"})
"""Names that are not classes, also between underscores, as written by labelme."""
FEWEST_OBJECTS: Final = 4
"""Minimum number of ids that may be object numbers instead of classes."""
DIFFERENT_COUNTS = 3
"""Minimum number of different object counts: consecutive ids with varying counts are unlikely to be classes."""
FEWEST_GREYS, MOST_UNNAMED = 8, 100
"""Minimum number of ids that may be grey levels, and maximum number of classes without names."""
NUMBERED: Final = re.compile(r"(\d+)[\s:,;=.)]+\S")


class IgnoreSettings(BaseDataSettings):
    """Setting of sources of masks: `ignore` are the values of unlabelled pixels, such as borders."""

    ignore: StrictInt | tuple[StrictInt, ...] = ()

    @field_validator("ignore")
    @classmethod
    def _ids_of_masks(cls, ignore: int | tuple[int, ...]) -> int | tuple[int, ...]:
        for number in _listed(ignore):
            if not 1 <= number <= 255:
                meaning = "the background" if number == 0 else "no id that a mask can hold"
                raise ValueError(f"has the id {number}, which is {meaning}; allowed: ids from 1 to 255; remove it")
        return ignore

    @property
    def ignored_ids(self) -> tuple[int, ...]:
        """Return the unique ids in ascending order."""
        return tuple(sorted(set(_listed(self.ignore))))


def _listed(ignore: int | tuple[int, ...]) -> tuple[int, ...]:
    return (ignore,) if isinstance(ignore, int) else ignore


def class_ids(
    masks: Iterable[int], known: Sequence[str] | None, root: Path, ignored: Sequence[int] = ()
) -> dict[str, int]:
    """Return the id of each class.

    Args:
        masks: The ids in each mask, as bits.
        known: Class names of the ids 1, 2, ...; None makes every id that occurs a class. A single class may have any
            id, as masks of 0 and 255 are common.
        root: Folder of the data set, for messages.
        ignored: Ids of unlabelled pixels.

    Raises:
        DataError: Ids number the objects of each image, an ignored id is that of a class, or there are too many
            classes.
    """
    ids = _class_ids([frozenset(numbers_in(bits)).difference(ignored) for bits in masks], known, root)
    if len(ids) >= IGNORE:
        raise DataError(
            f"{root} has {len(ids)} classes; allowed: at most {IGNORE - 1} in masks of class ids; merge some, or write "
            "a mask for each class"
        )
    for name, number in ids.items():
        if number in ignored:
            raise DataError(
                f"{root}: ignore has the id {number}, which is that of the class '{name}'; allowed: ids of no class; "
                "remove the id from `ignore`, or the class from classes.txt"
            )
    return ids


def _class_ids(used: Sequence[frozenset[int]], known: Sequence[str] | None, root: Path) -> dict[str, int]:
    foreground = sorted(set().union(*used) - {0})
    if known is not None:
        alone = len(known) == 1 and len(foreground) == 1
        return {known[0]: foreground[0]} if alone else {name: number for number, name in enumerate(known, 1)}
    if foreground == [1, IGNORE] and all(len(ids - {0}) <= 1 for ids in used):
        raise DataError(
            f"{root / 'masks'} holds 1 in some masks and {IGNORE} in others, as if one class were written in two ways; "
            f"allowed: one id a class; write 1 for {IGNORE}, or list the classes in classes.txt"
        )
    if _are_greys(foreground):
        raise DataError(
            f"{root / 'masks'} holds {len(foreground)} different ids up to {foreground[-1]}, as grey levels of soft "
            "edges or of JPEG compression do; allowed: one id a class; threshold the masks, or number classes from 1 "
            "and list them in classes.txt"
        )
    if _count_objects(used):
        raise DataError(
            f"{root / 'masks'} numbers the objects of each image (1 to {foreground[-1]}), where each pixel should hold "
            "the id of its class; allowed: the same id for all objects of a class; write 1 for each object, or list "
            "the classes in classes.txt where the ids are classes"
        )
    return {f"class_{number}": number for number in foreground or [1]}


@dataclass(frozen=True, kw_only=True)
class ScribbleIds:
    """Values in scribbles.

    Attributes:
        classes: The values of each exclusive class; empty if each class has separate scribbles of 0 and 1.
        outside: Values of pixels outside of scribbles.
    """

    classes: Mapping[str, Sequence[int]]
    outside: tuple[int, ...]

    @property
    def allowed(self) -> frozenset[int]:
        """Return all values that scribbles may hold."""
        ids = {number for numbers in self.classes.values() for number in numbers}
        return frozenset({0, *(ids or {1}), *self.outside})


def outside_scribbles(ignored: Sequence[int], ids: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the values of pixels outside of scribbles: ignored ids and 255, but no ids of classes."""
    return tuple(sorted({*ignored, IGNORE}.difference(ids)))


def scribble_ids(ids: Mapping[str, int], ignored: Sequence[int], root: Path) -> ScribbleIds:
    """Return the values in scribbles of exclusive classes: their ids in masks, of a single class also 1.

    Args:
        ids: Ids of all classes in masks.
        ignored: Ids of unlabelled pixels.
        root: Folder of the data set, for messages.

    Raises:
        DataError: One of several classes has the id 255, and no id is left for pixels outside of scribbles.
    """
    outside = outside_scribbles(ignored, ids.values()) or (IGNORE,)
    if len(ids) == 1:
        ((name, number),) = ids.items()
        return ScribbleIds(classes={name: tuple(sorted({1, number}.difference(outside)))}, outside=outside)
    for name, number in ids.items():
        if number in outside:
            raise DataError(
                f"{root}: masks hold the id {number} of the class '{name}', which is outside of scribbles; allowed: "
                f"another id; set `ignore: {number}` if its pixels have no label, or write another id and list the "
                "classes in classes.txt"
            )
    return ScribbleIds(classes={name: (number,) for name, number in ids.items()}, outside=outside)


def numbers_in(bits: int) -> tuple[int, ...]:
    """Convert a bit set to ids in ascending order."""
    return tuple(number for number in range(bits.bit_length()) if bits >> number & 1)


def _count_objects(masks: Sequence[frozenset[int]]) -> bool:
    """Whether the ids of every mask are 1 to n with different n, as in numbered objects."""
    counts = {len(ids - {0}) for ids in masks}
    gapless = all(ids - {0} == frozenset(range(1, len(ids - {0}) + 1)) for ids in masks)
    return gapless and max(counts, default=0) >= FEWEST_OBJECTS and len(counts - {0}) >= DIFFERENT_COUNTS


def _are_greys(ids: Sequence[int]) -> bool:
    """Whether there are many ids with large gaps (except for 255), or more ids than unnamed classes allowed."""
    numbered = [number for number in ids if number != IGNORE]
    sparse = len(ids) >= FEWEST_GREYS and numbered[-1] > 2 * len(numbered)
    return sparse or len(ids) > MOST_UNNAMED


def read_classes(path: Path, *, ids: bool) -> list[str]:
    """Return the class names in a file, one per line. `ids`: line k is the name of id k.

    Raises `DataError` for lines that would shift names to other ids.
    """
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not ids:
        return [name for name in names if name]
    if not names:
        raise DataError(f"{path} is empty; allowed: the name of id 1 in its first line, and so on; write or remove it")
    for line, name in enumerate(names, 1):
        if not name or name[0] == "#":
            fault = "is a comment" if name else "is empty"
            raise DataError(
                f"{path} line {line} {fault}; allowed: the name of id {line}, as lines are counted; remove the line"
            )
    numbers = [int(match[1]) for match in map(NUMBERED.match, names) if match]
    if len(numbers) == len(names) and numbers == list(range(numbers[0], numbers[0] + len(names))):
        raise DataError(
            f"{path} numbers its lines ('{names[0]}'); allowed: names alone, that of id 1 in the first line; remove "
            "the numbers, and the line of the background"
        )
    return names


def check_names(names: Iterable[str], location: object, *, ids: bool = False) -> None:
    """Raise `DataError` for ambiguous class names, and for names of averages or of the background.

    `ids`: whether the names come from a list in order of ids.
    """
    first_spelling: dict[str, str] = {}
    for name in names:
        first = first_spelling.setdefault(normal(name).strip().casefold(), name)
        if not name.strip() or first != name:
            conflict = (
                f"classes '{first}' and '{name}', which look alike" if name.strip() else "class '', without a name"
            )
            raise DataError(
                f"{location} has the {conflict}; allowed: different names; rename it, or choose with `classes`"
            )
        if name.casefold() in RESERVED:
            raise DataError(
                f"{location} has the class '{name}', which is the name of an average in results; allowed: other names; "
                "rename it"
            )
        if name.strip("_").casefold() in NO_CLASS:
            remedy = "remove its line, so that id 1 is the first class" if ids else "leave it out with `classes`"
            raise DataError(
                f"{location} has the class '{name}', which stands for pixels of no class; allowed: foreground classes; "
                f"{remedy}"
            )


def may_be_unlabelled(ids: Mapping[str, int]) -> bool:
    """Return whether the ids are 1, 2, ... and 255, which may then mark unlabelled pixels instead of a class."""
    *lower, last = sorted(ids.values()) or [0]
    return bool(lower) and last == IGNORE and lower == list(range(1, len(lower) + 1))


def used_ids(ids: Mapping[str, int], bits: int) -> int:
    """Return a bit set of the classes (by position) whose ids are in a bit set."""
    return sum(1 << position for position, number in enumerate(ids.values()) if bits >> number & 1)
