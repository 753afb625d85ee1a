"""Summary sentences of the comparisons for the report."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from results.schema import HEADLINE, SIGNIFICANT, ComparisonRecord, direction_of, factor_columns
from results.statistics.notes import FIXED_TEST, lacks_replicates
from results.tables.layout import is_complete, is_older, study_level
from results.tables.sentences import (
    PROBABLE,
    cell_key,
    cells_text,
    claim_sentences,
    is_baseline,
    is_equivalent,
    is_significant,
    note_counts,
    p_text,
)

if TYPE_CHECKING:
    import pyarrow as pa


def select_records(comparisons: "pa.Table", **changes: str) -> list[ComparisonRecord]:
    """Return the records of the headline series; `changes` select another split, aggregation, metric or `class_`.

    Empty for comparisons of an older version, whose tests differ.
    """
    import pyarrow.compute as pc

    if "baseline" in comparisons.column_names and is_older(comparisons):
        return []
    selection = HEADLINE | {name.rstrip("_"): value for name, value in changes.items()}
    for name, value in selection.items():
        comparisons = comparisons.filter(pc.field(name) == value)
    records: list[ComparisonRecord] = comparisons.to_pylist()
    return records


def class_records(comparisons: "pa.Table", metric: str) -> list[ComparisonRecord]:
    """Return the pooled test records of every class and average."""
    import pyarrow.compute as pc

    records: list[ComparisonRecord] = comparisons.filter(
        (pc.field("split") == "test") & (pc.field("aggregation") == "dataset") & (pc.field("metric") == metric)
    ).to_pylist()
    return records


def one_per_cell(records: Sequence[ComparisonRecord]) -> list[ComparisonRecord]:
    """Return the first record of each cell; a cell has one for each baseline."""
    return list({cell_key(record): record for record in reversed(records)}.values())[::-1]


def varying_factors(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return the factors with several values, or the pathway if there are none."""
    factors = factor_columns(list(records[0])) if records else ()
    return [name for name in factors if len({record[name] for record in records}) > 1] or ["pathway"]


def arm_name(record: ComparisonRecord, factors: Sequence[str]) -> str:
    """Return the name of an arm: its values of the given factors."""
    return " / ".join(str(record[name]) for name in factors)


def best_cell(records: Sequence[ComparisonRecord]) -> ComparisonRecord | None:
    """Return the record with the best mean of complete cells; None without any, or while cells lack replicates."""
    if any(record["provisional"] for record in records):
        return None
    complete = [record for record in records if is_complete(record)]
    return max(complete, key=lambda record: direction_of(record) * record["mean"], default=None)


def is_best(record: ComparisonRecord, best: ComparisonRecord | None) -> bool:
    """Return whether a record is of the best cell or has exactly the same mean."""
    return best is not None and record["mean"] == best["mean"] and is_complete(record)


def answer(comparisons: "pa.Table") -> list[str]:
    """Return paragraphs on the headline: the best cell, and the significant differences to the baseline."""
    if is_older(comparisons):
        return ["An older version wrote the tables of this study, and its tests are not shown. Run the study again."]
    records = select_records(comparisons)
    cells = one_per_cell(records)
    if any(record["provisional"] for record in cells):
        return [_provisional(cells), *_failed(records)]
    best = best_cell(records)
    if best is None:
        return ["No cell has all its replicates." if _failed(records) else "There is no result yet.", *_failed(records)]
    complete = sum(map(is_complete, cells))
    among = f", the highest of {complete} cells" if complete > 1 else ""
    return [
        f"With {best['labelled_images']} labelled images, {arm_name(best, varying_factors(records))} reached a mean "
        f"IoU of {format_number(best['mean'])} ({interval_text(best)}){among}.",
        *_close(cells, best),
        _tested(records, best),
        *_equivalent(records),
        *claim_sentences(records),
        *_failed(records),
    ]


def _provisional(cells: Sequence[ComparisonRecord]) -> str:
    provisional = sum(record["provisional"] for record in cells)
    return (
        f"The study is not complete: {provisional} of {len(cells)} cells, or their baselines, lack replicates. "
        "All numbers are provisional, and no best cell is named."
    )


def _close(cells: Sequence[ComparisonRecord], best: ComparisonRecord) -> Iterator[str]:
    """Yield how many arms with as many labels do not differ significantly from the best."""
    level = study_level(cells)
    other_arms = [record for record in cells if record[level] == best[level] and record["p_to_best"] is not None]
    close = sum(record["p_to_best"] >= SIGNIFICANT for record in other_arms)
    if close:
        part_text = f"{close} of the {len(other_arms)} other arms did not differ"
        all_text = "the one other arm did not differ" if close == 1 else f"none of the {close} other arms differed"
        text = all_text if close == len(other_arms) else part_text
        yield f"With as many labels, {text} significantly from it (p adjusted by Holm over all pairs)."


