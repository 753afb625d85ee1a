"""Positions of the frames of multi-frame DICOM files in space (PS3.3 C.7.6.16)."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from datasets.decoding.volume import SPACING_TOLERANCE

ORIENTATION_TOLERANCE: Final = 1e-3
"""Difference of direction cosines up to which two frames are parallel."""
SAME_POSITION: Final = 1e-3
"""Distance in mm up to which two frames are at the same position."""


class FramePositions(NamedTuple):
    """Positions of the frames of a file.

    Attributes:
        order: Numbers of the stored frames in the order of their positions, () if they are stored in order.
        distance: Distance of neighbouring frames in mm, NaN if it differs; None if the file does not state positions.
        remark: A warning for the user, "" if there is none.
    """

    order: tuple[int, ...] = ()
    distance: float | None = None
    remark: str = ""


def frame_positions(record: Dataset, frames: int) -> FramePositions:
    """Return how frames lie along their normal, by their ImagePositionPatient and ImageOrientationPatient."""
    places = [_values(record, number, "PlanePositionSequence", "ImagePositionPatient", 3) for number in range(frames)]
    orientations = [
        _values(record, number, "PlaneOrientationSequence", "ImageOrientationPatient", 6) for number in range(frames)
    ]
    positions = [position for position in places if position is not None]
    cosines = [orientation for orientation in orientations if orientation is not None]
    if len(positions) < frames or len(cosines) < frames:
        return FramePositions()
    if np.ptp(cosines, axis=0).max() > ORIENTATION_TOLERANCE:
        return _without_distance("have different orientations")
    normal = np.cross(cosines[0][:3], cosines[0][3:])
    length = float(np.linalg.norm(normal))
    if length < 0.5:  # 1 for directions that are perpendicular
        return FramePositions()
    return _ordered(np.array(positions) @ normal / length)


def _ordered(along: NDArray[np.float64]) -> FramePositions:
    """Return order and distance of frames at these positions in mm along their normal."""
    steps = np.diff(along)
    order: tuple[int, ...] = ()
    if not ((steps > 0).all() or (steps < 0).all()):
        numbers = np.argsort(along, kind="stable")
        steps, order = np.diff(along[numbers]), tuple(numbers.tolist())
    distances = np.abs(steps)
    low, high = float(distances.min()), float(distances.max())
    if low <= SAME_POSITION:
        return _without_distance("include several at one position, such as times or echoes")
    if high - low > SPACING_TOLERANCE * high:
        return _without_distance(f"have distances of {low:.3g} to {high:.3g} mm", order)
    return FramePositions(order, float(distances.mean()), _sorted_remark(order))


def _without_distance(reason: str, order: tuple[int, ...] = ()) -> FramePositions:
    remark = (
        f"has frames that {reason}, so its spacing is unknown; allowed: parallel frames of equal distance, one at each "
        "position, for sizes in mm; resample or divide it"
    )
    return FramePositions(order, float("nan"), "\n".join(filter(None, (remark, _sorted_remark(order)))))


def _sorted_remark(order: tuple[int, ...]) -> str:
    if not order:
        return ""
    return (
        "has frames that are not stored in the order of their positions, in which they are read; allowed: any order; "
        "the pages of its mask have to be in the order of the stored frames"
    )


def _values(record: Dataset, frame: int, group: str, name: str, count: int) -> NDArray[np.float64] | None:
    """Return the numbers of an attribute of a frame, None if it is missing or malformed."""
    values: Sequence[Any] | None = (functional_group(record, group, frame) or Dataset()).get(name)
    try:
        numbers = np.array([float(value) for value in values or ()])
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def functional_group(record: Dataset, name: str, frame: int = 0) -> Dataset | None:
    """Return a functional group of a frame, or that of all frames (PS3.3 C.7.6.16)."""
    for groups, number in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        sequence = record.get(groups) or []
        if number < len(sequence) and sequence[number].get(name):
            group: Dataset = sequence[number][name][0]
            return group
    return None
