"""Faults and warnings of images and their annotation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from datasets.cache.manifest import Manifest
from datasets.errors import DataError
from datasets.source import BACKGROUND, IGNORE, AnnotationKind
from datasets.sources.common.class_ids import ScribbleIds, may_be_unlabelled, numbers_in
from datasets.sources.common.geometry import position_fault
from datasets.sources.common.published import MaskFile, MaskRuns, PublishedCase, PublishedDataset
from datasets.sources.common.runs import TOLERANCE, last_pixel, past_the_end

CLASSES = "classes.txt"
SHOWN = 5
"""Maximum number of ids in a message."""
EXIF = "EXIF orientation"
"""What warnings about rotated images contain."""
_TURNED = " (its EXIF orientation turns it by 90 degrees: write the pixels upright and remove the orientation)"


@dataclass(frozen=True, kw_only=True)
class CaseFaults:
    """Faults and warnings of each case, "" without any; `annotation` by kind."""

    images: Sequence[str]
    annotation: Mapping[AnnotationKind, Sequence[str]]
    remarks: Sequence[str]


def case_faults(
    cases: Sequence[PublishedCase],
    files: Manifest,
    ids: Mapping[str, int],
    ignored: Sequence[int],
    scribbles: ScribbleIds,
    layout: PublishedDataset,
) -> CaseFaults:
    """Return the first fault of each image and of its annotation, and its warnings.

    Args:
        cases: Images or volumes.
        files: The manifest of all files.
        ids: Ids of the classes in masks of ids.
        ignored: Ids of unlabelled pixels.
        scribbles: Values in scribbles.
        layout: The layout.
    """
    known = _KnownIds(bits=_bits([0, *ids.values(), *ignored]), classes=len(ids), class_list=layout.class_list)
    suspect = IGNORE if may_be_unlabelled(ids) else None
    return CaseFaults(
        images=[_image_fault(case, files) for case in cases],
        annotation=_annotation_faults(cases, files, known, scribbles),
        remarks=[_remark(case, files, _bits(ignored), suspect) for case in cases],
    )


@dataclass(frozen=True, kw_only=True)
class _KnownIds:
    """Ids that masks may hold, as bits, the number of classes, and the file that lists these."""

    bits: int
    classes: int
    class_list: str


def _image_fault(case: PublishedCase, files: Manifest) -> str:
    """Return why an image cannot be used, "" without a fault."""
    image = files.positions[case.path]
    positions = [files.positions[path] for path in case.paths]
    fault = next((files.fault[position] for position in positions if files.fault[position]), case.fault)
    if fault:
        return fault
    for path, position in zip(case.channels, positions[1:], strict=True):
        fault = _channel_fault(path, position, case, files)
        if fault:
            return fault
    if files.slices[image] and len(case.spacing) == 2:
        return (
            f"{case.path} has {files.slices[image]} pages, and the spacing beside it two numbers; allowed: three, the "
            "distance of pages first; add it"
        )
    size = files.width[image], files.height[image]
    if case.size not in (None, size):
        stated = _format_size(*case.size) if case.size else ""
        turned = _TURNED if case.size == size[::-1] and EXIF in files.remark[image] else ""
        return (
            f"{case.path} has {_format_size(*size)} pixels; allowed: {stated}, as its table says; restore the "
            f"file{turned}"
        )
    return ""


def _channel_fault(path: str, position: int, case: PublishedCase, files: Manifest) -> str:
    """Return why a file of a further channel does not fit the first one, "" if it does."""
    image = files.positions[case.path]
    size, expected = ((files.width[row], files.height[row]) for row in (position, image))
    if size != expected:
        return (
            f"{path} has {_format_size(*size)} pixels; allowed: {_format_size(*expected)}, as {case.path} has; restore "
            "the channel"
        )
    return position_fault(path, case.path, files)


def _annotation_faults(
    cases: Sequence[PublishedCase], files: Manifest, known: _KnownIds, scribbles: ScribbleIds
) -> dict[AnnotationKind, list[str]]:
    """Return the first fault of each image's annotation by kind, "" without a fault.

    Kinds that no image has are left out if they are new to a layout.
    """
    faults: dict[AnnotationKind, list[str]] = {"masks": [], "boxes": [], "centres": []}
    faults |= {"scribbles": []} if any(case.scribbles for case in cases) else {}
    faults |= {"points": []} if any(case.points for case in cases) else {}
    for case in cases:
        image = files.positions[case.path]
        size = files.width[image], files.height[image]
        is_broken = bool(files.fault[image])
        points = [(point.name, point.x, point.y) for point in case.points]
        reasons: dict[AnnotationKind, Iterator[str]] = {
            "boxes": chain(_volume_fault(case, files, "boxes", case.boxes), _box_faults(case, size)),
            "centres": chain(
                _volume_fault(case, files, "centres", case.centres), _point_faults(case, "centre", case.centres, size)
            ),
            "masks": _mask_faults(case, files, size, known),
            "scribbles": _scribble_faults(case, files, size, scribbles),
            "points": chain(_volume_fault(case, files, "points", points), _point_faults(case, "point", points, size)),
        }
        for kind, column in faults.items():
            column.append("" if is_broken else next(reasons[kind], ""))
    return faults


def _volume_fault(
    case: PublishedCase, files: Manifest, kind: AnnotationKind, annotation: Sequence[object]
) -> Iterator[str]:
    """Yield that boxes, centres or points of a volume do not say which slice they are on."""
    if files.slices[files.positions[case.path]] and annotation:
        yield (
            f"{case.id} is a volume and has {kind}, which name no slice; allowed: masks of volumes; save the slices as "
            "images, or remove them from the table"
        )


def _remark(case: PublishedCase, files: Manifest, ignored: int, suspect: int | None) -> str:
    """Return the remark of the layout, and warnings about constant images and about empty or full masks."""
    image = files.positions[case.path]
    notes = [case.remark] if case.remark else []
    notes += [f"its image {remark}" for remark in files.remark[image].splitlines()]
    if int(files.values[image] or "0", 16).bit_count() == 1:
        notes.append("its image is constant; allowed: an image with content; look at it")
    mask_files = [mask for mask in case.masks if isinstance(mask, MaskFile) and mask.path in files.positions]
    positions = [files.positions[mask.path] for mask in mask_files]
    notes += sorted({f"its mask {remark}" for position in positions for remark in files.remark[position].splitlines()})
    ids_by_mask = [
        (mask, int(files.values[position] or "0", 16) & ~ignored)
        for mask, position in zip(mask_files, positions, strict=True)
        if not files.fault[position]
    ]
    mask_ids = [ids for _, ids in ids_by_mask]
    if mask_ids and not any(mask_ids):
        notes.append("all pixels of its mask are ignored; allowed: some with a label; check that this is meant")
    elif mask_ids and all(ids in (0, 1) for ids in mask_ids):
        notes.append("its masks are empty; allowed: some foreground; check that this is meant")
    if any(mask.place is None and ids and not ids & 1 for mask, ids in ids_by_mask):
        notes.append("a mask covers the whole image; allowed: some background; check that this is meant")
    if suspect is not None and any(ids >> suspect & 1 for ids in mask_ids):
        notes.append(
            f"its mask holds the id {suspect}, which often marks pixels without a label and counts as a class here; "
            f"allowed: ids of classes; set `ignore: {suspect}` if it is none"
        )
    return "\n".join(notes)


def check_pixels(cases: Sequence[PublishedCase], files: Manifest, root: Path) -> None:
    """Raise `DataError` if all boxes, centres or points are relative coordinates instead of pixels."""
    boxes = [(box.x, box.y, box.width, box.height) for case in cases for box in case.boxes]
    centres = [(x, y) for case in cases for _, x, y in case.centres]
    points = [(point.x, point.y) for case in cases for point in case.points]
    if max(files.width, default=0) <= 1:
        return
    for kind, coordinates in (("boxes", boxes), ("centres", centres), ("points", points)):
        check_not_shares(kind, coordinates, root)


def check_points(cases: Sequence[PublishedCase], classes: Sequence[str], root: Path) -> None:
    """Raise `DataError` if a point is of an unknown class."""
    for case in cases:
        for point in case.points:
            if point.name not in classes and point.name != BACKGROUND:
                raise DataError(
                    f"{root}: {case.id} has a point of '{point.name}'; allowed: {', '.join((BACKGROUND, *classes))}; "
                    f"correct its class, or list it in {CLASSES}"
                )


def check_not_shares(kind: str, coordinates: Sequence[Sequence[float]], location: object) -> None:
    """Raise `DataError` if all coordinates are within 0..1."""
    if coordinates and all(0 <= value <= 1 for entry in coordinates for value in entry):
        raise DataError(
            f"{location}: all {len(coordinates)} {kind} lie within 0..1, like shares of the image; allowed: pixels, "
            "for a box its upper left corner, width and height; multiply by the image's width and height"
        )


def _bits(ids: Iterable[int]) -> int:
    return sum(1 << number for number in set(ids))


def _mask_faults(case: PublishedCase, files: Manifest, size: tuple[int, int], known: _KnownIds) -> Iterator[str]:
    """Yield faults of masks; `known` are the ids allowed in masks of class ids."""
    for mask in case.masks:
        if isinstance(mask, MaskRuns):
            if last_pixel(mask.runs) > size[0] * size[1]:
                yield past_the_end(mask.runs, size, f"{case.id}: mask of {mask.name}")
            continue
        yield from _file_faults(mask, case, files, size, "mask")
        position = files.positions.get(mask.path)
        if position is not None and not files.fault[position]:
            unknown = numbers_in(int(files.values[position], 16) & ~known.bits)
            if not mask.name and unknown:
                yield f"{mask.path} {_unknown_ids(unknown, known)}"


def _file_faults(
    mask: MaskFile, case: PublishedCase, files: Manifest, size: tuple[int, int], kind: str
) -> Iterator[str]:
    """Yield why a file does not fit its image, regardless of its values; `kind` names its content in messages."""
    position = files.positions.get(mask.path)
    if position is None:
        yield f"{mask.path} is missing; allowed: every mask file the tables name; restore it"
    elif files.fault[position]:
        yield files.fault[position]
    else:
        turned = files.remark[files.positions[case.path]] + files.remark[position]
        actual = files.width[position], files.height[position]
        yield from _size_faults(mask, actual, size, kind, turned=EXIF in turned)
        fault = position_fault(mask.path, case.path, files) if mask.place is None else ""
        if fault:
            yield fault


def _scribble_faults(case: PublishedCase, files: Manifest, size: tuple[int, int], values: ScribbleIds) -> Iterator[str]:
    """Yield faults of scribbles."""
    for mask in case.scribbles:
        yield from _file_faults(mask, case, files, size, "scribbles")
        position = files.positions[mask.path]
        held = numbers_in(int(files.values[position] or "0", 16))
        unknown = [value for value in held if value not in values.allowed]
        outside = " or ".join(map(str, values.outside))
        if unknown:
            yield (
                f"{mask.path} holds {_listed_values(unknown)}; allowed: {_listed_values(sorted(values.allowed))}, of "
                f"which {outside} is outside of scribbles; correct it, or add the class to {CLASSES}"
            )
        elif held and not set(values.outside).intersection(held):
            yield (
                f"{mask.path} has no pixel of {outside}, so that all of its pixels count as annotated; allowed: "
                f"{outside} outside of scribbles, 0 at those of the background; write it again, or move it to masks"
            )


def _listed_values(values: Sequence[int]) -> str:
    return ", ".join([*map(str, values[:SHOWN]), *(["..."] if len(values) > SHOWN else [])])


def _unknown_ids(unknown: Sequence[int], known: _KnownIds) -> str:
    shown = ", ".join(map(str, unknown[-SHOWN:]))
    allowed = f"allowed: 0 (background) to {known.classes}; correct the mask or add the class to {known.class_list}"
    if len(unknown) > SHOWN:
        return f"holds {len(unknown)} ids of no class ({shown}, ...); {allowed}"
    several = len(unknown) > 1
    if known.class_list != CLASSES:  # other layouts state ignored ids themselves
        return f"holds the class id{'s' * several} {shown}; {allowed}"
    ignore = f"[{shown}]" if several else shown
    return (
        f"holds the class id{'s' * several} {shown}; {allowed}, or set `ignore: {ignore}` where pixels of the "
        f"{'ids' if several else 'id'} have no label"
    )


def _size_faults(
    mask: MaskFile, actual: tuple[int, int], size: tuple[int, int], kind: str, *, turned: bool
) -> Iterator[str]:
    x, y, *expected = mask.place or (0, 0, *size)
    if actual != tuple(expected):
        yield (
            f"{mask.path} has {_format_size(*actual)} pixels; allowed: {_format_size(*expected)}, the size of its "
            f"{'row in the table' if mask.place else 'image'}; restore the {kind} or the image"
            f"{_TURNED if turned and actual == size[::-1] else ''}"
        )
    elif x < 0 or y < 0 or x + actual[0] > size[0] or y + actual[1] > size[1]:
        yield (
            f"{mask.path} at ({x}, {y}) with {_format_size(*actual)} pixels leaves its image; allowed: inside "
            f"{_format_size(*size)}; correct its row in the table"
        )


def _box_faults(case: PublishedCase, size: tuple[int, int]) -> Iterator[str]:
    right, bottom = size[0] + TOLERANCE, size[1] + TOLERANCE
    for box in case.boxes:
        inside = min(box.x, box.y) >= -TOLERANCE
        if box.width <= 0 or box.height <= 0:
            sides = _format_values(box.name, box.width, box.height)
            yield f"{case.id}: box {sides} is empty; allowed: sides above 0; correct it"
        elif not inside or box.x + box.width > right or box.y + box.height > bottom:
            corners = _format_values(box.name, box.x, box.y, box.width, box.height)
            yield f"{case.id}: box {corners} leaves the image; allowed: inside {_format_size(*size)}; correct it"


def _point_faults(
    case: PublishedCase, kind: str, points: Sequence[tuple[str, float, float]], size: tuple[int, int]
) -> Iterator[str]:
    for name, x, y in points:
        if not (-TOLERANCE <= x <= size[0] + TOLERANCE and -TOLERANCE <= y <= size[1] + TOLERANCE):
            yield (
                f"{case.id}: {kind} {_format_values(name, x, y)} is outside; allowed: inside {_format_size(*size)}; "
                "correct it"
            )


def _format_size(width: int, height: int) -> str:
    return f"{width} x {height}"


def _format_values(name: str, *numbers: float) -> str:
    return f"{name} ({', '.join(f'{number:g}' for number in numbers)})"
