"""Out-of-fold prediction of a study's own images: the networks that predict an image, and the Dice of its mask.

A network is out of fold for an image of its test split: it neither trained nor validated on that image.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.decode import content_hash
from datasets.errors import DataError
from datasets.large import release, row_bands
from datasets.settings import NATIVE, EvaluatedSize, shape_of
from datasets.source import IGNORE, Index, Pixels, file_contents
from datasets.sources import open_source
from models.tasks.base import Outputs
from results.metrics.background import BACKGROUND
from results.metrics.compute import MetricSettings, measure
from results.schema import POSTPROCESSED
from study.analysis.tables import metric_settings
from study.config.schema import StudySpec
from study.config.validation import parse
from study.inference.select import Choice
from study.planning.arms import Resolver, assignments, evaluated_size
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Masks = NDArray[np.bool_]
DiceCounts = NDArray[np.int64]
"""Numbers of pixels: in both masks, in the predicted one, in the true one."""
DICE = ("macro", "dice")
TEST = "test"

NEW = "not in the study's data"
UNLABELLED = "without a mask"
NOT_TESTED = "trained on, validated on or left out by every network"
ENSEMBLE = "predicted by all networks (--ensemble), which may have trained on them"
NO_CLASS = "without a scored class in the true mask"


@dataclass(frozen=True, kw_only=True)
class StudyImage:
    """An image or a volume of a study's target data."""

    id: str
    rows: tuple[int, ...]
    """Positions in the index of the data: one, or those of the slices."""
    has_mask: bool
    test_dice: Mapping[str, float]
    """Stored Dice by the digest of each network that has the image in its test split; NaN if no class is scored."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The networks that predict an image."""

    digests: tuple[str, ...]
    out_of_fold: bool
    """Whether the image is in the test split of all of them."""
    no_dice: str | None = None
    """Why no Dice is stated; None if it is."""


@dataclass(frozen=True, kw_only=True)
class ImageDice:
    """Dice of an image, averaged over the classes in its true mask."""

    image: str
    scored: float
    """At the evaluated size, averaged over the scores of the out-of-fold networks."""
    original: float
    """Of the mask that these networks predict together, at the size of the image."""
    evaluated_size: EvaluatedSize
    image_size: tuple[int, int]
    """(height, width)."""

    def __str__(self) -> str:
        height, width = self.image_size
        scored = f"{self.scored:.4f} as scored"
        if self.evaluated_size != NATIVE:
            rows, columns = shape_of(self.evaluated_size)
            scored += f" at {columns} x {rows}"
        return f"{self.image}: Dice {scored}, {self.original:.4f} at its own {width} x {height}"


def networks_for(image: StudyImage | None, digests: Sequence[str], *, ensemble: bool = False) -> Selection:
    """Select the networks that predict an image; None is an image that is not in the study's data.

    These are the networks that tested the image, or all if there are none or with `ensemble`.
    """
    tested = tuple(digest for digest in digests if image is not None and digest in image.test_dice)
    selected = tuple(digests) if ensemble or not tested else tested
    if image is None:
        reason: str | None = NEW
    elif not image.has_mask:
        reason = UNLABELLED
    elif not tested:
        reason = NOT_TESTED
    else:
        reason = ENSEMBLE if selected != tested else None
    return Selection(digests=selected, out_of_fold=selected == tested, no_dice=reason)


