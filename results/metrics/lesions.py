"""Connected components of masks: lesions that match, and centre lines."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.large import is_large, release, row_bands
from results.metrics.contours import Mask

Numbers = NDArray[np.int64]
MAX_SKELETONS = 10_000
"""Number of components of a large mask that have a centre line; the others are the smallest ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """The connected components of a mask, numbered from 1; labels of bands are joined where bands meet.

    Attributes:
        mask: (height, width), or (slices, height, width) of a volume.
        offsets: Number of labels in the bands before each band.
        of_label: Component of each label of a band, counted over all bands; 0 for the background.
        count: Number of components.
        labels: Components of all pixels of a mask that is one band.
    """

    mask: Mask
    offsets: tuple[int, ...]
    of_label: Numbers
    count: int
    labels: Numbers | None = None

    @classmethod
    def of(cls, mask: Mask) -> "Components":
        """Label a mask band by band."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not _is_large(mask):
            labels, count = _label(mask, slice(None), 0)
            return cls(mask=mask, offsets=(0,), of_label=np.arange(count + 1), count=count, labels=labels)
        offsets, pairs, above = [0], [], np.zeros(mask.shape[1], np.int64)
        for rows in row_bands(*mask.shape):
            labels, count = _label(mask, rows, offsets[-1])
            if rows.start:
                pairs.append(_touching(above, labels[0]))
            above = labels[-1].copy()
            offsets.append(offsets[-1] + count)
        total = offsets[-1] + 1
        first, second = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
        graph = coo_array((np.ones(len(first)), (first, second)), shape=(total, total))
        count, of_label = connected_components(graph, directed=False)
        return cls(mask=mask, offsets=tuple(offsets), of_label=of_label.astype(np.int64), count=count - 1)

    def bands(self) -> Iterator[tuple[slice, Numbers]]:
        """Yield the rows of each band with the components of their pixels."""
        if self.labels is not None:  # of the only band
            yield slice(0, len(self.mask)), self.labels
            return
        for rows, offset in zip(row_bands(*self.mask.shape), self.offsets, strict=False):
            yield rows, self.of_label[_label(self.mask, rows, offset)[0]]

    def places(self) -> list[tuple[tuple[slice, slice], tuple[int, int]]]:
        """Return the box (rows and columns) of each component and a pixel of it in the box, the largest boxes first."""
        from scipy.ndimage import find_objects

        edges = np.tile(np.array([*self.mask.shape, 0, 0]), (self.count + 1, 1))
        seeds = np.full(self.count + 1, -1, np.int64)
        width = self.mask.shape[1]
        for rows, offset in zip(row_bands(*self.mask.shape), self.offsets, strict=False):
            labels, count = _label(self.mask, rows, 0)
            numbers = self.of_label[offset + 1 : offset + count + 1]
            for number, box in zip(numbers.tolist(), find_objects(labels), strict=True):
                top, bottom = box[0].start + rows.start, box[0].stop + rows.start
                first, last = edges[number, :2], edges[number, 2:]
                np.minimum(first, (top, box[1].start), out=first)
                np.maximum(last, (bottom, box[1].stop), out=last)
            pixels = np.flatnonzero(labels)
            seeds[numbers[labels.ravel()[pixels] - 1]] = pixels + rows.start * width
        sizes = (edges[1:, 2:] - edges[1:, :2]).prod(axis=1)
        order = np.argsort(-sizes, kind="stable") + 1
        return [
            ((slice(top, bottom), slice(left, right)), (seed // width - top, seed % width - left))
            for (top, left, bottom, right), seed in zip(edges[order].tolist(), seeds[order].tolist(), strict=True)
        ]


def _is_large(mask: Mask) -> bool:
    return mask.ndim == 2 and is_large(*mask.shape)


def _neighbours(mask: Mask) -> Numbers:
    """Return the pixels that are connected: 8 neighbours in an image, 26 in a volume."""
    return np.ones((3,) * mask.ndim, np.int64)


def _label(mask: Mask, rows: slice, offset: int) -> tuple[Numbers, int]:
    """Return the labels of a band, which follow those of the bands before, and their number."""
    from scipy.ndimage import label

    labels, count = label(mask[rows], _neighbours(mask))
    release(mask)
    return np.where(labels > 0, labels + np.int64(offset), 0), count


def _touching(above: Numbers, below: Numbers) -> Numbers:
    """Return (pairs, 2) labels of two neighbouring rows that touch."""
    shifted = [(above, below), (above[1:], below[:-1]), (above[:-1], below[1:])]
    pairs = np.concatenate([np.stack(rows, axis=1) for rows in shifted])
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def lesion_counts(truth: Mask, predicted: Mask, *, min_iou: float) -> tuple[int, int, int]:
    """Return the numbers of true positive, false positive and false negative lesions.

    Lesions are connected components, of 8 neighbours in an image and of 26 in a volume. Each is matched to at most one,
    so that the number of pairs with an IoU of at least `min_iou` is largest.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    true, found = Components.of(truth), Components.of(predicted)
    true_sizes, found_sizes = (np.zeros(components.count + 1, np.int64) for components in (true, found))
    pairs, intersections = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for (_, true_numbers), (_, found_numbers) in zip(true.bands(), found.bands(), strict=True):
        true_sizes += np.bincount(true_numbers.ravel(), minlength=true.count + 1)
        found_sizes += np.bincount(found_numbers.ravel(), minlength=found.count + 1)
        both = (true_numbers > 0) & (found_numbers > 0)
        band_pairs, counts = np.unique(true_numbers[both] * (found.count + 1) + found_numbers[both], return_counts=True)
        pairs.append(band_pairs)
        intersections.append(counts)
    keys, position = np.unique(np.concatenate(pairs), return_inverse=True)
    shared = np.bincount(position, np.concatenate(intersections), minlength=len(keys))
    rows, columns = np.divmod(keys, found.count + 1)
    matching = shared / (true_sizes[rows] + found_sizes[columns] - shared) >= min_iou
    if not matching.any():
        return 0, found.count, true.count
    shape = (true.count + 1, found.count + 1)
    graph = csr_array((np.ones(matching.sum()), (rows[matching], columns[matching])), shape=shape)
    matched = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return matched, found.count - matched, true.count - matched


def centre_line_dice(truth: Mask, predicted: Mask) -> float:
    """Return the harmonic mean of the shares of each mask's skeleton inside the other mask; NaN if both are empty."""
    if not truth.any() or not predicted.any():
        return 0.0 if truth.any() or predicted.any() else math.nan
    precision, sensitivity = _share_inside(predicted, truth), _share_inside(truth, predicted)
    return float(2 * precision * sensitivity / (precision + sensitivity)) if precision + sensitivity else 0.0


def _share_inside(mask: Mask, other: Mask) -> float:
    """Return the share of the skeleton of a mask that lies in the other mask."""
    inside = total = 0
    for place, line in _skeletons(mask):
        inside += int((line & other[place]).sum())
        total += int(line.sum())
    release(other)
    return inside / total


def _skeletons(mask: Mask) -> Iterator[tuple[tuple[slice, ...], Mask]]:
    """Yield the skeleton of a mask, of a large one those of the largest components, each with its place."""
    from scipy.ndimage import label

    if not _is_large(mask):
        yield (slice(None),) * mask.ndim, skeleton(mask)
        return
    for place, pixel in Components.of(mask).places()[:MAX_SKELETONS]:
        labels, _ = label(mask[place], _neighbours(mask))
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
