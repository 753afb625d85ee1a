"""What the comparisons say, in sentences a reader takes away. Nothing is computed that is not in them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results.notes import ITSELF
from results.schema import HEADLINE, SIGNIFICANT, SIZES, direction, factor_columns

if TYPE_CHECKING:
    import pyarrow as pa

Record = dict[str, Any]
NAMES = {"mean_iou": "mean IoU", "dice": "Dice", "auc": "AUC", "ece": "calibration error"}


def chosen(comparisons: "pa.Table", **changes: str) -> list[Record]:
    """Return the records of the headline, or of another split, aggregation, metric or `class_`."""
    import pyarrow.compute as pc

    wanted = HEADLINE | {name.rstrip("_"): value for name, value in changes.items()}
    for name, value in wanted.items():
        comparisons = comparisons.filter(pc.field(name) == value)
    records: list[Record] = comparisons.to_pylist()
    return records


def once(records: Sequence[Record]) -> list[Record]:
    """Keep one record a cell: every baseline of a cell repeats its mean."""
    if not records:
        return []
    places = [*factor_columns(list(records[0])), *SIZES]
    return list({tuple(record[name] for name in places): record for record in reversed(records)}.values())[::-1]


def varying(records: Sequence[Record]) -> list[str]:
    """Return the factors with several values; the pathway where none has."""
    factors = factor_columns(list(records[0])) if records else ()
    return [name for name in factors if len({record[name] for record in records}) > 1] or ["pathway"]


def arm_name(record: Record, factors: Sequence[str]) -> str:
    """Return how a reader tells an arm from the others."""
    return " / ".join(str(record[name]) for name in factors)


def best_cell(records: Sequence[Record]) -> Record | None:
    """Return the record with the best mean, None where no mean is defined."""
    defined = [record for record in records if record["mean"] is not None]
    return max(defined, key=lambda record: direction(record["metric"]) * record["mean"], default=None)


def answer(comparisons: "pa.Table") -> list[str]:
    """Return the headline: which cell is best, and whether differences to the baseline are more than chance."""
    records = chosen(comparisons)
    best = best_cell(records)
    if best is None:
        return ["There is no result yet."]
    name = arm_name(best, varying(records))
    cells = len(once(records))
    among = f", the highest of {cells} cells" if cells > 1 else ""
    first = f"With {best['labelled_images']} labelled images, {name} reached a mean IoU of {number(best['mean'])}"
    return [f"{first} ({interval(best)}){among}.", _tested(records, best)]


def _tested(records: Sequence[Record], best: Record) -> str:
    families = list(dict.fromkeys(record["baseline"] for record in records if record["baseline"]))
    tested = [record for record in records if record["p_adjusted"] is not None]
    if not families:
        return "No baseline was named, so no difference was tested."
    if not tested:
        return "No difference to the baseline could be tested: there are too few runs to pair."
    against = "the baseline" if len(families) == 1 else "a baseline"
    smallest = min(record["p_adjusted"] for record in tested)
    found = [record for record in tested if record["p_adjusted"] < SIGNIFICANT]
    if not found:
        one = "the one comparison" if len(tested) == 1 else f"none of the {len(tested)} comparisons"
        has = "does not have" if len(tested) == 1 else "has"
        return (
            f"Nothing is statistically significant: {one} with {against} ({'; '.join(families)}) {has} an adjusted "
            f"p below {SIGNIFICANT} (the smallest is {p_text(smallest)}), which does not show that the arms are equal."
        )
    own = _own(best, [record for record in tested if _same_cell(record, best)])
    better = sum(record["difference"] * direction(record["metric"]) > 0 for record in found)
    return (
        f"{own}; of {len(tested)} comparisons with {against} ({'; '.join(families)}), {better} came out significantly "
        f"better and {len(found) - better} significantly worse (adjusted p below {SIGNIFICANT})."
    )


def _own(best: Record, mine: Sequence[Record]) -> str:
    if not mine:
        itself = ITSELF in best["note"].split("; ")
        return "It is the baseline itself" if itself else "Its own difference to the baseline could not be tested"
    record = min(mine, key=lambda record: float(record["p_adjusted"]))
    p = record["p_adjusted"]
    significant = "" if p < SIGNIFICANT else ", not significant"
    return (
        f"Its difference to the baseline is {number(record['difference'], '+')} (adjusted p {p_text(p)}{significant})"
    )


def _same_cell(a: Record, b: Record) -> bool:
    places = [*factor_columns(list(a)), *SIZES]
    return all(a[name] == b[name] for name in places)


def notes(records: Sequence[Record]) -> Iterator[str]:
    """Yield every remark on cells with how many have it."""
    counts: dict[str, int] = {}
    for record in once(records):
        for note in filter(None, record["note"].split("; ")):
            counts[note] = counts.get(note, 0) + 1
    yield from (f"{note} ({count} cells)" for note, count in counts.items() if note != ITSELF)


def number(value: float | None, sign: str = "") -> str:
    """Return three decimals, "" for none."""
    return "" if value is None else f"{value:{sign}.3f}"


def title(metric: str) -> str:
    """Return how a metric is named where a sentence begins."""
    name = NAMES.get(metric, metric)
    return name[:1].upper() + name[1:]


def span(low: float | None, high: float | None) -> str:
    """Return an interval, "" for none."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def interval(record: Record) -> str:
    """Return a record's interval in words."""
    inside = span(record["ci_low"], record["ci_high"])
    return f"95 % interval {inside}" if inside else "too few folds for an interval"


def p_text(p: float) -> str:
    """Return a p value as it is read."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
