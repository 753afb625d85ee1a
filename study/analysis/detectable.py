"""Detectable differences of a planned study, by baseline and metric, and the effect of more folds or seeds."""

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from results import schema
from results.statistics.design import ArmKey, Family, shared_runs
from results.statistics.notes import FEW_PATIENTS, one_run_note
from results.statistics.paired.paired_tests import PRETRAINING_RUN
from results.statistics.power import detectable_over_replicates, detectable_over_units
from study.analysis.derived_cache import study_table
from study.analysis.design import families
from study.planning.graph import Plan, Replicate
from study.store.atomic import AlteredFileError
from study.store.paths import RESULTS, TESTS
from study.store.store import Store

METRICS = (("mean_iou", "dataset"), ("dice", "case"))
"""The metrics shown in tables, with their aggregations."""
MORE_SEEDS = (3, 5, 10)
MORE_FOLDS = (5, 10)
Detectable = dict[str, Any]


def detectable(plan: Plan, store: Store) -> list[Detectable]:
    """Return the smallest difference that is detected with 80 % power, by baseline, metric and unit; never empty.

    `sd_units` is in standard deviations of paired differences over the unit. `difference` is in units of the metric,
    None unless finished studies on the same test cases provide a standard deviation. If no difference can be
    significant, both are None and `reason` explains it.
    """
    if not plan.spec.compare.baseline:
        return [_entry("mean_iou", "", 0, "", math.nan, None, "no baseline is named, so nothing is tested")]
    spread = _spread(plan, store)
    return [
        entry
        for family in families(plan)
        for metric, aggregation in METRICS
        for entry in _family_entries(plan, family, metric, {unit: sd for (unit, *rest), sd in spread.items()
                                                       if rest == [metric, aggregation]})
    ]  # fmt: skip


def _family_entries(plan: Plan, family: Family, metric: str, spread: dict[str, float]) -> Iterator[Detectable]:
    compare = plan.spec.compare
    pairs = [(arm, baseline) for arm, baseline in family.pairs.items() if arm != baseline]
    if not pairs:
        yield _entry(metric, family.name, 0, "", math.nan, None, "no other arm is compared with the baseline")
        return
    comparisons = len(pairs) * len(compare.labelled)
    if plan.test_is_fixed:
        patients = _test_patients(plan)
        reason = (
            f"{patients} test patients are too few for a test; {FEW_PATIENTS} or more"
            if patients < FEW_PATIENTS
            else ""
        )
        size = math.nan if reason else detectable_over_units(patients, comparisons)
        yield _entry(metric, family.name, comparisons, "patient", size, spread.get("patient"), reason)
        return
    runs = _shared_runs(plan)
    by_pair = [min((runs[key] for key in pair if key in runs), default=None) for pair in pairs]
    testable = [count for count in by_pair if count != 1]
    comparisons = len(testable) * len(compare.labelled)
    if testable:
        splits = 1 if plan.views[plan.target].settings.seed is not None else len(compare.seeds)
        size = detectable_over_replicates(compare.folds, splits, comparisons)
        yield _entry(metric, family.name, comparisons, "fold and seed", size, spread.get("fold and seed"), "")
    fewest = min((count for count in testable if count is not None), default=None)
    if fewest is not None:
        size = detectable_over_units(fewest, comparisons)
        yield _entry(metric, family.name, comparisons, "seed", size, spread.get(PRETRAINING_RUN), "")
    if untestable := len(by_pair) - len(testable):
        reason = one_run_note(1, len(compare.seeds))
        yield _entry(metric, family.name, untestable * len(compare.labelled), "seed", math.nan, None, reason)


def _entry(
    metric: str, baseline: str, comparisons: int, unit: str, size: float, sd: float | None, reason: str
) -> Detectable:
    known = not math.isnan(size)
    return {
        "metric": metric,
        "baseline": baseline,
        "comparisons": comparisons,
        "unit": unit,
        "sd_units": round(size, 2) if known else None,
        "difference": round(size * sd, 4) if known and sd is not None else None,
        "reason": reason,
    }


def alternatives(plan: Plan, comparisons: int) -> list[Detectable]:
    """Return the detectable differences with more seeds or folds, over replicates and over shared pretraining runs."""
    compare = plan.spec.compare
    if plan.test_is_fixed or plan.views[plan.target].settings.seed is not None or not comparisons:
        return []
    folds, seeds = compare.folds, len(compare.seeds)
    options = [(folds, count) for count in MORE_SEEDS if count > seeds][:2]
    options += [(count, seeds) for count in MORE_FOLDS if count > folds][:1]
    runs = _shared_runs(plan).values()
    # A pretraining stage with a fixed seed remains a single run, however many seeds are compared.
    shared = bool(runs) and min(runs) == seeds
    return [
        {
            "folds": k,
            "seeds": s,
            "sd_units": round(detectable_over_replicates(k, s, comparisons), 2),
            "sd_units_runs": round(detectable_over_units(s, comparisons), 2) if shared and s > 1 else None,
        }
        for k, s in options
    ]


