"""Comparisons in words: what tests hold for, which notes cells have, and how many labels are saved."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results.schema import SIGNIFICANT, SIZES, factor_columns
from results.statistics.design import AT_SETTINGS, ONE_RUN, PATIENTS, STRONGER, TRAINING
from results.statistics.notes import ITSELF

Record = Mapping[str, Any]
MOST = 8
"""More sentences than this are no summary."""
MOST_NAMES = 4
"""More arms than this are counted, not named."""
PROBABLE = 0.95
"""Probability of equivalence from which a cell is marked as equivalent to its baseline."""

CLAIMS = {
    TRAINING: "newly trained models on new patients",
    PATIENTS: "these trained networks on new patients, not for newly trained ones",
    ONE_RUN: "this one pretraining run only",
}


def claim_words(generalises_to: str) -> str:
    """Return what a test or interval holds for, as it is read after "holds for"."""
    claim = generalises_to.removesuffix(AT_SETTINGS)
    words = CLAIMS.get(claim, claim)
    first, comma, rest = words.partition(",")
    return words if claim == generalises_to else f"{first} (at the settings that the search found){comma}{rest}"


def claim_sentences(records: Sequence[Record]) -> list[str]:
    """Return what the tests and the intervals hold for; where cells differ, of which arms, or how many cells."""
    tests = _by_text((claim_words(_claim(record)), record) for record in records if _is_tested(record))
    intervals = _by_text(
        (claim_words(_interval_claim(record)), record) for record in records if record["ci_low"] is not None
    )
    factors = [name for name in _factors(records) if len({record[name] for record in records}) > 1]
    if tests.keys() == intervals.keys() and len(tests) == 1:
        return _claims("Tests and intervals", tests, factors)
    return [*_claims("Tests", tests, factors), *_claims("Intervals", intervals, factors)]


def _claims(what: str, claims: Mapping[str, Sequence[Record]], factors: Sequence[str]) -> list[str]:
    if len(claims) == 1:
        return [f"{what} hold for {words}." for words in claims]
    by_claim = {words: {_arm(record, factors) for record in records} for words, records in claims.items()}
    sentences = []
    for words, records in claims.items():
        others = set().union(*(arms for other, arms in by_claim.items() if other != words))
        # An arm with several claims is named with the metrics and labels that each of them is about.
        names = dict.fromkeys(
            _arm(record, factors) + (_place(record) if _arm(record, factors) in others else "") for record in records
        )
        where = (
            ", ".join(names) if len(names) <= MOST_NAMES else cells_text(len({cell_of(record) for record in records}))
        )
        sentences.append(f"{what} hold for {words} ({where}).")
    return sentences


def _arm(record: Record, factors: Sequence[str]) -> str:
    return " / ".join(str(record[name]) for name in factors) or str(record["pathway"])


def _place(record: Record) -> str:
    return f" {record['metric']} with {record['labelled_images']} masks"


def _claim(record: Record) -> str:
    return record.get("generalises_to") or ""


def _interval_claim(record: Record) -> str:
    """Return what the interval of the mean holds for: over patients also where the test supports a stronger claim."""
    if record.get("test") != STRONGER:
        return _claim(record)
    return _claim(record).replace(TRAINING, PATIENTS)


def note_counts(records: Iterable[Record]) -> dict[str, int]:
    """Return every note with how many cells have it, without that of the baseline itself."""
    by_note = _by_text((note, record) for record in records for note in str(record["note"]).split("; "))
    # A cell has several metrics and baselines.
    counts = {note: len({cell_of(record) for record in noted}) for note, noted in by_note.items()}
    return {note: count for note, count in counts.items() if note != ITSELF}


def _by_text(texts: Iterable[tuple[str, Record]]) -> dict[str, list[Record]]:
    """Return each text, but for empty ones, with its records."""
    records: dict[str, list[Record]] = {}
    for text, record in texts:
        if text:
            records.setdefault(text, []).append(record)
    return records


def cells_text(count: int) -> str:
    """Return a number of cells in words."""
    return f"{count} cell{'' if count == 1 else 's'}"


def cell_of(record: Record) -> tuple[Any, ...]:
    """Return what tells a cell from the others: study, factors and labelled data."""
    return tuple(record[name] for name in ("study", *factor_columns(list(record)), *SIZES))


def is_baseline(record: Record) -> bool:
    """Return whether a record is of the baseline itself."""
    return ITSELF in str(record["note"]).split("; ")


def p_text(p: float) -> str:
    """Return a p-value with two digits; one just below 0.05 does not read as 0.05."""
    if p < 0.001:
        return "< 0.001"
    text = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    return "< 0.05" if p < SIGNIFICANT and float(text) >= SIGNIFICANT else text


def is_significant(record: Record) -> bool:
    """Return whether a record that is not provisional has an adjusted p below 0.05."""
    return _is_tested(record) and record["p_adjusted"] < SIGNIFICANT


def is_equivalent(record: Record) -> bool:
    """Return whether a record that is not provisional is equivalent to its baseline with a probability of 0.95."""
    return not record.get("provisional") and (record.get("p_equivalent") or 0.0) >= PROBABLE


def _is_tested(record: Record) -> bool:
    p = record["p_adjusted"]
    return p is not None and not math.isnan(p) and not record.get("provisional")


def labels_sentences(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each arm: what it reaches with its fewest labels, and how many its baseline needs for that.

    `records` are lines of one metric of the comparisons table. Only differences that are significant at equal labels
    are put into words.
    """
    factors = [name for name in _factors(records) if len({record[name] for record in records}) > 1]
    fewest: dict[tuple[str, ...], str] = {}
    for record in sorted(records, key=lambda record: record["labelled_images"]):
        sentence = label_sentence(record, factors, records)
        if sentence:
            fewest.setdefault((record["baseline"], *(str(record[name]) for name in factors)), sentence)
    return list(fewest.values())[:MOST]


