"""Texts of the `note` column."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from results.statistics.estimates import Array

Texts = NDArray[np.object_]

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
REPLICATES_FAILED = "replicates failed"
NOT_COMPARED = "not compared"
BASELINE_FAILED = "not compared: replicates of the baseline failed"
PROVISIONAL = "provisional: replicates are missing"
BASELINE_PENDING = "provisional: replicates of the baseline are missing"
NOT_TEST = "only test images are tested"
RECOMMENDED_SEEDS = 3
ONE_RUN_NOTES = (
    f"one pretraining run shared by all folds, so no test: use {RECOMMENDED_SEEDS} or more seeds",
    "one pretraining run shared by all folds, so no test: remove the seed of the stage",
)
FEW_FOLDS = 3
FEW_PATIENTS = 6
"""With fewer patients no result, however clear, has a two-sided p below 0.05: 2 / 2**5 is 0.0625."""
FEW_FOR_INTERVAL = 10
"""With fewer patients bootstrap percentiles cover far less than they state."""


def lacks_replicates(note: str) -> bool:
    """Return whether a note says that replicates of the cell failed for good."""
    return any(part.endswith(REPLICATES_FAILED) for part in note.split("; "))


def one_run_note(runs: int, seeds: int) -> str:
    """Return why nothing is claimed with one pretraining run, and the remedy; "" with several."""
    if runs != 1:
        return ""
    return ONE_RUN_NOTES[seeds > 1]


def few_folds_note(folds: int) -> str:
    """Return that so few folds are few."""
    return f"{folds} folds are few" if 1 < folds <= FEW_FOLDS else ""


def few_patients_note(patients: int) -> str:
    """Return what is left out with so few test patients."""
    count = f"{patients} test patient{'' if patients == 1 else 's'}"
    if patients < FEW_PATIENTS:
        return f"{count}: too few for a test ({FEW_PATIENTS}) and an interval ({FEW_FOR_INTERVAL})"
    return f"{count}: too few for an interval ({FEW_FOR_INTERVAL})" if patients < FEW_FOR_INTERVAL else ""


def first_note(notes: "Mapping[str, NDArray[np.bool_]]") -> Texts:
    """Return for each place the first text that applies there, or ""."""
    return np.select(list(notes.values()), list(notes), default="").astype(object)


def where_tested(p: Array, text: str) -> Texts:
    """Return the text where there is a p."""
    return np.where(np.isnan(p), "", text).astype(object)


def incomplete(counts: "NDArray[np.float64] | NDArray[np.int64]", expected: int, what: str) -> list[str]:
    """Return `3 of 10 WHAT` where some, but not all, are there."""
    return [f"{int(count)} of {expected} {what}" if 0 < count < expected else "" for count in counts.tolist()]


def joined(*notes: "list[str] | Texts") -> list[str]:
    """Join the notes of each place."""
    return ["; ".join(filter(None, parts)) for parts in zip(*notes, strict=True)]
