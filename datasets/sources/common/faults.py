"""Why an image of a published layout cannot be used, and what is odd about one that can."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from datasets.cache.manifest import Manifest
from datasets.errors import DataError
from datasets.source import IGNORE, Offer
from datasets.sources.common.class_ids import may_be_unlabelled, numbers_in
from datasets.sources.common.published import Case, MaskFile, MaskRuns
from datasets.sources.common.runs import TOLERANCE, last_pixel, past_the_end

SHOWN = 5
"""Ids that a message lists."""
_TURNED = " (its EXIF orientation turns it by 90 degrees: write the pixels upright and remove the orientation)"


def image_fault(case: Case, files: Manifest) -> str:
    """Return why the image cannot be used, "" if nothing is wrong."""
    image = files.positions[case.path]
    if files.fault[image]:
        return files.fault[image]
    size = files.width[image], files.height[image]
    if case.size not in (None, size):
        stated = _by(*case.size) if case.size else ""
        turned = _TURNED if case.size == size[::-1] and files.remark[image] else ""
        return f"{case.path} has {_by(*size)} pixels; allowed: {stated}, as its table says; restore the file{turned}"
    return ""


def annotation_faults(
    cases: Sequence[Case], files: Manifest, ids: Mapping[str, int], ignored: Sequence[int] = ()
) -> dict[Offer, list[str]]:
    """Return by kind the first reason why each image's annotation cannot be used, "" if nothing is wrong.

    `ids` are those of exclusive classes, `ignored` those of pixels without a label.
    """
    known = _bits([0, *ids.values(), *ignored])
    found: dict[Offer, list[str]] = {"masks": [], "boxes": [], "centres": []}
    for case in cases:
        image = files.positions[case.path]
        size = files.width[image], files.height[image]
        broken = bool(files.fault[image])
        reasons = {
            "boxes": _box_faults(case, size), "centres": _centre_faults(case, size),
            "masks": _mask_faults(case, files, size, known=known, classes=len(ids)),
        }  # fmt: skip
        for kind, column in found.items():
            column.append("" if broken else next(reasons[kind], ""))
    return found


def remarks(cases: Sequence[Case], files: Manifest, ids: Mapping[str, int], ignored: Sequence[int] = ()) -> list[str]:
    """Return what is odd about each image, a line each; arguments as of `annotation_faults`."""
    suspect = IGNORE if may_be_unlabelled(ids) else None
    return [_remark(case, files, _bits(ignored), suspect) for case in cases]


def _remark(case: Case, files: Manifest, ignored: int, suspect: int | None) -> str:
    """Return the layout's own remark, and whether the image has one grey value and its masks are empty or full."""
    image = files.positions[case.path]
    found = [case.remark] if case.remark else []
    if files.remark[image]:
        found.append(f"its image {files.remark[image]}")
    if int(files.values[image] or "0", 16).bit_count() == 1:
        found.append("its image is constant; allowed: an image with content; look at it")
    drawn = [mask for mask in case.masks if isinstance(mask, MaskFile) and mask.path in files.positions]
    places = [files.positions[mask.path] for mask in drawn]
    found += sorted({f"its mask {files.remark[place]}" for place in places if files.remark[place]})
    held_by = [
        (mask, int(files.values[place] or "0", 16) & ~ignored)
        for mask, place in zip(drawn, places, strict=True)
        if not files.fault[place]
    ]
    values = [held for _, held in held_by]
    if values and not any(values):
        found.append("all pixels of its mask are ignored; allowed: some with a label; check that this is meant")
    elif values and all(held in (0, 1) for held in values):
        found.append("its masks are empty; allowed: some foreground; check that this is meant")
    if any(mask.place is None and held and not held & 1 for mask, held in held_by):
        found.append("a mask covers the whole image; allowed: some background; check that this is meant")
    if suspect is not None and any(held >> suspect & 1 for held in values):
        found.append(
            f"its mask holds the id {suspect}, which often marks pixels without a label and counts as a class here; "
            f"allowed: ids of classes; set `ignore: {suspect}` if it is none"
        )
    return "\n".join(found)


def check_pixels(cases: Sequence[Case], files: Manifest, root: Path) -> None:
    """Raise `DataError` where all boxes or centres are shares of the image, which are pixels here."""
    boxes = [(box.x, box.y, box.width, box.height) for case in cases for box in case.boxes]
    centres = [(x, y) for case in cases for _, x, y in case.centres]
    if max(files.width, default=0) <= 1:
        return
    for what, numbers in (("boxes", boxes), ("centres", centres)):
        check_not_shares(what, numbers, root)


