"""Sentences on the hours of annotation that arms save or cost."""

from collections.abc import Sequence

from results.schema import SIGNIFICANT, ComparisonRecord, factor_columns
from results.tables.sentences import (
    MAX_SENTENCES,
    finite_or_none,
    is_baseline,
    is_significant,
    tested_arm,
)


def hours_text(hours: float) -> str:
    """Return a number of hours with one decimal; large ones without, those below 0.1 with two digits."""
    if 0 < abs(hours) < 0.1:
        return f"{hours:.2g}"
    return f"{hours:.1f}" if abs(hours) < 100 else f"{hours:.0f}"


def has_hours(records: Sequence[ComparisonRecord]) -> bool:
    """Return whether the hours of annotation are known; tables of earlier versions do not contain them."""
    return any(record.get("annotation_hours") is not None for record in records)


def differs_in_hours(record: ComparisonRecord) -> bool:
    """Return whether a cell needs significantly more or fewer hours than its baseline for the same result.

    This requires a significant difference with equally many labels, one at equal hours, and an interval of the hours
    that the baseline needs without the hours of the cell.
    """
    own, p = record.get("annotation_hours"), record.get("p_hours")
    if own is None or p is None or not p < SIGNIFICANT or not is_significant(record):
        return False
    low, high = record["hours_equivalent_low"], record["hours_equivalent_high"]
    return bool(low is not None and high is not None and (low > own or high < own))


def hours_sentences(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return a sentence for each arm that saves or costs hours: at its fewest labels where this is significant.

    `records` are lines of one metric of the comparisons table.
    """
    names = factor_columns(list(records[0])) if records else ()
    factors = [name for name in names if len({record[name] for record in records}) > 1]
    fewest: dict[tuple[str, ...], str] = {}
    for record in sorted(records, key=lambda record: record["labelled_images"]):
        if differs_in_hours(record):
            key = record["baseline"], *(str(record[name]) for name in factors)
            fewest.setdefault(key, _hours_sentence(record, factors, records))
    return list(fewest.values())[:MAX_SENTENCES]


def _hours_sentence(record: ComparisonRecord, factors: Sequence[str], records: Sequence[ComparisonRecord]) -> str:
    own, needed, sizes = record["annotation_hours"], record["hours_equivalent"], baseline_hours(record, records)
    start = (
        f"With {record['labelled_images']} masks, {tested_arm(record, factors)} needed {hours_text(own)} hours of "
        "annotation"
    )
    baseline = f"the baseline ({record['baseline']})"
    interval = f"95 % interval {hours_interval(record, sizes)}"
    saves = record["hours_equivalent_low"] > own
    masks = record["labels_saved"]
    although = ", although it saves masks" if not saves and masks is not None and masks > 0 else ""
    if record["hours_equivalent_side"] == "within":
        difference = f"about {hours_text(abs(needed - own))} hours {'saved' if saves else f'more{although}'}"
        return f"{start}; {baseline} needs about {hours_text(needed)} for the same result ({interval}): {difference}."
    if saves:
        return f"{start}; {baseline} did not reach its result with {hours_text(max(sizes))} ({interval})."
    return f"{start}; {baseline} reached a better result with {hours_text(min(sizes))} ({interval})."


def baseline_hours(record: ComparisonRecord, records: Sequence[ComparisonRecord]) -> list[float]:
    """Return the hours of annotation with which the baseline of a record was measured."""
    return sorted({
        candidate["annotation_hours"] for candidate in records
        if is_baseline(candidate) and candidate["baseline"] == record["baseline"]
        and candidate["annotation_hours"] is not None
    })  # fmt: skip


def hours_interval(record: ComparisonRecord, sizes: Sequence[float]) -> str:
    """Return the interval of the hours that the baseline needs, with words for ends outside the measured range."""
    low, high = (finite_or_none(record[name]) for name in ("hours_equivalent_low", "hours_equivalent_high"))
    first = f"fewer than {hours_text(min(sizes))}" if low is None else hours_text(low)
    last = f"more than {hours_text(max(sizes))}" if high is None else hours_text(high)
    if high is None and low is not None and low > max(sizes) * (1 - 1e-9):
        return last
    if low is None and high is not None and high < min(sizes) * (1 + 1e-9):
        return first
    return f"{first} to {last}"
