"""Texts of the column `note`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray

TextArray = NDArray[np.object_]

FIXED_TEST = "fixed test set: tested over patients"
ITSELF = "baseline itself"
NO_PAIR = "no replicate to pair with the baseline"
TOO_FEW = "n too small for a test"
TOO_FEW_FOR_INTERVAL = "n too small for an interval"
EQUAL_VALUES = "replicates do not vary: no interval"
NO_PATIENT_INTERVAL = "no interval over patients"
RANK_TOO_FEW = "n too small for a rank test: fewer than 6 unequal pairs"
CONSTANT = "paired differences do not vary"
UNDEFINED = "undefined in other replicates than the baseline: not compared"
SHARED_TRAINING = "folds share training images: p may be too small"
SEVERAL_IMAGES = "several images of a patient count as independent: p may be too small"
UNDEFINED_IN = "undefined in "
"""Beginning of the note on the number of replicates without a value."""
REPLICATES_FAILED = "replicates failed"
NOT_COMPARED = "not compared"
BASELINE_FAILED = "not compared: replicates of the baseline failed"
PROVISIONAL = "provisional: replicates are missing"
BASELINE_PENDING = "provisional: replicates of the baseline are missing"
NOT_TEST = "only test images are tested"
NOT_MEASURED = "not measured with this many hours"
RECOMMENDED_SEEDS = 3
ONE_RUN_NOTES = (
    f"one pretraining run shared by all folds, so no test: use {RECOMMENDED_SEEDS} or more seeds",
    "one pretraining run shared by all folds, so no test: remove the seed of the stage",
)
FEW_FOLDS = 3
FEW_PATIENTS = 6
"""With fewer patients no result has a two-sided p below 0.05: the smallest is 2 / 2**5 = 0.0625."""
FEW_FOR_INTERVAL = 10
"""With fewer patients the coverage of bootstrap percentiles is far below nominal."""


def lacks_replicates(note: str) -> bool:
    """Return whether a note says that replicates of the cell failed permanently."""
    return any(part.endswith(REPLICATES_FAILED) for part in note.split("; "))


def one_run_note(runs: int, seeds: int) -> str:
    """Return why one pretraining run supports no test, and the remedy; "" with several runs."""
    if runs != 1:
        return ""
    return ONE_RUN_NOTES[seeds > 1]


def few_folds_note(folds: int) -> str:
    """Return a note on a small number of folds, else ""."""
    return f"{folds} folds are few" if 1 < folds <= FEW_FOLDS else ""


def few_patients_note(patients: int) -> str:
    """Return a note on what a small number of test patients does not allow, else ""."""
    count = f"{patients} test patient{'' if patients == 1 else 's'}"
    if patients < FEW_PATIENTS:
        return f"{count}: too few for a test ({FEW_PATIENTS}) and an interval ({FEW_FOR_INTERVAL})"
    return f"{count}: too few for an interval ({FEW_FOR_INTERVAL})" if patients < FEW_FOR_INTERVAL else ""


def first_note(notes: "Mapping[str, NDArray[np.bool_]]") -> TextArray:
    """Return for each element the first note whose mask applies, or ""."""
    return np.select(list(notes.values()), list(notes), default="").astype(object)


def where_tested(p: FloatArray, text: str) -> TextArray:
    """Return the text where p is defined, else ""."""
    return np.where(np.isnan(p), "", text).astype(object)


def incomplete(counts: "NDArray[np.float64] | NDArray[np.int64]", expected: int, unit: str) -> list[str]:
    """Return `3 of 10 UNIT` for counts between 0 and the expected number, else ""."""
    return [f"{int(count)} of {expected} {unit}" if 0 < count < expected else "" for count in counts.tolist()]


def joined(*notes: "list[str] | TextArray") -> list[str]:
    """Join the notes of each element."""
    return ["; ".join(filter(None, parts)) for parts in zip(*notes, strict=True)]
