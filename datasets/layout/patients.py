"""Patients in the names of images."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

_WORD: Final = r"(?:patient|subject|subj|sub|case|pat|pid|person|p|s)"
PATTERNS: Final = (
    (r"^([^/]*?(?:patient|subject|subj|sub|pat|pid)[ _-]?\d+)/", "the folder of each patient"),
    (rf"(?i)^({_WORD}[ _-]?\d+)(?=[^0-9])", "a patient with a number at the beginning"),
    (r"(?i)((?:patient|subject|subj|pat|pid)[ _-]?\d+)", "a patient with a number"),
)
"""Regular expressions that name patients by a word, and what they stand for."""
SIDES: Final = (
    r"^(.*?\d)[ _-]?(?:[LR]|O[DS])$",
    r"(?i)^(.+?)[ _-](?:left|right|l|r|od|os)$",
)
"""Regular expressions for images of both sides of a patient."""
COUNTED: Final = r"^(.+?)[_-]\d{1,3}$"
"""Names of several images that are counted for each patient."""
MIN_GROUPS: Final = 8
"""Minimum number of patients in names that are counted."""
MAX_COUNTED: Final = 12
"""Maximum number of counted images of a patient."""
SHOWN: Final = 3
PATIENTS_TO_CHECK: Final = (
    "whether several images are of one patient: each image counts as a patient. If so, set `patients`, or test "
    "patients are in the training data too"
)


def patient_pattern(names: Sequence[str]) -> tuple[str, str] | None:
    """Return a regular expression for the patient in names with the evidence for it, None without strong evidence.

    Evidence: every name matches, several images are of one patient, and the names have a word for a patient, both sides
    of most patients, or numbers that begin anew for each patient.
    """
    for pattern, meaning in PATTERNS:
        groups = _groups(pattern, names)
        if groups is not None and len(groups) > 1:
            return pattern, f"names have {meaning}: {len(groups)} patients of {len(names)} images"
    for pattern in SIDES:
        groups = _groups(pattern, names)
        if groups is not None and sum(len(images) == 2 for images in groups.values()) >= 0.8 * len(groups):
            return pattern, f"names end with a side (left, right): {len(groups)} patients of {len(names)} images"
    groups = _groups(COUNTED, names)
    if groups is not None and len(groups) >= MIN_GROUPS and all(map(_is_counted, groups.values())):
        shown = ", ".join(list(groups)[:SHOWN])
        return COUNTED, f"images of a name are counted: {len(groups)} patients of {len(names)} images, such as {shown}"
    return None


def _groups(pattern: str, names: Sequence[str]) -> dict[str, list[str]] | None:
    """Return the names by patient; None if a name does not match or each is of another patient."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = re.search(pattern, name)
        if match is None:
            return None
        groups[match[1]].append(name)
    return groups if len(groups) < len(names) else None


def _is_counted(names: Sequence[str]) -> bool:
    """Whether the numbers at the end of names are 0, 1, ... or 1, 2, ..."""
    numbers = sorted(int(match[0]) for name in names if (match := re.search(r"\d+$", name)))
    return (
        len(numbers) <= MAX_COUNTED
        and numbers[0] in (0, 1)
        and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    )