def _failed(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return a sentence with the cells that are not compared because replicates failed."""
    factors = varying_factors(records)
    sizes: dict[str, dict[int, None]] = {}
    for record in records:
        if lacks_replicates(record["note"]):
            sizes.setdefault(arm_name(record, factors), {})[record["labelled_images"]] = None
    arms = [f"{arm} with {', '.join(map(str, images))} labelled images" for arm, images in sizes.items()]
    return [f"Not compared, because replicates failed: {'; '.join(arms)}."] if arms else []


def _tested(records: Sequence[ComparisonRecord], best: ComparisonRecord) -> str:
    families = list(dict.fromkeys(record["baseline"] for record in records if record["baseline"]))
    if not families:
        return "No baseline was named, so no difference was tested."
    tested = [record for record in records if record["p_adjusted"] is not None]
    if not tested:
        return _untested(records)
    baselines = f"{'the baseline' if len(families) == 1 else 'a baseline'} ({'; '.join(families)})"
    significant = [record for record in tested if is_significant(record)]
    if not significant:
        return _not_significant(tested, baselines)
    better = sum(record["difference"] * direction_of(record) > 0 for record in significant)
    compared = "the one comparison" if len(tested) == 1 else f"the {len(tested)} comparisons"
    return (
        f"{_difference_of_best(best, tested, several=len(families) > 1)}. Of {compared} with {baselines}, {better} "
        f"came out significantly better and {len(significant) - better} significantly worse (adjusted p below "
        f"{SIGNIFICANT})."
    )


def _untested(records: Sequence[ComparisonRecord]) -> str:
    """Return that nothing could be tested, with the notes that only comparisons have."""
    baseline_notes = note_counts([record for record in records if is_baseline(record)])
    comparison_notes = note_counts([record for record in records if record["baseline"] and not is_baseline(record)])
    notes = [note for note in comparison_notes if note not in baseline_notes and note != FIXED_TEST]
    return f"No difference to the baseline could be tested: {'; '.join(notes) or 'there are too few replicates'}."


def _not_significant(tested: Sequence[ComparisonRecord], baselines: str) -> str:
    smallest = p_text(min(record["p_adjusted"] for record in tested))
    if len(tested) == 1:
        result = f"the adjusted p of the one comparison with {baselines} is {smallest}"
    else:
        result = f"the smallest adjusted p of the {len(tested)} comparisons with {baselines} is {smallest}"
    return f"Nothing is statistically significant: {result}. This does not show that the arms are equal."


def _equivalent(records: Sequence[ComparisonRecord]) -> Iterator[str]:
    """Yield how many comparisons show equivalence."""
    tested = [record for record in records if record["p_equivalent"] is not None]
    equivalent = [record for record in tested if is_equivalent(record)]
    if equivalent:
        yield (
            f"{len(equivalent)} of {len(tested)} comparisons {'shows' if len(equivalent) == 1 else 'show'} practical "
            f"equivalence: with a probability of at least {PROBABLE:g}, the difference is at most "
            f"{equivalent[0]['rope']:g} in either direction."
        )


def _difference_of_best(best: ComparisonRecord, tested: Sequence[ComparisonRecord], *, several: bool) -> str:
    comparisons = [record for record in tested if cell_key(record) == cell_key(best)]
    if not comparisons:
        return "It is the baseline itself" if is_baseline(best) else "Its difference to the baseline was not tested"
    record = min(comparisons, key=lambda record: float(record["p_adjusted"]))
    baseline = f"the baseline ({record['baseline']})" if several else "the baseline"
    p = p_text(record["p_adjusted"]) + ("" if is_significant(record) else ", not significant")
    return f"Its difference to {baseline} is {format_number(record['difference'], '+')} (adjusted p {p})"


def notes(records: Sequence[ComparisonRecord]) -> Iterator[str]:
    """Yield every note with the number of cells that have it."""
    yield from (f"{note} ({cells_text(count)})" for note, count in note_counts(records).items())


def format_number(value: float | None, sign: str = "") -> str:
    """Format a number with three decimals, "" for None."""
    return "" if value is None else f"{value:{sign}.3f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Format an interval, "" for None."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def interval_text(record: ComparisonRecord) -> str:
    """Return the text of a record's interval."""
    text = format_interval(record["ci_low"], record["ci_high"])
    return f"95 % interval {text}" if text else "no interval"
