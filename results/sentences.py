"""What a table says of saved labels, in words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.notes import BELOW_CURVE, ITSELF, NOT_REACHED
from results.schema import factor_columns

Record = Mapping[str, Any]
MOST = 8
"""More sentences than this are no summary."""


def labels_sentences(records: Sequence[Record]) -> Iterator[str]:
    """Yield a sentence an arm: what it reaches with its fewest masks, and how many its baseline needs for that.

    `records` are lines of one metric of the comparisons table. The fewest masks are taken, not those that look
    best. Nothing is said of arms whose baseline has no curve.
    """
    compared = [record for record in records if record["baseline"] and ITSELF not in _notes(record)]
    if not compared:
        return
    factors = [name for name in factor_columns(list(compared[0])) if len({record[name] for record in records}) > 1]
    least: dict[tuple[str, ...], Record] = {}
    for record in sorted(compared, key=lambda record: record["labelled_images"]):
        least.setdefault((record["baseline"], *(record[name] for name in factors)), record)
    sizes = [record["labelled_images"] for record in records if ITSELF in _notes(record)]
    said = [_sentence(record, " / ".join(arm), sizes) for (_, *arm), record in least.items() if sizes]
    yield from list(filter(None, said))[:MOST]


def _sentence(record: Record, arm: str, sizes: Sequence[int]) -> str:
    masks = record["labelled_images"]
    baseline = ", ".join(part.partition("=")[2] or part for part in record["baseline"].split(", "))
    start = f"With {masks} masks, {arm}"
    if record["labels_equivalent"] is not None:
        needed = f"{record['labels_equivalent']:.0f}{_between(record, sizes)}"
        return f"{start} reaches what {baseline} needs {needed} for."
    if NOT_REACHED in _notes(record):
        return f"{start} reaches what {baseline} does not reach with up to {max(sizes)}."
    if BELOW_CURVE in _notes(record):
        return f"{start} stays below what {baseline} reaches with {min(sizes)}."
    return ""


def _between(record: Record, sizes: Sequence[int]) -> str:
    if record["ci_low"] is None:
        return ""
    low, high = record["labels_equivalent_low"], record["labels_equivalent_high"]
    least = f"fewer than {min(sizes)}" if low is None else f"{low:.0f}"
    most = f"more than {max(sizes)}" if high is None else f"{high:.0f}"
    return f" ({least} to {most})"


def _notes(record: Record) -> Sequence[str]:
    return str(record["note"]).split("; ")
