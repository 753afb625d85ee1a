"""Which of several groups of masks are read: those of annotators, of classes, or a single group."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datasets.decoding.decode import suffix_of
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.layout.groups import Group
from datasets.layout.values import sample_masks
from datasets.layout.words import (
    ANNOTATOR,
    STRONG_MASK_WORD,
    common_end,
    common_start,
    is_left_out,
    may_name_class,
    words_of,
)
from datasets.sources.folder.patterns import PLACEHOLDERS, Pattern, best

MAX_CLASSES: Final = 40
LOOKED_AT: Final = 8
"""Number of masks of a group whose areas are compared."""
SAME_AREA: Final = 0.05
"""Maximum relative difference of areas of masks that show the same, such as the field of view."""


def choose_masks(files: Files, image: Group, masks: Sequence[Group]) -> tuple[dict[str, Pattern], list[Group]]:
    """Return the patterns of masks by annotator, "" for a single one, and the groups that they read.

    Args:
        files: All files.
        image: The images.
        masks: Groups of masks that belong to them.
    """
    if len(masks) == 1:
        return {"": masks[0].pattern}, [masks[0]]
    by_annotator = [(_annotator(group), group) for group in sorted(masks, key=lambda group: group.pattern.text)]
    annotators = {name: group for name, group in by_annotator if name}
    if len(annotators) > 1 and len(annotators) == sum(bool(name) for name, _ in by_annotator):
        return {name: group.pattern for name, group in annotators.items()}, list(annotators.values())
    together = _classes(files, image, masks)
    if together is not None:
        return {"": together}, list(masks)
    chosen = max(masks, key=lambda group: _preference(files.root, group))
    return {"": chosen.pattern}, [chosen]


def _classes(files: Files, image: Group, masks: Sequence[Group]) -> Pattern | None:
    """Return one pattern with `{class}` that reads exactly the files of some groups, None if there is none."""
    texts = [group.pattern.text.removesuffix(group.ending) for group in masks]
    endings = {group.ending for group in masks}
    start = common_start(texts)
    end = common_end([text[len(start) :] for text in texts])
    start = re.sub(r"[^/_\-. {}]+$", "", start)
    end = re.sub(r"^[^/_\-. {}]+", "", end)
    names = [text[len(start) : len(text) - len(end)] for text in texts]
    together = Pattern(f"{start}{{class}}{end}{endings.pop() if len(endings) == 1 else '.*'}")
    are_names = all(re.fullmatch(r"[^/{}*]+", name) and may_name_class(name) for name in names)
    if not are_names or len(names) > MAX_CLASSES or together.fault(PLACEHOLDERS):
        return None
    members = {path for group in masks for path in group.paths}
    patterns = (image.pattern, together)
    read = {path for path in files.images if best(patterns, path) == together}
    check_left_out(files, together, sorted(read - members))
    return together if read == members else None


def check_left_out(files: Files, pattern: Pattern, others: Sequence[str]) -> None:
    """Raise `DataError` if files in folders of predictions, overlays and the like would be read as a class."""
    path = next(filter(is_left_out, others), None)
    if path is not None:
        raise DataError(
            f"{files.root / path} would be read as {pattern.text}, though its folder is no class by its name; allowed: "
            "folders of classes alone; move the folder away"
        )


def _annotator(group: Group) -> str:
    """Return the name of the annotator in the names of files or folders, "" if they name none."""
    texts = [group.suffix, group.prefix, group.fixed, *group.folder.split("/")]
    name = next((text for text in texts if text and ANNOTATOR.fullmatch(text.strip("_ -."))), "")
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name.strip("_ -."))


def _preference(root: Path, group: Group) -> tuple[bool, bool, bool, bool, int]:
    """Return a key that is larger for masks that are rather those of structures: differing, and named so."""
    texts = [group.suffix, group.prefix, group.fixed, *group.folder.split("/")]
    is_strong = any(STRONG_MASK_WORD.fullmatch(word) for text in texts for word in words_of(text))
    is_lossless = not any(suffix_of(path) in (".jpg", ".jpeg") for path in group.paths)
    return not _show_the_same(root, group), is_strong, group.is_named_mask, is_lossless, len(group.paths)


def _show_the_same(root: Path, group: Group) -> bool:
    """Whether masks have nearly equal areas, as those of the field of view."""
    areas = []
    for values in sample_masks(root, group.paths, LOOKED_AT).greys:
        areas.append(1 - values.get(0, 0) / max(1, sum(values.values())))
    return len(areas) > 2 and 0 < max(areas) < 1 and max(areas) - min(areas) <= SAME_AREA * max(areas)