def label_sentence(record: Record, factors: Sequence[str], records: Sequence[Record]) -> str:
    """Return how many labels a cell saves, "" where nothing is supported; `records` include the baseline's cells."""
    side, sizes = record.get("labels_equivalent_side"), baseline_sizes(record, records)
    if not side or not sizes or not is_significant(record):
        return ""
    arm = " / ".join(str(record[name]) for name in factors)
    # Over patients the networks are compared, not the procedures that trained them.
    networks = _claim(record).startswith(PATIENTS) or record["test"] == STRONGER
    subject = f"the trained networks of {arm}" if networks else arm
    start, baseline = f"With {record['labelled_images']} masks, {subject}", f"the baseline ({record['baseline']})"
    interval = labels_interval(record, sizes)
    ends = f"the 95 % interval of the masks that the baseline needs is {interval}"
    if side == "above":
        return f"{start} reached a better result than {baseline} with {max(sizes)}, the most masks measured; {ends}."
    if side == "below":
        return f"{start} reached a worse result than {baseline} with {min(sizes)}, the fewest masks measured; {ends}."
    needed = rounded_labels(record["labels_equivalent"], record, sizes)
    difference = record["labels_equivalent"] - record["labelled_images"]
    number = rounded_labels(abs(difference), record, sizes)
    saved = f": about {number} {'saved' if difference > 0 else 'more than the baseline'}" if number != "0" else ""
    reached = f"reached the result for which {baseline} needs about {needed} masks"
    return f"{start} {reached} (95 % interval {interval}){saved}."


def baseline_sizes(record: Record, records: Sequence[Record]) -> list[int]:
    """Return the numbers of labelled images at which the baseline of a record was measured."""
    return sorted({
        other["labelled_images"] for other in records
        if is_baseline(other) and other["baseline"] == record["baseline"]
    })  # fmt: skip


def labels_interval(record: Record, sizes: Sequence[int]) -> str:
    """Return the interval of the labels that the baseline needs; ends outside the measured range in words."""
    low, high = (_inside(record[name]) for name in ("labels_equivalent_low", "labels_equivalent_high"))
    fewer, more = f"fewer than {min(sizes)}", f"more than {max(sizes)}"
    # The ends are exponentials of logarithms, so they may miss a measured number by their last bit.
    if high is None and low is not None and low > max(sizes) * (1 - 1e-9):
        return more
    if low is None and high is not None and high < min(sizes) * (1 + 1e-9):
        return fewer
    first = fewer if low is None else rounded_labels(low, record, sizes)
    return f"{first} to {more if high is None else rounded_labels(high, record, sizes)}"


def rounded_labels(value: float, record: Record, sizes: Sequence[int]) -> str:
    """Return a number of labels, rounded to a power of ten of at most a quarter of its interval's width."""
    low, high = (_inside(record[name]) for name in ("labels_equivalent_low", "labels_equivalent_high"))
    width = (max(sizes) if high is None else high) - (min(sizes) if low is None else low)
    step: int = 10 ** max(0, math.floor(math.log10(max(width / 4, 1))))
    return str(round(value / step) * step or round(value))


def _inside(end: float | None) -> float | None:
    """Return an end of an interval of labels, None where it lies outside the measured range."""
    return None if end is None or not math.isfinite(end) else end


def _factors(records: Sequence[Record]) -> tuple[str, ...]:
    return factor_columns(list(records[0])) if records else ()
