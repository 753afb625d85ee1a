"""Bin edges of score histograms, without torch and numpy, so that `results` can import them.

Equal bins are too coarse near 0 and 1: a confident network scores nearly all background pixels below 0.005, and
scores within one bin are ties in the ROC curve. Logarithmic edges of the distance to 0 and to 1 (in float32 at least
2**-24) are therefore added. A change of the edges increases `EVALUATION_VERSION` in `study.planning.builder`.
"""

import struct

THRESHOLD_STEPS = 200
"""Multiples of 1 / 200 = 0.005 are edges: pixel counts at these thresholds are exact."""


def _float32(value: float) -> float:
    """Round to float32, the type in which scores and thresholds are compared."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def _distances(last: int) -> list[float]:
    """Return distances to 0 or 1: powers of two from 2**-6 to 2**-last, and the midpoints between those to 2**-16."""
    return [2.0**-power for power in range(6, last + 1)] + [1.5 * 2.0**-power for power in range(7, 17)]


EQUAL_EDGES = tuple(_float32(step / THRESHOLD_STEPS) for step in range(1, THRESHOLD_STEPS))
"""Edges of 200 equal bins, used by earlier versions and by the validation of classification."""
SCORE_EDGES = tuple(sorted({*EQUAL_EDGES, *_distances(40), *(1 - distance for distance in _distances(24)), 1.0}))
"""Edges between the bins: bin i has edges[i - 1] <= score < edges[i]. The last bin has scores of exactly 1."""
SCORE_BINS = len(SCORE_EDGES) + 1

_FIRST_BINS = {
    THRESHOLD_STEPS: tuple(range(THRESHOLD_STEPS + 1)),
    SCORE_BINS: (0, *(SCORE_EDGES.index(edge) + 1 for edge in (*EQUAL_EDGES, 1.0))),
}


def first_bins(bins: int) -> tuple[int, ...]:
    """Return for each threshold k / 200, k = 0..200, the first bin of scores that reach it.

    With 200 equal bins the last one includes scores of 1, and none starts at threshold 1. Raises `ValueError` for
    other numbers of bins.
    """
    if bins not in _FIRST_BINS:
        allowed = " or ".join(map(str, _FIRST_BINS))
        raise ValueError(f"score histograms have {bins} bins; allowed: {allowed}; score the stage again")
    return _FIRST_BINS[bins]
