"""Why an image of a published layout cannot be used, and what is odd about one that can."""

from collections.abc import Iterator
from itertools import chain

from datasets.manifest import Manifest
from datasets.sources.published import Case, MaskFile, MaskRuns
from datasets.sources.runs import TOLERANCE, last_pixel, past_the_end


def fault(case: Case, files: Manifest, classes: int) -> str:
    """Return the first reason why the image or one of its annotations cannot be used, "" if there is none."""
    image = files.positions[case.path]
    if files.fault[image]:
        return files.fault[image]
    size = files.width[image], files.height[image]
    if case.size not in (None, size):
        stated = _by(*case.size) if case.size else ""
        return f"{case.path} has {_by(*size)} pixels; allowed: {stated}, as its table says; restore the file"
    return next(chain(_mask_faults(case, files, classes, size), _place_faults(case, size)), "")


def remark(case: Case, files: Manifest) -> str:
    """Return what is odd: the layout's own remark, an image of one grey value, masks without foreground."""
    remarks = [case.remark] if case.remark else []
    if int(files.values[files.positions[case.path]] or "0", 16).bit_count() == 1:
        remarks.append(f"{case.path} is constant; allowed: an image with content; look at it")
    drawn = [mask for mask in case.masks if isinstance(mask, MaskFile) and mask.path in files.positions]
    masks = [files.values[files.positions[mask.path]] for mask in drawn]
    if masks and all(values == "1" for values in masks):
        remarks.append(f"{case.id}: its masks are empty; allowed: some foreground; check that this is meant")
    return "; also ".join(remarks)


def _mask_faults(case: Case, files: Manifest, classes: int, size: tuple[int, int]) -> Iterator[str]:
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
            yield from _size_faults(mask, (files.width[at], files.height[at]), size)
            largest = int(files.values[at], 16).bit_length() - 1
            if not mask.name and largest > classes:
                yield (
                    f"{mask.path} holds the class id {largest}; allowed: 0 (background) to {classes}; "
                    "correct the mask or add the class to classes.txt"
                )


def _size_faults(mask: MaskFile, found: tuple[int, int], size: tuple[int, int]) -> Iterator[str]:
    x, y, *needed = mask.place or (0, 0, *size)
    if found != tuple(needed):
        yield (
            f"{mask.path} has {_by(*found)} pixels; allowed: {_by(*needed)}, the size of its "
            f"{'row in the table' if mask.place else 'image'}; restore the mask or the image"
        )
    elif x < 0 or y < 0 or x + found[0] > size[0] or y + found[1] > size[1]:
        yield (
            f"{mask.path} at ({x}, {y}) with {_by(*found)} pixels leaves its image; allowed: inside {_by(*size)}; "
            "correct its row in the table"
        )


def _place_faults(case: Case, size: tuple[int, int]) -> Iterator[str]:
    right, bottom = size[0] + TOLERANCE, size[1] + TOLERANCE
    for box in case.boxes:
        inside = min(box.x, box.y) >= -TOLERANCE
        if box.width <= 0 or box.height <= 0:
            sides = _text(box.name, box.width, box.height)
            yield f"{case.id}: box {sides} is empty; allowed: sides above 0; correct it"
        elif not inside or box.x + box.width > right or box.y + box.height > bottom:
            place = _text(box.name, box.x, box.y, box.width, box.height)
            yield f"{case.id}: box {place} leaves the image; allowed: inside {_by(*size)}; correct it"
    for name, x, y in case.centres:
        if not (-TOLERANCE <= x <= right and -TOLERANCE <= y <= bottom):
            yield f"{case.id}: centre {_text(name, x, y)} is outside; allowed: inside {_by(*size)}; correct it"


def _by(width: int, height: int) -> str:
    return f"{width} x {height}"


def _text(name: str, *numbers: float) -> str:
    return f"{name} ({', '.join(f'{number:g}' for number in numbers)})"
