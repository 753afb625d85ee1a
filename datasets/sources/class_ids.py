"""Which class each id of exclusive masks is, and which names a class may have."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import StrictInt, field_validator

from datasets.errors import DataError
from datasets.sample import IGNORE
from datasets.settings import Settings

RESERVED: Final = frozenset({"macro", "micro", "weighted"})
"""Names of averages over classes in results."""
BACKGROUND: Final = "background"
FEWEST_OBJECTS: Final = 4
"""From so many ids on they may number objects rather than classes."""


class IgnoreSettings(Settings):
    """Setting of sources whose masks hold class ids: those of pixels without a label, such as borders."""

    ignore: StrictInt | tuple[StrictInt, ...] = ()

    @field_validator("ignore")
    @classmethod
    def _ids_of_masks(cls, ignore: int | tuple[int, ...]) -> int | tuple[int, ...]:
        for number in _listed(ignore):
            if not 1 <= number <= 255:
                what = "the background" if number == 0 else "no id that a mask can hold"
                raise ValueError(f"has the id {number}, which is {what}; allowed: ids from 1 to 255; remove it")
        return ignore

    @property
    def ignored_ids(self) -> tuple[int, ...]:
        """Return the ids in ascending order, each once."""
        return tuple(sorted(set(_listed(self.ignore))))


def _listed(ignore: int | tuple[int, ...]) -> tuple[int, ...]:
    return (ignore,) if isinstance(ignore, int) else ignore


def class_ids(
    masks: Iterable[int], known: Sequence[str] | None, root: Path, ignored: Sequence[int] = ()
) -> dict[str, int]:
    """Return the id of each class.

    `masks` are the ids that each mask holds, as bits. Known classes have the ids 1, 2, ...; without names the ids that
    occur are classes, except for `ignored` ones. Masks of 0 and one other number show one class, whatever the number: 0
    and 255 are common.
    Raises `DataError` where ids count the objects of each image, for an ignored id of a class, and for more classes
    than masks can hold.
    """
    ids = _class_ids([frozenset(numbers_in(held)).difference(ignored) for held in masks], known, root)
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
    if _count_objects(used):
        raise DataError(
            f"{root / 'masks'} numbers the objects of each image (1 to {foreground[-1]}), where each pixel should hold "
            "the id of its class; allowed: the same id for all objects of a class; write 1 for each object, or list "
            "the classes in classes.txt where the ids are classes"
        )
    return {f"class_{number}": number for number in foreground or [1]}


def numbers_in(bits: int) -> tuple[int, ...]:
    """Return the ids given as bits, in ascending order."""
    return tuple(number for number in range(bits.bit_length()) if bits >> number & 1)


def _count_objects(masks: Sequence[frozenset[int]]) -> bool:
    """Whether the ids of every mask are 1 to n without a gap, and n differs: objects are counted like that."""
    counts = [len(ids - {0}) for ids in masks if ids - {0}]
    gapless = all(ids - {0} == frozenset(range(1, len(ids - {0}) + 1)) for ids in masks)
    return gapless and max(counts, default=0) >= FEWEST_OBJECTS and len(set(counts)) > len(counts) / 4 >= 1


def check_names(names: Iterable[str], where: object, *, ids: bool = False) -> None:
    """Raise `DataError` for classes named like an average or the background; `ids`: whether the list numbers them."""
    for name in names:
        if name.casefold() in RESERVED:
            raise DataError(
                f"{where} has the class '{name}', which is the name of an average in results; allowed: other names; "
                "rename it"
            )
        if name.casefold() == BACKGROUND:
            remedy = "remove its line, so that id 1 is the first class" if ids else "leave it out with `classes`"
            raise DataError(
                f"{where} has the class '{name}', which is what no class covers (id 0); allowed: foreground classes; "
                f"{remedy}"
            )


def may_be_unlabelled(ids: Mapping[str, int]) -> bool:
    """Return whether the id 255 stands beside 1, 2, ...: it may mark pixels without a label rather than a class."""
    *others, last = sorted(ids.values()) or [0]
    return bool(others) and last == IGNORE and others == list(range(1, len(others) + 1))


def used_ids(ids: Mapping[str, int], bits: int) -> int:
    """Return which classes, in their order, are among ids given as bits."""
    return sum(1 << place for place, number in enumerate(ids.values()) if bits >> number & 1)
