"""Why the mean of a cell is over fewer replicates, or fewer images, than it has results for."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from results.metrics.background import BACKGROUND
from results.metrics.formulas import REQUIRES_SCORE_SUMS
from results.schema import SHAPE_METRICS
from results.statistics.cells import AVERAGES, Cells

REFERENCE = "recall"
"""Defined wherever the ground truth contains the class."""
MEASURED = "nsd"
"""Defined wherever the shapes of a class are measured that the ground truth contains."""
NEVER_PREDICTED, PARTLY_ANNOTATED = "is never predicted", "is not annotated in all pixels"
IMAGE_REASONS = {
    **dict.fromkeys(SHAPE_METRICS, PARTLY_ANNOTATED),
    "precision": NEVER_PREDICTED, "lesion_precision": NEVER_PREDICTED, "auc": "covers every pixel",
}  # fmt: skip
"""Why a metric is undefined in an image that contains the class and in which its shapes are measured."""
MAX_NAMED = 3
"""Maximum number of reasons in a note."""
EARLIER = "(scored by an earlier version)"


def undefined_notes(cells: Cells) -> list[str]:
    """Return for each row which replicates or images its mean leaves out, and why; "" where all values are defined."""
    present = cells.present[cells.cell_of]
    defined = ~np.isnan(cells.values)
    missing = np.asarray((present & ~defined).any(axis=1))
    notes = []
    for row in range(len(cells.values)):
        if missing[row]:
            total, metric = int(present[row].sum()), cells.metrics[cells.series_of[row]]
            count = int(defined[row].sum())
            mean = f"mean over {count} of {total} replicates" if count else f"no mean in {total} replicates"
            notes.append(f"{mean}: {metric} undefined where {_reasons(cells, row, present[row] & ~defined[row])}")
        else:
            notes.append(_image_note(cells, row))
    return notes


def _reasons(cells: Cells, row: int, undefined: NDArray[np.bool_]) -> str:
    """Return the reasons of the undefined values of a row, joined by "or"."""
    split, aggregation, class_, metric = _series(cells, row)
    classes = [class_] if class_ not in AVERAGES else cells.classes_by_series[split, aggregation, metric]
    reasons = dict.fromkeys(
        reason
        for name in classes
        for reason in _reasons_of_class(cells, row, undefined, name, of_mean=class_ in AVERAGES)
    )
    named = list(reasons)[:MAX_NAMED] + (["other classes are undefined"] if len(reasons) > MAX_NAMED else [])
    return " or ".join(named) or "the stored counts do not define it"


def _reasons_of_class(
    cells: Cells, row: int, undefined: NDArray[np.bool_], class_: str, *, of_mean: bool
) -> Iterator[str]:
    split, aggregation, _, metric = _series(cells, row)
    reference = _values(cells, row, (split, aggregation, class_, REFERENCE))
    if reference is None:
        return
    unannotated = _is_unannotated(cells, row, class_)
    if not of_mean and (undefined & unannotated).any():
        yield f"{class_} is annotated in no image"
    if not of_mean and (undefined & ~unannotated & np.isnan(reference)).any():
        yield f"no image contains {class_}"
    values = _values(cells, row, (split, aggregation, class_, metric))
    if values is None:
        return
    unexplained = np.isnan(values) & ~np.isnan(reference) & undefined & ~unannotated
    if not unexplained.any():
        return
    if metric in SHAPE_METRICS:
        yield from (f"{class_} {reason}" for reason in _shape_reasons(cells, row, class_, unexplained))
    elif metric == "precision":
        yield f"{class_} {NEVER_PREDICTED}"
    elif metric == "auc" and class_ == BACKGROUND:
        yield f"the score histogram of {class_} is not stored {EARLIER}"
    elif metric == "auc":
        yield f"{class_} covers every pixel"
    elif metric == "false_positive_pixels":
        yield f"an image contains {class_}"
    elif metric in REQUIRES_SCORE_SUMS:
        yield f"the sums of scores are not stored {EARLIER}"


def _is_unannotated(cells: Cells, row: int, class_: str) -> NDArray[np.bool_]:
    """Return in which replicates no image annotates a class; the images of a pooled value are those that do."""
    split, *_ = _series(cells, row)
    pooled = _row(cells, row, (split, "dataset", class_, REFERENCE))
    return np.zeros(cells.images.shape[1], np.bool_) if pooled is None else np.asarray(cells.images[pooled] == 0)


def _shape_reasons(cells: Cells, row: int, class_: str, undefined: NDArray[np.bool_]) -> Iterator[str]:
    """Yield why a metric of shapes is undefined in replicates with images that contain the class."""
    split, aggregation, _, metric = _series(cells, row)
    measured = _values(cells, row, (split, aggregation, class_, MEASURED))
    unmeasured = undefined if measured is None else undefined & np.isnan(measured)
    if unmeasured.any():
        yield PARTLY_ANNOTATED
    if (undefined & ~unmeasured).any():
        yield IMAGE_REASONS[metric]


def _image_note(cells: Cells, row: int) -> str:
    """Return how many images that contain the class a per-case mean leaves out."""
    split, aggregation, class_, metric = _series(cells, row)
    if aggregation != "case" or metric not in IMAGE_REASONS:
        return ""
    reference = _row(cells, row, (split, aggregation, class_, REFERENCE))
    if reference is None:
        return ""
    used, total = int(cells.images[row].sum()), int(cells.images[reference].sum())
    measured = _row(cells, row, (split, aggregation, class_, MEASURED)) if metric in SHAPE_METRICS else None
    images = total if measured is None else int(cells.images[measured].sum())
    reasons = [PARTLY_ANNOTATED] * (images < total) + [IMAGE_REASONS[metric]] * (used < images)
    name = "a class" if class_ in AVERAGES else class_
    reason = " or ".join(f"{name} {reason}" for reason in dict.fromkeys(reasons))
    return f"mean over {used} of {total} images: {metric} undefined where {reason}" * (used < total)


def _series(cells: Cells, row: int) -> tuple[str, str, str, str]:
    split, aggregation, class_, metric = cells.series_names[cells.series_of[row]]
    return split, aggregation, class_, metric


def _values(cells: Cells, row: int, series: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the values of another series in the cell of a row, None without this series."""
    other = _row(cells, row, series)
    return None if other is None else cells.values[other]


def _row(cells: Cells, row: int, series: Sequence[str]) -> int | None:
    number = cells.series_numbers.get(tuple(series), -1)
    other = int(cells.row_of[cells.cell_of[row], number]) if number >= 0 else -1
    return other if other >= 0 else None