def check_not_shares(what: str, numbers: Sequence[Sequence[float]], where: object) -> None:
    """Raise `DataError` where all coordinates lie within 0..1."""
    if numbers and all(0 <= number <= 1 for each in numbers for number in each):
        raise DataError(
            f"{where}: all {len(numbers)} {what} lie within 0..1, like shares of the image; allowed: pixels, for a "
            "box its upper left corner, width and height; multiply by the image's width and height"
        )


def _bits(ids: Iterable[int]) -> int:
    return sum(1 << number for number in set(ids))


def _mask_faults(case: Case, files: Manifest, size: tuple[int, int], *, known: int, classes: int) -> Iterator[str]:
    """Yield faults of masks; `known` are the ids that those of all classes may hold, as bits."""
    for mask in case.masks:
        if isinstance(mask, MaskRuns):
            if last_pixel(mask.runs) > size[0] * size[1]:
                yield past_the_end(mask.runs, size, f"{case.id}: mask of {mask.name}")
            continue
        at = files.positions.get(mask.path)
        if at is None:
            yield f"{mask.path} is missing; allowed: every mask file the tables name; restore it"
        elif files.fault[at]:
            yield files.fault[at]
        else:
            turned = files.remark[files.positions[case.path]] + files.remark[at]
            yield from _size_faults(mask, (files.width[at], files.height[at]), size, turned=bool(turned))
            unknown = numbers_in(int(files.values[at], 16) & ~known)
            if not mask.name and unknown:
                yield f"{mask.path} {_unknown_ids(unknown, classes)}"


def _unknown_ids(unknown: Sequence[int], classes: int) -> str:
    shown = ", ".join(map(str, unknown[-SHOWN:]))
    allowed = f"allowed: 0 (background) to {classes}; correct the mask or add the class to classes.txt"
    if len(unknown) > SHOWN:
        return f"holds {len(unknown)} ids of no class ({shown}, ...); {allowed}"
    several = len(unknown) > 1
    ignore = f"[{shown}]" if several else shown
    return (
        f"holds the class id{'s' * several} {shown}; {allowed}, or set `ignore: {ignore}` where pixels of the "
        f"{'ids' if several else 'id'} have no label"
    )


def _size_faults(mask: MaskFile, found: tuple[int, int], size: tuple[int, int], *, turned: bool) -> Iterator[str]:
    x, y, *needed = mask.place or (0, 0, *size)
    if found != tuple(needed):
        yield (
            f"{mask.path} has {_by(*found)} pixels; allowed: {_by(*needed)}, the size of its "
            f"{'row in the table' if mask.place else 'image'}; restore the mask or the image"
            f"{_TURNED if turned and found == size[::-1] else ''}"
        )
    elif x < 0 or y < 0 or x + found[0] > size[0] or y + found[1] > size[1]:
        yield (
            f"{mask.path} at ({x}, {y}) with {_by(*found)} pixels leaves its image; allowed: inside {_by(*size)}; "
            "correct its row in the table"
        )


def _box_faults(case: Case, size: tuple[int, int]) -> Iterator[str]:
    right, bottom = size[0] + TOLERANCE, size[1] + TOLERANCE
    for box in case.boxes:
        inside = min(box.x, box.y) >= -TOLERANCE
        if box.width <= 0 or box.height <= 0:
            sides = _text(box.name, box.width, box.height)
            yield f"{case.id}: box {sides} is empty; allowed: sides above 0; correct it"
        elif not inside or box.x + box.width > right or box.y + box.height > bottom:
            place = _text(box.name, box.x, box.y, box.width, box.height)
            yield f"{case.id}: box {place} leaves the image; allowed: inside {_by(*size)}; correct it"


def _centre_faults(case: Case, size: tuple[int, int]) -> Iterator[str]:
    for name, x, y in case.centres:
        if not (-TOLERANCE <= x <= size[0] + TOLERANCE and -TOLERANCE <= y <= size[1] + TOLERANCE):
            yield f"{case.id}: centre {_text(name, x, y)} is outside; allowed: inside {_by(*size)}; correct it"


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"


def _text(name: str, *numbers: float) -> str:
    return f"{name} ({', '.join(f'{number:g}' for number in numbers)})"
