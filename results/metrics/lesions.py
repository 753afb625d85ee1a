"""Connected components of masks: lesions that match, and centre lines."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.large import is_large, release, row_bands
from results.metrics.contours import Mask

Numbers = NDArray[np.int64]
MAX_SKELETONS = 10_000
"""Number of components of a large mask that have a centre line; the others are the smallest ones."""


class Places(NamedTuple):
    """Where the components of a large mask are, by component; row 0 is not used.

    Attributes:
        boxes: First row and column and the ones after the last, (components + 1, 4).
        pixels: A pixel of each, counted row by row.
    """

    boxes: Numbers
    pixels: Numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """The connected components of a mask, numbered from 1: of 8 neighbours in an image, of 26 in a volume.

    Attributes:
        mask: (height, width), or (slices, height, width) of a volume.
        sizes: Number of pixels of each component; the first number is not used.
        of_label: Component of each label of a band, counted over all bands; 0 for the background.
        places: Boxes of the components; None unless the mask is large.
    """

    mask: Mask
    sizes: Numbers
    of_label: Numbers
    places: Places | None

    @property
    def count(self) -> int:
        """Return the number of components."""
        return len(self.sizes) - 1

    def largest_first(self) -> Iterator[tuple[tuple[slice, slice], tuple[int, int]]]:
        """Yield the box (rows and columns) of each component of a large mask and a pixel of it in the box."""
        assert self.places is not None, "only large masks have places"
        boxes, pixels = self.places
        areas = (boxes[1:, 2:] - boxes[1:, :2]).prod(axis=1)
        for number in (np.argsort(-areas, kind="stable") + 1).tolist():
            top, left, bottom, right = boxes[number].tolist()
            row, column = divmod(int(pixels[number]), self.mask.shape[1])
            yield (slice(top, bottom), slice(left, right)), (row - top, column - left)


class Labelling:
    """Labels a mask band by band; labels of different bands that touch are joined at the end.

    Each band is labelled once, and its labels are not kept: a label image of a large mask takes much more memory than
    the mask.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask, self._is_large = mask, is_large_mask(mask)
        self._count = 0
        self._above: Numbers | None = None
        self._sizes: list[Numbers] = [np.zeros(1, np.int64)]
        self._boxes: list[Numbers] = [np.zeros((1, 4), np.int64)]
        self._pixels: list[Numbers] = [np.zeros(1, np.int64)]
        self._touching: list[Numbers] = [np.zeros((0, 2), np.int64)]

    def band(self, rows: slice) -> Numbers:
        """Return the labels of the next band, which follow those of the bands before."""
        from scipy.ndimage import label

        of_band, count = label(self._mask[rows], neighbours(self._mask))
        release(self._mask)
        labels: Numbers = of_band.astype(np.int64)
        self._sizes.append(np.bincount(labels.ravel(), minlength=count + 1)[1:])
        if self._is_large:
            self._locate(labels, rows.start)
        if self._count:
            labels[labels > 0] += self._count
        if self._above is not None:
            self._touching.append(_touching(self._above, labels[0]))
        self._above = labels[-1].copy() if self._is_large else None
        self._count += count
        return labels

    def _locate(self, labels: Numbers, top: int) -> None:
        """Add box and pixel of each label of a band."""
        from scipy.ndimage import find_objects

        places = [
            (rows.start + top, columns.start, rows.stop + top, columns.stop) for rows, columns in find_objects(labels)
        ]
        foreground = np.flatnonzero(labels)
        pixels = np.zeros(len(places), np.int64)
        pixels[labels.ravel()[foreground] - 1] = foreground + top * labels.shape[1]
        self._boxes.append(np.array(places, np.int64).reshape(-1, 4))
        self._pixels.append(pixels)

    def components(self) -> Components:
        """Return the components after the last band."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        total = self._count + 1
        first, second = np.concatenate(self._touching).T
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(total, total))
        count, numbers = connected_components(graph, directed=False)
        of_label = numbers.astype(np.int64)  # the background, which nothing touches, is component 0
        sizes = np.zeros(count, np.int64)
        np.add.at(sizes, of_label, np.concatenate(self._sizes))
        return Components(
            mask=self._mask, sizes=sizes, of_label=of_label,
            places=self._places(of_label, count) if self._is_large else None,
        )  # fmt: skip

    def _places(self, of_label: Numbers, count: int) -> Places:
        of_labels, pixels = np.concatenate(self._boxes), np.zeros(count, np.int64)
        boxes = np.tile(np.array([*self._mask.shape, 0, 0]), (count, 1))
        np.minimum.at(boxes[:, :2], of_label, of_labels[:, :2])
        np.maximum.at(boxes[:, 2:], of_label, of_labels[:, 2:])
        pixels[of_label] = np.concatenate(self._pixels)
        return Places(boxes, pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """The components of a true and a predicted mask, and how many pixels they share.

    Attributes:
        true, predicted: The components.
        pairs: (pairs, 2) numbers of a true and a predicted component that share pixels.
        shared: Number of these pixels.
    """

    true: Components
    predicted: Components
    pairs: Numbers
    shared: NDArray[np.float64]

    @classmethod
    def of(cls, truth: Mask, predicted: Mask) -> "Overlap":
        """Label both masks."""
        true_labelling, predicted_labelling = Labelling(truth), Labelling(predicted)
        labels, counts = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]
        for rows in row_bands(*truth.shape) if is_large_mask(truth) else [slice(0, len(truth))]:
            true_labels, predicted_labels = true_labelling.band(rows), predicted_labelling.band(rows)
            in_both = (true_labels > 0) & (predicted_labels > 0)
            pairs, times = _unique_pairs(np.stack([true_labels[in_both], predicted_labels[in_both]], axis=1))
            labels.append(pairs)
            counts.append(times)
        of_truth, of_prediction = true_labelling.components(), predicted_labelling.components()
        first, second = np.concatenate(labels).T
        numbers = np.stack([of_truth.of_label[first], of_prediction.of_label[second]], axis=1)
        pairs, shared = _unique_pairs(numbers, np.concatenate(counts))
        return cls(true=of_truth, predicted=of_prediction, pairs=pairs, shared=shared)

    def lesion_counts(self, *, min_iou: float) -> tuple[int, int, int]:
        """Return the numbers of true positive, false positive and false negative lesions.

        Lesions are connected components. Each is matched to at most one, so that the number of pairs with an IoU of at
        least `min_iou` is largest.
        """
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_bipartite_matching

        true_lesions, predicted_lesions = self.true.count, self.predicted.count
        rows, columns = self.pairs.T
        union = self.true.sizes[rows] + self.predicted.sizes[columns] - self.shared
        matching = self.shared / union >= min_iou
        if not matching.any():
            return 0, predicted_lesions, true_lesions
        shape = (true_lesions + 1, predicted_lesions + 1)
        graph = csr_array((np.ones(matching.sum()), (rows[matching], columns[matching])), shape=shape)
        matched = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
        return matched, predicted_lesions - matched, true_lesions - matched

    def centre_line_dice(self) -> float:
        """Return the harmonic mean of the shares of each mask's skeleton inside the other mask.

        NaN if both masks are empty.
        """
        if not self.true.count or not self.predicted.count:
            return 0.0 if self.true.count or self.predicted.count else math.nan
        precision = _share_inside(self.predicted, self.true.mask)
        sensitivity = _share_inside(self.true, self.predicted.mask)
        return float(2 * precision * sensitivity / (precision + sensitivity)) if precision + sensitivity else 0.0


def is_large_mask(mask: Mask) -> bool:
    """Return whether a mask is labelled band by band."""
    return mask.ndim == 2 and is_large(*mask.shape)


def neighbours(mask: Mask) -> Numbers:
    """Return the pixels that are connected: 8 neighbours in an image, 26 in a volume."""
    return np.ones((3,) * mask.ndim, np.int64)


def _touching(above: Numbers, below: Numbers) -> Numbers:
    """Return (pairs, 2) labels of two neighbouring rows that touch."""
    shifted = [(above, below), (above[1:], below[:-1]), (above[:-1], below[1:])]
    pairs = np.concatenate([np.stack(rows, axis=1) for rows in shifted])
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def _unique_pairs(pairs: Numbers, weights: Numbers | None = None) -> tuple[Numbers, NDArray[Any]]:
    """Return the different pairs of (n, 2), and how often each occurs or the sum of its weights."""
    factor = int(pairs[:, 1].max(initial=0)) + 1
    keys, position = np.unique(pairs[:, 0] * factor + pairs[:, 1], return_inverse=True)
    return np.stack(np.divmod(keys, factor), axis=1), np.bincount(position.ravel(), weights, minlength=len(keys))


def _share_inside(components: Components, mask: Mask) -> float:
    """Return the share of the skeleton of some components that is inside a mask."""
    inside = total = 0
    for place, line in _skeletons(components):
        inside += int((line & mask[place]).sum())
        total += int(line.sum())
    release(mask)
    return inside / total


def _skeletons(components: Components) -> Iterator[tuple[tuple[slice, ...], Mask]]:
    """Yield the skeleton of a mask, of a large one those of the largest components, each with its place."""
    from scipy.ndimage import label

    mask = components.mask
    if components.places is None:
        yield (slice(None),) * mask.ndim, skeleton(mask)
        return
    for place, pixel in islice(components.largest_first(), MAX_SKELETONS):
        labels, _ = label(mask[place], neighbours(mask))
        release(mask)
        yield place, skeleton(labels == labels[pixel])


def skeleton(mask: Mask) -> Mask:
    """Return the skeleton of an image (Zhang and Suen 1984) or a volume (Lee et al. 1994).

    Thinning removes some compact components of a volume altogether. Their skeleton is the voxel farthest from the
    border.
    """
    from scipy.ndimage import distance_transform_edt, label
    from skimage.morphology import skeletonize

    lines: Mask = skeletonize(mask).astype(np.bool_)  # type: ignore[no-untyped-call]
    if mask.ndim == 2:
        return lines
    components, count = label(mask, np.ones((3, 3, 3), dtype=int))
    missing = np.setdiff1d(np.arange(1, count + 1), components[lines])
    if len(missing):
        depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
        for component in missing:
            lines[np.unravel_index(np.argmax(np.where(components == component, depth, 0)), mask.shape)] = True
    return lines