def _shared_runs(plan: Plan) -> dict[ArmKey, int]:
    """Return by arm the smallest number of pretraining runs that its folds share; arms without any are omitted."""
    cells: dict[tuple[int, float | int], list[Replicate]] = {}
    for replicate in plan.all_replicates:
        cells.setdefault((replicate.arm, replicate.labelled), []).append(replicate)
    runs: dict[ArmKey, int] = {}
    for (arm, _), rows in cells.items():
        for labels in shared_runs([row.chain[:-1] for row in rows], [row.fold for row in rows], fixed_test=False):
            key = plan.arms[arm].key
            runs[key] = min(runs.get(key, max(labels) + 1), max(labels) + 1)
    return runs


def _test_patients(plan: Plan) -> int:
    index = plan.views[plan.target].index
    split = plan.splits(plan.spec.compare.labelled[0])[0]
    return len({index.patients[row] for row in split.test})


def _spread(plan: Plan, store: Store) -> dict[tuple[str, str, str], float]:
    """Return the median standard deviation of paired differences by unit, metric and aggregation.

    They are read from the tests of all studies in the storage that were scored on the same test cases.
    """
    scorings = {scoring.key for scored in plan.scorings.values() for scoring in scored.values()}
    deviations: dict[tuple[str, str, str], list[float]] = {}
    columns = ["unit", "metric", "aggregation", "sd_difference"]
    filters = [("split", "=", "test"), ("class", "=", "macro"), ("sd_difference", ">", 0.0)]
    for name in store.studies(RESULTS, TESTS):
        import pyarrow.parquet as pq  # slow to import; not needed without finished studies

        folder = store.study(name)
        try:
            study_table(folder, TESTS, schema.paired_tests().names)
            study_table(folder, RESULTS, ("scoring",))
        except (AlteredFileError, PermissionError):
            continue  # reported by the commands on that study, or written by an earlier version
        scored = pq.read_table(folder / RESULTS, columns=["scoring"], filters=[("metric", "=", "mean_iou")])
        if scorings.isdisjoint(scored["scoring"].unique().to_pylist()):
            continue
        for row in pq.read_table(folder / TESTS, columns=columns, filters=filters).to_pylist():
            deviations.setdefault((row["unit"], row["metric"], row["aggregation"]), []).append(row["sd_difference"])
    return {key: statistics.median(values) for key, values in deviations.items()}


def detectable_lines(entries: Sequence[Detectable], options: Sequence[Detectable]) -> list[str]:
    """Return the lines of `study plan`, one for each baseline and unit."""
    lines: list[str] = []
    for baseline in dict.fromkeys(entry["baseline"] for entry in entries):
        family = [entry for entry in entries if entry["baseline"] == baseline]
        for unit in dict.fromkeys(entry["unit"] for entry in family):
            lines.append(_line([entry for entry in family if entry["unit"] == unit]))
    if options:
        lines.append(f"with {'; '.join(map(_alternative, options))}")
    return [("detectable   " if number == 0 else "             ") + line.strip() for number, line in enumerate(lines)]


def _line(entries: Sequence[Detectable]) -> str:
    """Return the line of one baseline and unit."""
    first = entries[0]
    against = f" against {first['baseline']}" if first["baseline"] else ""
    if first["sd_units"] is None:
        return f"nothing can be significant{against}: {first['reason']}"
    unit = {"fold and seed": "replicates", "seed": "pretraining runs", "patient": "test patients"}[first["unit"]]
    known = [f"{entry['metric']} {entry['difference']:.3f}" for entry in entries if entry["difference"] is not None]
    metrics = f", about {', '.join(known)}" if known else "; metric units unknown before a first run"
    family = "one comparison" if first["comparisons"] == 1 else f"the first of {first['comparisons']} comparisons"
    return f"{first['sd_units']:g} SDs of paired differences over {unit} with 80 % power, {family}{against}{metrics}"


def _alternative(option: Detectable) -> str:
    runs = "" if option["sd_units_runs"] is None else f", {option['sd_units_runs']:g} over pretraining runs"
    return f"{option['folds']} folds x {option['seeds']} seeds: {option['sd_units']:g} SDs{runs}"