class StudyImages:
    """The images and volumes of a study's target data, identified by file content."""

    def __init__(self, choice: Choice, store: Store, data: str, cache: Path, *, postprocessed: bool = False) -> None:
        """Read the index of the target `data` and the test scores of the chosen networks.

        The scores are those of post-processed masks if `postprocessed` is set and there are some.

        Raises `DataError` or `OSError` if either cannot be read.
        """
        import pyarrow.parquet as pq

        spec = parse(dict(choice.spec))[0]
        if spec is None or data not in spec.data:
            raise DataError(
                f"the study's file has no data {data}; allowed: the file as it was run; run the study again"
            )
        self._settings = metric_settings(spec)
        self._source = open_source(spec.data[data])
        self._evaluated_size = _evaluated_size(spec)
        test_dice: dict[str, dict[str, float]] = {}
        for digest, scoring in choice.scorings.items():
            scores, images = (pq.read_table(find(digest, scoring)) for find in (store.scores, store.images))
            splits = [TEST + POSTPROCESSED, TEST] if postprocessed else [TEST]
            for image, dice in _test_dice(scores, images, self._settings, splits).items():
                test_dice.setdefault(image, {})[digest] = dice
        self._images = _by_content(self._source.index(cache), test_dice)

    def find(self, file: Path) -> StudyImage | None:
        """Return the image of the study's data with the content of this file, None if there is none."""
        return self._images.get(content_hash(file))

    def dice(self, image: StudyImage, selection: Selection, masks: Masks, outputs: Outputs) -> ImageDice:
        """Compare predicted masks of an image or volume at its own size with its true masks.

        Masks are (classes, H, W) or (classes, slices, H, W). Pixels without a label are left out.
        """
        names = (*outputs.names, *([BACKGROUND] if outputs.exclusive else []))
        pixels = {name: np.zeros(3, np.int64) for name in names}
        for row, planes in zip(image.rows, [masks] if masks.ndim == 3 else np.moveaxis(masks, 1, 0), strict=True):
            truth = self._source.masks(row)
            for lines in row_bands(*planes.shape[1:]):
                for name, counts in _dice_counts(planes[:, lines], truth[..., lines, :], outputs).items():
                    pixels[name] += counts
                release(planes)
                release(truth)
        return ImageDice(
            image=image.id,
            scored=float(np.mean([image.test_dice[digest] for digest in selection.digests])),
            original=mean_dice(pixels, self._settings),
            evaluated_size=self._evaluated_size,
            image_size=(masks.shape[-2], masks.shape[-1]),
        )


@dataclass(frozen=True)
class OutOfFoldSummary:
    """The networks and the Dice of all predicted images of the study's data, by image id."""

    selections: dict[str, Selection] = field(default_factory=dict)
    dice: dict[str, ImageDice] = field(default_factory=dict)

    def add(self, image: StudyImage, selection: Selection, dice: ImageDice | None) -> None:
        """Add an image; an undefined Dice (NaN) is left out."""
        self.selections[image.id] = selection
        if dice is not None and not math.isnan(dice.scored + dice.original):
            self.dice[image.id] = dice

    def lines(self) -> Iterator[str]:
        """Yield the Dice of each image, their mean, and the numbers of images without Dice by reason."""
        yield from map(str, self.dice.values())
        if self.dice:
            scored, original = (
                np.mean([getattr(dice, name) for dice in self.dice.values()]) for name in ("scored", "original")
            )
            yield (
                f"mean of {len(self.dice)} test images: Dice {scored:.4f} as scored, {original:.4f} at own size; "
                "out-of-fold: by networks that neither trained nor validated on the image"
            )
        without = Counter(
            (selection.no_dice or NO_CLASS, selection.out_of_fold)
            for id_, selection in self.selections.items()
            if id_ not in self.dice
        )
        for (reason, out_of_fold), count in without.items():
            kind = "out-of-fold" if out_of_fold else "ensemble"
            yield f"{count} image{'s' * (count > 1)} of the study's data: {reason}; {kind} mask, no Dice"

    def record(self) -> dict[str, object]:
        """Return `networks` and `dice` by image as `predictions.json` holds them; empty parts are left out."""
        networks = {
            id_: {"stages": list(selection.digests), "out_of_fold": selection.out_of_fold}
            for id_, selection in self.selections.items()
        }
        dice = {id_: {"scored": dice.scored, "original": dice.original} for id_, dice in self.dice.items()}
        return ({"networks": networks} if networks else {}) | ({"dice": dice} if dice else {})


