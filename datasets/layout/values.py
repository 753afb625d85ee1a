"""The values in a sample of masks, and which settings read them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from datasets.decoding.decode import BROKEN, VOLUME_SUFFIXES, read, suffix_of
from datasets.decoding.raster import Raster, open_raster, open_stack
from datasets.errors import DataError
from datasets.layout.files import spread
from datasets.layout.proposal import Proposal
from datasets.layout.tables import ClassTable
from datasets.settings import VolumeSettings
from datasets.source import IGNORE, Pixels

SAMPLE: Final = 24
"""Number of masks that are read."""
MAX_COLOURS, MAX_IDS = 40, 40
"""Maximum numbers of colours and ids that may be classes."""
NOISE: Final = 40
"""Distance from 0 and 255 of grey values that are soft edges or traces of compression."""
CHROMA: Final = 100
"""Range of the channels of a pixel above which it has a hue; compression of 0 and 255 changes the channels alike."""
EDGE_SHARE: Final = 0.06
"""Maximum share of pixels further from 0 and 255 in a mask with soft edges."""
MAX_LEVELS: Final = 8
"""Maximum number of values between 0 and 255 that may be classes rather than soft edges."""
VOID_SHARE: Final = 0.15
"""Maximum share of the pixels of masks that hold 255 if it marks unlabelled pixels."""
MODE_SHARE: Final = 0.5
"""Share of the greys between 0 and 255 near one value that shows a further class in compressed masks."""
UNNAMED: Final = "foreground"
Colour = tuple[int, int, int]
Value = TypeVar("Value", int, Colour)


@dataclass(frozen=True, kw_only=True)
class MaskSample:
    """Values of a few masks.

    Attributes:
        greys: Number of pixels by grey value or id, of each mask without colours.
        colours: Number of pixels by colour, of each mask with colours.
        lossy: Whether some masks are compressed in a way that changes values.
        palette: Whether some masks have a palette of colours.
        faults: Why masks could not be read.
    """

    greys: Sequence[Mapping[int, int]]
    colours: Sequence[Mapping[Colour, int]]
    lossy: bool
    palette: bool
    faults: Sequence[str]


def sample_masks(root: Path, paths: Sequence[str], count: int = SAMPLE) -> MaskSample:
    """Read a fixed choice of masks."""
    greys: list[Mapping[int, int]] = []
    colours: list[Mapping[Colour, int]] = []
    lossy, palette, faults = False, False, []
    for path in spread(paths, count):
        try:
            if suffix_of(path) in VOLUME_SUFFIXES:
                greys.append(_counts(read(root / path, "ids", VolumeSettings())))
                continue
            raster = _first_page((root / path).read_bytes())
            lossy |= raster.lossy
            values = raster.colour if raster.lossy or not raster.is_palette else raster.numbers()
            palette |= raster.is_palette and bool((raster.colour[..., :1] != raster.colour).any())
            if values.ndim == 3 and (values != values[..., :1]).any():
                colours.append(_colour_counts(values))
            else:
                grey = values[..., 0] if values.ndim == 3 else values
                is_one_bit = raster.image.mode == "1"
                greys.append(_counts(np.asarray(grey > 0, np.uint8) if is_one_bit else grey))
        except (*BROKEN, DataError) as error:
            faults.append(f"{path} cannot be read ({' '.join(str(error).split())[:120]})")
    return MaskSample(greys=greys, colours=colours, lossy=lossy, palette=palette, faults=faults)


def _first_page(data: bytes) -> Raster:
    pages = open_stack(data)
    return open_raster(data) if pages is None else next(pages)


def _counts(values: "Pixels | np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Mapping[int, int]:
    numbers, counts = np.unique(np.asarray(values, np.int64), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _colour_counts(values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> Mapping[Colour, int]:
    red, green, blue = (np.asarray(values[..., channel], np.int64) for channel in range(3))
    counts = _counts((red << 32) + (green << 16) + blue)
    return {(code >> 32, code >> 16 & 0xFFFF, code & 0xFFFF): count for code, count in counts.items()}


def looks_like_masks(sample: MaskSample) -> bool:
    """Return whether files have the few values of masks, or those of compressed masks."""
    if not sample.greys and not sample.colours:
        return False
    few = all(len(values) <= MAX_IDS for values in sample.greys)
    few_colours = all(len(values) <= MAX_COLOURS for values in sample.colours)
    return few_colours and (few or _is_bimodal(sample.greys))


def _is_bimodal(masks: Sequence[Mapping[int, int]]) -> bool:
    """Whether nearly all pixels are near 0 or 255, and both occur."""
    total = _total(masks)
    if not total or max(total) > 255:
        return False
    between = sum(count for value, count in total.items() if NOISE < value < 255 - NOISE)
    low = sum(count for value, count in total.items() if value <= NOISE)
    high = sum(count for value, count in total.items() if value >= 255 - NOISE)
    return between <= EDGE_SHARE * total.total() and low > 0 and high > 0


def value_settings(sample: MaskSample, classes: ClassTable, structure: str, *, by_class: bool) -> Proposal:
    """Return the keys for the values of masks.

    Args:
        sample: Values of some masks.
        classes: Names of classes, by id and by colour, that a file states.
        structure: A name of a structure in the names of folders and files, "" if there is none.
        by_class: Whether each class has masks of its own.

    Raises:
        DataError: The values cannot be told apart.
    """
    if sample.lossy:
        return _lossy(sample)
    if sample.colours:
        return _colours(sample, classes)
    ids = sorted(set().union(*sample.greys)) if sample.greys else []
    foreground = [number for number in ids if number != 0]
    if _has_soft_edges(foreground) and _is_bimodal(sample.greys) and not sample.palette:
        return Proposal(
            layout="", settings={"mask_threshold": 127},
            assumed=["masks have soft edges between 0 and 255: grey values above 127 are foreground"],
        )  # fmt: skip
    if by_class:
        return _foreground_of_classes(sample, foreground)
    if not _names_all(classes, foreground) and _are_objects(sample, foreground):
        return Proposal(
            layout="", settings={"mask_threshold": 0},
            assumed=[
                f"masks number objects ({len(foreground)} different ids in {len(sample.greys)} masks), which are no "
                "classes: every id above 0 is foreground of one class"
            ],
            check=["whether ids number objects or are classes; for classes, remove mask_threshold and list them in "
                   "mask_values"],
        )  # fmt: skip
    light = None if classes.names else _light_background(sample)
    return light or _ids(sample, foreground, classes, structure)


def _names_all(classes: ClassTable, foreground: Sequence[int]) -> bool:
    """Whether a table names several classes, and all ids in masks except for 255."""
    return len(classes.by_id) > 1 and {*foreground} - {IGNORE} <= classes.by_id.keys()


def _foreground_of_classes(sample: MaskSample, foreground: Sequence[int]) -> Proposal:
    """Return the keys for masks of one class each, of 0 and a value."""
    if len(foreground) <= 1:
        return Proposal(layout="", settings={}, assumed=[f"masks of each class hold 0 and {foreground or 'nothing'}"])
    if any(len(values.keys() - {0}) > 1 for values in sample.greys):
        listed = ", ".join(map(str, foreground[:8]))
        raise DataError(
            f"masks named after a class hold several values ({listed}); allowed: 0 and one other value; if these are "
            "encodings of one truth, keep the files of one of them"
        )
    return Proposal(
        layout="", settings={"mask_threshold": 0},
        assumed=[f"masks of each class hold 0 and one of {', '.join(map(str, foreground[:8]))}, which is foreground"],
    )  # fmt: skip


def _is_void(sample: MaskSample, foreground: Sequence[int], classes: ClassTable) -> bool:
    """Whether 255 marks unlabelled pixels: a small share beside the ids 1 to n in the same masks."""
    *lower, last = foreground or [0]
    holding = [values for values in sample.greys if IGNORE in values]
    if last != IGNORE or IGNORE in classes.by_id or not lower or lower != list(range(1, len(lower) + 1)):
        return False
    beside = sum(len(values.keys() - {0, IGNORE}) > 0 for values in holding)
    share = sum(values[IGNORE] for values in holding) / sum(sum(values.values()) for values in holding)
    return 2 * beside > len(holding) and share <= VOID_SHARE


def _light_background(sample: MaskSample) -> Proposal | None:
    """Return the keys for masks whose background is not 0: most pixels of nearly all of several masks."""
    total = _total(sample.greys)
    ((value, count),) = total.most_common(1) or [(0, 0)]
    border = sum(max(values, key=lambda number: values[number]) == value for values in sample.greys)
    if value == 0 or len(total) < 3 or 2 * count < total.total() or border < 0.9 * len(sample.greys):
        return None
    numbers = [number for number in sorted(total) if number != value]
    entries: dict[str, object] = {"background": value, **{f"class_{number}": number for number in numbers}}
    return Proposal(
        layout="", settings={"mask_values": entries}, unknown=["names of the classes"],
        assumed=[f"most pixels of masks hold {value}, which is taken for the background"],
        check=[f"whether {value} is the background, and {', '.join(map(str, numbers[:8]))} are classes"],
    )  # fmt: skip


def _has_soft_edges(foreground: Sequence[int]) -> bool:
    """Whether values lie between dark greys and white, unlike ids without gaps."""
    numbers = [number for number in foreground if number != IGNORE]
    is_counted = numbers == list(range(1, len(numbers) + 1))
    return len(numbers) > MAX_LEVELS and any(number > NOISE for number in numbers) and not is_counted


def _ids(sample: MaskSample, foreground: Sequence[int], classes: ClassTable, structure: str) -> Proposal:
    """Return the keys for masks of class ids."""
    if foreground == [1, IGNORE] and not classes.names and all(len(values.keys() - {0}) < 2 for values in sample.greys):
        return Proposal(
            layout="", settings={"mask_values": {structure or UNNAMED: foreground}},
            assumed=["some masks hold 1 and others 255, which are foreground of one class"],
            check=["whether 1 and 255, which no mask holds together, are one class"],
        )  # fmt: skip
    void = _is_void(sample, foreground, classes)
    numbers = [number for number in foreground if not (void and number == IGNORE)]
    proposal = _named_ids(sample, foreground, numbers, classes, structure)
    return replace(proposal, check=[*proposal.check, *_doubts(sample, numbers, classes, void=void)])


def _doubts(sample: MaskSample, numbers: Sequence[int], classes: ClassTable, *, void: bool) -> list[str]:
    """Return what to check where ids may stand for something else."""
    total = _total(sample.greys)
    value, count = max(total.items(), key=lambda entry: entry[1], default=(0, 0))
    doubts = []
    if numbers and not total[0]:
        doubts.append(f"which id is the background: no mask that was read holds 0, {value} is most frequent")
    elif value != 0 and 2 * count > total.total():
        doubts.append(f"whether {value}, which most pixels hold, is the background")
    if len(classes.by_id) > 1:
        doubts += classes.check
        if 0 in classes.by_id:
            doubts.append(f"whether 0 is the class {classes.by_id[0]}, or the background")
    if void:
        doubts.append("whether 255 marks unlabelled pixels")
    elif IGNORE in numbers and len(numbers) > 1 and IGNORE not in classes.by_id:
        share = total[IGNORE] / total.total()
        doubts.append(f"whether 255 ({share:.0%} of all pixels) is a class, the background or unlabelled")
    between = [number for number in numbers if NOISE < number < IGNORE]
    if between and IGNORE in numbers and _is_bimodal(sample.greys):
        doubts.append(
            f"whether {', '.join(map(str, between[:8]))} are classes, or soft edges: then set `mask_threshold: 127`"
        )
    return doubts


def _named_ids(
    sample: MaskSample, foreground: Sequence[int], numbers: Sequence[int], classes: ClassTable, structure: str
) -> Proposal:
    """Return the keys for ids; those in `foreground` and not in `numbers` are unlabelled pixels."""
    void = len(numbers) < len(foreground)
    held = sorted(set().union(*sample.greys))
    assumed = [f"{len(sample.greys)} masks that were read hold the ids {', '.join(map(str, held[:20]))}"]
    if void:
        assumed.append("255 is a small share beside other ids: its pixels count as unlabelled")
    if len(numbers) == 1 and not classes.names:
        classes = ClassTable(names=(structure or UNNAMED,))
    single = len(numbers) == 1 and len(classes.names) == 1
    named = {classes.names[0]: numbers[0]} if single else {name: number for number, name in classes.by_id.items()}
    if named and set(numbers) <= set(named.values()):
        values: dict[str, object] = {**named, **({"ignore": IGNORE} if void else {})}
        if classes.file:
            assumed.append(f"{classes.file} names the classes {', '.join(named)}")
        elif structure:
            assumed.append(f"the class is named after its folder or file names: {structure}")
        unnamed = [] if classes.file or structure else [f"the name of the class: it is called {UNNAMED}, rename it"]
        return Proposal(layout="", settings={"mask_values": values}, assumed=assumed, unknown=unnamed)
    unknown = [f"names of the classes {', '.join(f'class_{number}' for number in numbers[:8])}"] if numbers else []
    return Proposal(
        layout="", settings={"ignore": 255} if void else {}, assumed=assumed, unknown=unknown,
        check=["a class that only masks beside these hold is read too, as class_N; `mask_values: {NAME: N}` names it"]
        if len(numbers) > 1 else [],
    )  # fmt: skip


def _are_objects(sample: MaskSample, foreground: Sequence[int]) -> bool:
    """Whether ids number the objects of each image: many ids, or 1 to n with different n."""
    if not foreground or sample.palette:
        return False
    if len(foreground) > MAX_IDS or foreground[-1] > 255:
        return True
    counts = {len(set(values) - {0}) for values in sample.greys} - {0}
    gapless = all(set(values) - {0} == set(range(1, len(set(values) - {0}) + 1)) for values in sample.greys)
    return gapless and len(counts) >= 3 and max(counts) >= 4


def _lossy(sample: MaskSample) -> Proposal:
    greys = [*sample.greys, *(_brightest(values) for values in sample.colours)]
    if any(map(_has_hues, sample.colours)):
        raise DataError(
            "masks are JPEG files in colours, which compression has changed; allowed: lossless masks, or JPEG files of "
            "0 and 255; convert them to PNG with the colour or id of each class"
        )
    if not _is_bimodal(greys) or _has_mode_between(greys):
        raise DataError(
            "masks are JPEG files with more than two values, which compression has changed; allowed: lossless masks, "
            "or JPEG files of 0 and 255; convert them to PNG with the id of each class"
        )
    return Proposal(
        layout="", settings={"mask_threshold": 127},
        assumed=["masks are JPEG files of 0 and 255 with traces of compression: values above 127 are foreground"],
    )  # fmt: skip


def _has_mode_between(masks: Sequence[Mapping[int, int]]) -> bool:
    """Whether most greys between 0 and 255 are near one value, and are more than traces of compression."""
    total = _total(masks)
    between = {value: count for value, count in total.items() if NOISE < value < 255 - NOISE}
    windows = [
        sum(between.get(value, 0) for value in range(centre - 10, centre + 11))
        for centre in range(NOISE + 1, 255 - NOISE)
    ]
    return max(windows) >= max(MODE_SHARE * sum(between.values()), 0.005 * total.total(), 1)


def _total(masks: Iterable[Mapping[Value, int]]) -> Counter[Value]:
    """Return how often each value occurs in all masks."""
    total = Counter[Value]()
    for values in masks:
        total.update(values)
    return total


def _has_hues(values: Mapping[Colour, int]) -> bool:
    """Return whether more pixels of a mask are coloured than compression explains."""
    coloured = sum(count for colour, count in values.items() if max(colour) - min(colour) > CHROMA)
    return coloured > 0.001 * sum(values.values())


def _brightest(values: Mapping[Colour, int]) -> Mapping[int, int]:
    counts = Counter[int]()
    for colour, count in values.items():
        counts[max(colour)] += count
    return counts


def _colours(sample: MaskSample, classes: ClassTable) -> Proposal:
    """Return the keys for masks with colours; masks without colours hold greys of the same table."""
    total = _total(sample.colours)
    for greys in sample.greys:
        total.update({(grey, grey, grey): count for grey, count in greys.items()})
    masks = len(sample.colours) + len(sample.greys)
    if len(total) > MAX_COLOURS:
        shared = sum(all(colour in values for values in sample.colours) for colour in total if colour != (0, 0, 0))
        if shared or any(len(values) > 10 * MAX_COLOURS for values in sample.colours):
            raise DataError(
                f"masks have {len(total)} colours, as soft edges make; allowed: one colour a class; save masks without "
                "antialiasing"
            )
        return Proposal(
            layout="", settings={"mask_threshold": 0},
            assumed=[f"masks give each object a colour ({len(total)} colours in {masks} masks): all are one class"],
        )  # fmt: skip
    named, void = classes.by_colour, classes.unlabelled
    black = (0, 0, 0)
    free = Counter({colour: count for colour, count in total.items() if colour not in {*named, *void}})
    frequent = free.most_common(1)[0][0] if free else None
    background = classes.background or (black if black in free or black in {*named, *void} else frequent)
    entries: dict[str, object] = {}
    assumed = [f"{masks} masks that were read have the colours {', '.join(str(list(key)) for key in sorted(total))}"]
    check = []
    if background is not None and background != black:
        entries["background"] = list(background)
        if classes.background is None:
            check.append(f"the most frequent colour {list(background)} is taken for the background")
    for colour, name in named.items():
        entries[name] = list(colour)
    if void:
        entries["ignore"] = [list(colour) for colour in void] if len(void) > 1 else list(void[0])
        assumed.append(f"{classes.file} names colours of unlabelled pixels: {', '.join(str(list(c)) for c in void)}")
    unnamed = [colour for colour in sorted(total) if colour != background and colour not in {*named, *void}]
    for number, colour in enumerate(unnamed, 1):
        entries[f"class_{number}"] = list(colour)
    if named:
        assumed.append(f"{classes.file} names the colours of {', '.join(named.values())}")
        check += classes.check[1:]
    if unnamed:
        check.append(
            f"colours of {masks} masks are in mask_values; a file with another one is faulty, and `study data check` "
            "names it"
        )
    return Proposal(
        layout="", settings={"mask_values": entries}, assumed=assumed, check=check,
        unknown=[f"names of the colours {', '.join(str(list(colour)) for colour in unnamed[:8])}"] if unnamed else [],
    )  # fmt: skip
