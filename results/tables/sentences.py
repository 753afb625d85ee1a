"""Sentences on comparisons: claims of the tests, notes of cells, and labels saved."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results.schema import SIGNIFICANT, SIZES, ComparisonRecord, factor_columns
from results.statistics.across_datasets import FRIEDMAN, MEAN_RANK, NEMENYI, WILCOXON
from results.statistics.design import AT_SETTINGS, ONE_RUN, PATIENTS, STRONGER, TRAINING
from results.statistics.notes import ITSELF, UNDEFINED_IN

MAX_SENTENCES = 8
"""Maximum number of sentences in a summary."""
MAX_NAMED_ARMS = 4
"""Above this number arms are counted instead of named."""
PROBABLE = 0.95
"""Minimum probability of equivalence for a cell to be marked as equivalent to its baseline."""

CLAIMS = {
    TRAINING: "newly trained models on new patients",
    PATIENTS: "these trained networks on new patients, not for newly trained ones",
    ONE_RUN: "this one pretraining run only",
}


def claim_words(generalises_to: str) -> str:
    """Return a claim in words, to follow "holds for"."""
    claim = generalises_to.removesuffix(AT_SETTINGS)
    words = CLAIMS.get(claim, claim)
    first, comma, rest = words.partition(",")
    return words if claim == generalises_to else f"{first} (at the settings that the search found){comma}{rest}"


def claim_sentences(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return the claims of tests and intervals; if cells differ, with their arms or number of cells."""
    tests = _by_text((claim_words(_claim(record)), record) for record in records if _is_tested(record))
    intervals = _by_text(
        (claim_words(_interval_claim(record)), record) for record in records if record["ci_low"] is not None
    )
    factors = [name for name in _factors(records) if len({record[name] for record in records}) > 1]
    if tests.keys() == intervals.keys() and len(tests) == 1:
        return _claims("Tests and intervals", tests, factors)
    return [*_claims("Tests", tests, factors), *_claims("Intervals", intervals, factors)]


def _claims(subject: str, claims: Mapping[str, Sequence[ComparisonRecord]], factors: Sequence[str]) -> list[str]:
    if len(claims) == 1:
        return [f"{subject} hold for {words}." for words in claims]
    by_claim = {words: {_arm(record, factors) for record in records} for words, records in claims.items()}
    sentences = []
    for words, records in claims.items():
        shared_arms = set().union(*(arms for claim, arms in by_claim.items() if claim != words))
        # An arm with several claims is named with the metrics and labels of each claim.
        names = dict.fromkeys(
            _arm(record, factors) + (_metric_and_labels(record) if _arm(record, factors) in shared_arms else "")
            for record in records
        )
        cells = cells_text(len({cell_key(record) for record in records}))
        where = ", ".join(names) if len(names) <= MAX_NAMED_ARMS else cells
        sentences.append(f"{subject} hold for {words} ({where}).")
    return sentences


def _arm(record: ComparisonRecord, factors: Sequence[str]) -> str:
    return " / ".join(str(record[name]) for name in factors) or str(record["pathway"])


def _metric_and_labels(record: ComparisonRecord) -> str:
    return f" {record['metric']} with {record['labelled_images']} masks"


def _claim(record: ComparisonRecord) -> str:
    return record.get("generalises_to") or ""


def _interval_claim(record: ComparisonRecord) -> str:
    """Return the claim of the interval of the mean: over patients even if the test supports a stronger claim."""
    if record.get("test") != STRONGER:
        return _claim(record)
    return _claim(record).replace(TRAINING, PATIENTS)


def note_counts(records: Iterable[ComparisonRecord]) -> dict[str, int]:
    """Return the number of cells with each note, without the note of the baseline itself."""
    by_note = _by_text((note, record) for record in records for note in full_note(record).split("; "))
    # A cell has several metrics and baselines.
    counts = {note: len({cell_key(record) for record in noted}) for note, noted in by_note.items()}
    return {note: count for note, count in counts.items() if note != ITSELF}