def mean_dice(pixels: Mapping[str, DiceCounts], settings: MetricSettings) -> float:
    """Return the mean Dice over the scored classes that occur in the true masks; NaN if none does."""
    scored = set(settings.classes or pixels) - {BACKGROUND} | ({BACKGROUND} if settings.background else set())
    present = [counts for name, counts in pixels.items() if name in scored and counts[2]]
    dice = [2 * both / (predicted + true) for both, predicted, true in present]
    return float(np.mean(dice)) if dice else float("nan")


def _dice_counts(masks: Masks, truth: Pixels, outputs: Outputs) -> dict[str, DiceCounts]:
    """Count the labelled pixels of each class, and of the background where classes exclude each other.

    Args:
        masks: Predicted masks (classes, H, W).
        truth: True masks as those of a source.
        outputs: The classes.
    """
    true_masks = truth == (np.arange(1, len(masks) + 1)[:, None, None] if outputs.exclusive else 1)
    labelled = truth != IGNORE
    predicted, true = (_by_class(part, outputs, labelled) for part in (masks, true_masks))
    return {
        name: np.array([(mask & true[name]).sum(), mask.sum(), true[name].sum()]) for name, mask in predicted.items()
    }


def _by_class(masks: Masks, outputs: Outputs, labelled: Masks) -> dict[str, Masks]:
    """Return the labelled pixels of each class, and of the background where classes exclude each other.

    Labelled pixels are (H, W), or (classes, H, W) of overlapping classes.
    """
    named = dict(zip(outputs.names, masks & labelled, strict=True))
    return named | ({BACKGROUND: ~masks.any(axis=0) & labelled} if outputs.exclusive else {})


def _evaluated_size(spec: StudySpec) -> EvaluatedSize:
    """Return the size at which the study's arms are scored; pathways with unknown stages are ignored."""
    resolver = Resolver(spec)
    resolvable = {name for name, links in spec.pathways.items() if spec.stages.keys() >= {link.stage for link in links}}
    arms = [resolver.arm(row) for row in assignments(spec) if row["pathway"] in resolvable]
    return evaluated_size(spec, [arm for arm in arms if arm is not None])


def _by_content(index: Index, test_dice: Mapping[str, Mapping[str, float]]) -> dict[str, StudyImage]:
    """Return images and volumes by the hash of their file, of the first one if channels are in several files."""
    rows: dict[str, dict[str, list[int]]] = {}
    for row, content in enumerate(index.content):
        rows.setdefault(file_contents(content)[0], {}).setdefault(_case_of(index, row), []).append(row)
    return {content: _study_image(list(copies.values()), index, test_dice) for content, copies in rows.items()}


def _study_image(
    copies: Sequence[Sequence[int]], index: Index, test_dice: Mapping[str, Mapping[str, float]]
) -> StudyImage:
    """Return the image, or the volume, that copies of one file stand for; each copy has the rows of its slices."""
    usable = [rows for rows in copies if not index.faults[rows[0]]]
    labelled = [rows for rows in usable if index.annotation_digests["masks"][rows[0]]]
    rows = (labelled or copies)[0]
    # The same file may belong to several patients: a network that trained on one copy is not out of fold.
    tested = [test_dice.get(_case_of(index, copy[0]), {}) for copy in usable]
    name = _case_of(index, rows[0])
    dice = {
        digest: value for digest, value in test_dice.get(name, {}).items() if all(digest in copy for copy in tested)
    }
    return StudyImage(id=name, rows=tuple(rows), has_mask=bool(labelled), test_dice=dice)


def _case_of(index: Index, row: int) -> str:
    """Return the id of an image, or the volume of a slice."""
    return index.volume(row) or index.ids[row]


def _test_dice(
    scores: "pa.Table", images: "pa.Table", settings: MetricSettings, splits: Sequence[str]
) -> dict[str, float]:
    """Return the Dice of every test image of a network in the first split there is; NaN without a scored class."""
    by_split = {part.split: part for part in measure(scores, images, settings).images}
    for split in splits:
        if part := by_split.get(split):
            return dict(zip(part.images, part.values[:, part.series.index(DICE)].tolist(), strict=True))
    return {}