def full_note(record: ComparisonRecord) -> str:
    """Return the note of a record, with the reason of undefined values in place of their number."""
    undefined = record.get("undefined") or ""
    notes = [note for note in str(record["note"]).split("; ") if not (undefined and note.startswith(UNDEFINED_IN))]
    return "; ".join(filter(None, (*notes, undefined)))


def undefined_sentences(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return a sentence for each reason why means leave values out, with the number of cells."""
    by_text = _by_text((record.get("undefined") or "", record) for record in records)
    counts = {text: len({cell_key(record) for record in undefined}) for text, undefined in by_text.items()}
    return [f"{text[:1].upper()}{text[1:]} ({cells_text(count)})." for text, count in counts.items()]


def _by_text(texts: Iterable[tuple[str, ComparisonRecord]]) -> dict[str, list[ComparisonRecord]]:
    """Group records by text, without empty texts."""
    records: dict[str, list[ComparisonRecord]] = {}
    for text, record in texts:
        if text:
            records.setdefault(text, []).append(record)
    return records


def cells_text(count: int) -> str:
    """Return a number of cells in words."""
    return f"{count} cell{'' if count == 1 else 's'}"


def cell_key(record: ComparisonRecord) -> tuple[Any, ...]:
    """Return the key of a cell: study, factors and labelled data."""
    return tuple(record[name] for name in ("study", *factor_columns(list(record)), *SIZES))


def is_baseline(record: ComparisonRecord) -> bool:
    """Return whether a record is of the baseline itself."""
    return ITSELF in str(record["note"]).split("; ")


def p_text(p: float) -> str:
    """Return a p-value with two digits; a value just below 0.05 is shown as "< 0.05", not as 0.05."""
    if p < 0.001:
        return "< 0.001"
    text = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    return "< 0.05" if p < SIGNIFICANT and float(text) >= SIGNIFICANT else text


def p_statement(p: float) -> str:
    """Return a p-value as an equation or inequality, e.g. "p = 0.012" or "p < 0.001"."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def is_significant(record: ComparisonRecord) -> bool:
    """Return whether a record that is not provisional has an adjusted p below 0.05."""
    return _is_tested(record) and record["p_adjusted"] < SIGNIFICANT


def is_equivalent(record: ComparisonRecord) -> bool:
    """Return whether a record that is not provisional is equivalent to its baseline with a probability of 0.95."""
    return not record.get("provisional") and (record.get("p_equivalent") or 0.0) >= PROBABLE


def _is_tested(record: ComparisonRecord) -> bool:
    p = record["p_adjusted"]
    return p is not None and not math.isnan(p) and not record.get("provisional")


def label_equivalence_sentences(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return a sentence for each arm: its fewest labels, and how many its baseline needs for the same result.

    `records` are lines of one metric of the comparisons table. Only differences that are significant with equally many
    labels are reported.
    """
    factors = [name for name in _factors(records) if len({record[name] for record in records}) > 1]
    fewest: dict[tuple[str, ...], str] = {}
    for record in sorted(records, key=lambda record: record["labelled_images"]):
        sentence = label_equivalence_sentence(record, factors, records)
        if sentence:
            fewest.setdefault((record["baseline"], *(str(record[name]) for name in factors)), sentence)
    return list(fewest.values())[:MAX_SENTENCES]


def label_equivalence_sentence(
    record: ComparisonRecord, factors: Sequence[str], records: Sequence[ComparisonRecord]
) -> str:
    """Return a sentence on the labels that a cell saves, "" without a test; `records` include the baseline's cells."""
    side, sizes = record.get("labels_equivalent_side"), baseline_sizes(record, records)
    if not side or not sizes or not is_significant(record):
        return ""
    start = f"With {record['labelled_images']} masks, {tested_arm(record, factors)}"
    baseline = f"the baseline ({record['baseline']})"
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


def tested_arm(record: ComparisonRecord, factors: Sequence[str]) -> str:
    """Return the name of an arm; tests over patients compare its trained networks, not the procedure."""
    arm = " / ".join(str(record[name]) for name in factors)
    networks = _claim(record).startswith(PATIENTS) or record["test"] == STRONGER
    return f"the trained networks of {arm}" if networks else arm


def baseline_sizes(record: ComparisonRecord, records: Sequence[ComparisonRecord]) -> list[int]:
    """Return the numbers of labelled images at which the baseline of a record was measured."""
    return sorted({
        candidate["labelled_images"] for candidate in records
        if is_baseline(candidate) and candidate["baseline"] == record["baseline"]
    })  # fmt: skip


def labels_interval(record: ComparisonRecord, sizes: Sequence[int]) -> str:
    """Return the interval of the labels that the baseline needs, with words for ends outside the measured range."""
    low, high = (finite_or_none(record[name]) for name in ("labels_equivalent_low", "labels_equivalent_high"))
    below_range, above_range = f"fewer than {min(sizes)}", f"more than {max(sizes)}"
    # The ends are exponentials of logarithms, so they may differ from a measured number in the last bit.
    if high is None and low is not None and low > max(sizes) * (1 - 1e-9):
        return above_range
    if low is None and high is not None and high < min(sizes) * (1 + 1e-9):
        return below_range
    first = below_range if low is None else rounded_labels(low, record, sizes)
    return f"{first} to {above_range if high is None else rounded_labels(high, record, sizes)}"


def rounded_labels(value: float, record: ComparisonRecord, sizes: Sequence[int]) -> str:
    """Return a number of labels, rounded to a power of ten of at most a quarter of its interval's width."""
    low, high = (finite_or_none(record[name]) for name in ("labels_equivalent_low", "labels_equivalent_high"))
    width = (max(sizes) if high is None else high) - (min(sizes) if low is None else low)
    step: int = 10 ** max(0, math.floor(math.log10(max(width / 4, 1))))
    return str(round(value / step) * step or round(value))


def finite_or_none(end: float | None) -> float | None:
    """Return an end of an interval of labels, None if it is outside the measured range."""
    return None if end is None or not math.isfinite(end) else end


def _factors(records: Sequence[ComparisonRecord]) -> tuple[str, ...]:
    return factor_columns(list(records[0])) if records else ()


def rank_sentences(tests: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> list[str]:
    """Return the comparison over data sets of one series and size as sentences.

    Args:
        tests: Rows of the tests table with the unit "data set".
        factors: The factors that vary.
    """
    ranks = {
        " / ".join(str(row[name]) for name in factors): row["statistic"] for row in tests if row["test"] == MEAN_RANK
    }
    if not ranks:
        return []
    sets = next(row["pairs"] for row in tests if row["test"] == MEAN_RANK)
    ordered = ", ".join(f"{arm} {rank:.2f}" for arm, rank in sorted(ranks.items(), key=lambda pair: pair[1]))
    sentences = [f"Mean ranks over {sets} data sets (1 is best): {ordered}."]
    for row in tests:
        if row["test"] == FRIEDMAN:
            sentences.append(
                f"Friedman test: chi-squared {row['statistic']:.2f}, {row['degrees_of_freedom']} degrees of freedom, "
                f"{p_statement(row['p'])}."
            )
    for baseline in dict.fromkeys(row["baseline"] for row in tests if row["baseline"]):
        for test, text in ((NEMENYI, "Nemenyi"), (WILCOXON, "Wilcoxon over data sets, adjusted by Holm")):
            rows = [row for row in tests if (row["baseline"], row["test"]) == (baseline, test)]
            pairs = [
                f"{' / '.join(str(row[name]) for name in factors)} {p_text(row['p_adjusted'])}"
                for row in rows
                if row["p_adjusted"] is not None
            ]
            if pairs:
                sentences.append(f"p against {baseline}, {text}: {', '.join(pairs)}.")
    return sentences
