from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from results import schema
from results.statistics import compare as statistics
from results.statistics.design import Design, EquivalenceMargins, Family, PlannedCell
from tests.support.compared import SIZES, Value, design, digest, key, noisy, results


def compare(results: pa.Table, design: Design) -> pa.Table:
    return statistics.compare(results, design).comparisons


def lines(table: pa.Table, pathway: str) -> dict[float, dict[str, Any]]:
    return {row["labelled_fraction"]: row for row in table.to_pylist() if row["pathway"] == pathway}


def over_replicates(results: pa.Table, design: Design) -> pa.Table:
    tests = statistics.compare(results, design).tests
    return tests.filter(pc.equal(tests["unit"], "fold and seed"))


def test_a_labelled_fraction_keeps_all_its_digits() -> None:
    table = compare(results(noisy, fractions=(1 / 3, 1.0)), design())
    assert set(table["labelled_fraction"].to_pylist()) == {1 / 3, 1.0}


def values_of(pathway: str, fraction: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return noisy's values as (folds, seeds)."""
    return np.array([[noisy(pathway, fraction, fold, seed) for seed in range(2)] for fold in range(5)])


def test_the_table_has_the_documented_columns() -> None:
    assert compare(results(noisy), design()).schema == schema.comparisons()
    assert statistics.compare(results(noisy), design()).tests.schema == schema.paired_tests()


def test_the_interval_has_the_corrected_variance_on_the_logit() -> None:
    row = lines(compare(results(noisy), design()), "encode")[0.5]
    values = values_of("encode", 0.5)
    mean, error = values.mean(), values.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    logit, half = np.log(mean / (1 - mean)), stats.t.ppf(0.975, 9) * error / (mean * (1 - mean))
    assert row["mean"] == pytest.approx(mean)
    assert row["sd_folds"] == pytest.approx(values.mean(axis=1).std(ddof=1))
    assert row["sd_seeds"] == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(
        (1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit)))
    )
    assert row["n"] == 10
    assert (row["unit"], row["generalises_to"]) == ("fold and seed", "new training sets")


def test_cells_with_missing_replicates_have_a_mean_and_neither_interval_nor_claim() -> None:
    table = results(lambda p, f, fold, seed: 1.0 if fold == 0 else 0.0, fractions=[0.5], folds=2)
    remaining = table.filter([not (r["fold"] == 1 and r["seed"] == 1) for r in table.to_pylist()])
    row = lines(compare(remaining, design(folds=2)), "none")[0.5]
    assert row["mean"] == pytest.approx(2 / 3)
    assert (row["ci_low"], row["generalises_to"]) == (None, "")
    assert "3 of 4 replicates" in row["note"]


def test_the_corrected_test_equals_nadeau_and_bengio_over_all_fold_and_seed_pairs() -> None:
    row = lines(compare(results(noisy), design()), "encode")[0.25]
    differences = (values_of("encode", 0.25) - values_of("none", 0.25)).ravel()
    mean, variance = differences.mean(), differences.var(ddof=1)
    test = lines(over_replicates(results(noisy), design()), "encode")[0.25]
    assert row["difference"] == pytest.approx(mean)
    assert test["statistic"] == pytest.approx(mean / np.sqrt((1 / 10 + 1 / 4) * variance))
    assert test["degrees_of_freedom"] == 9
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(test["statistic"]), 9))
    assert row["effect_size"] == pytest.approx(mean / np.sqrt(variance))
    assert row["test"].startswith("Nadeau-Bengio")


def test_p_is_adjusted_over_all_arms_and_fractions_of_one_metric_only() -> None:
    table = results(noisy, pathways=["none", "encode", "boxes"], metrics=["mean_iou", "dice"])
    rows = [row for row in compare(table, design()).to_pylist() if row["metric"] == "dice" and row["p"]]
    p = [row["p"] for row in rows]
    assert len(p) == 6
    assert [row["p_adjusted"] for row in rows] == pytest.approx(multipletests(p, method="holm")[1])


def test_each_family_is_adjusted_separately_and_has_a_row_for_every_cell() -> None:
    pathways = ["none", "encode", "boxes"]
    families = [Family(name=name, pairs={key(pathway): key(name) for pathway in pathways}) for name in pathways[:2]]
    table = over_replicates(results(noisy, pathways=pathways), Design(folds=5, seeds=2, families=families))
    assert set(table["tests"].to_pylist()) == {6}
    compared = compare(results(noisy, pathways=pathways), Design(folds=5, seeds=2, families=families))
    assert compared.num_rows == 2 * 3 * 3


def test_the_baseline_itself_is_not_compared() -> None:
    row = lines(compare(results(noisy), design()), "none")[1.0]
    assert row["baseline"] == "pathway: none"
    assert "baseline itself" in row["note"]
    unsaid = ("difference", "p", "p_adjusted", "effect_size", "labels_equivalent", "labels_saved")
    assert {row[name] for name in unsaid} == {None}


def test_an_arm_without_a_baseline_has_a_row() -> None:
    row = lines(compare(results(noisy), Design(folds=5, seeds=2)), "encode")[1.0]
    assert (row["baseline"], row["test"], row["difference"], row["note"]) == ("", "", None, "")
    assert row["mean"] == pytest.approx(values_of("encode", 1.0).mean())


def without(table: pa.Table, pathway: str, fold: int) -> pa.Table:
    return table.filter([not (row["pathway"] == pathway and row["fold"] == fold) for row in table.to_pylist()])


@pytest.mark.parametrize("pathway", ["none", "encode"])
def test_a_comparison_with_missing_replicates_is_provisional_and_has_no_test(pathway: str) -> None:
    remaining = without(results(noisy, fractions=[0.5]), pathway, 0)
    tables = statistics.compare(remaining, design())
    row = lines(tables.comparisons, "encode")[0.5]
    differences = (values_of("encode", 0.5) - values_of("none", 0.5))[1:]
    assert row["provisional"]
    assert row["difference"] == pytest.approx(differences.mean())
    assert {row[name] for name in ("p", "p_adjusted", "p_better", "labels_saved", "p_to_best")} == {None}
    assert tables.tests.num_rows == 0


def test_complete_comparisons_are_not_provisional_because_of_others() -> None:
    remaining = without(results(noisy, pathways=["none", "encode", "boxes"], fractions=[0.5]), "boxes", 2)
    rows = {row["pathway"]: row for row in compare(remaining, design()).to_pylist()}
    assert [rows[name]["provisional"] for name in ("none", "encode", "boxes")] == [False, False, True]
    assert rows["encode"]["p_adjusted"] == pytest.approx(min(1.0, 2 * rows["encode"]["p"]))
    assert {row["p_to_best"] for row in rows.values()} == {None}


def planned(*pathways: str, failed: str | None = None) -> list[PlannedCell]:
    return [
        PlannedCell(arm=key(name), level=0.5, labelled_fraction=0.5, labelled_images=16, failed=int(name == failed))
        for name in pathways
    ]


def test_a_planned_cell_without_results_has_provisional_rows() -> None:
    table = results(noisy, pathways=["none"], fractions=[0.5])
    row = lines(compare(table, replace(design(), cells=planned("none", "encode"))), "encode")[0.5]
    assert (row["mean"], row["n"], row["labelled_images"], row["provisional"]) == (None, 0, 16, True)
    assert "0 of 10 replicates" in row["note"]


def test_an_arm_with_a_failed_replicate_is_neither_compared_nor_best_and_the_others_are() -> None:
    def value(pathway: str, fraction: float, fold: int, seed: int) -> float:
        return noisy(pathway, fraction, fold, seed) + (0.3 if pathway == "boxes" else 0.0)

    pathways = ["none", "encode", "boxes"]
    remaining = without(results(value, pathways=pathways, fractions=[0.5]), "boxes", 4)
    rows = {
        row["pathway"]: row
        for row in compare(remaining, replace(design(), cells=planned(*pathways, failed="boxes"))).to_pylist()
    }
    assert {rows["boxes"][name] for name in ("difference", "p", "p_adjusted", "p_to_best")} == {None}
    assert not rows["boxes"]["provisional"]
    assert "1 of 10 replicates failed" in rows["boxes"]["note"]
    assert rows["encode"]["p_adjusted"] == pytest.approx(rows["encode"]["p"])
    assert rows["none"]["difference_to_best"] == pytest.approx(-rows["encode"]["difference"])


def test_without_results_of_the_baseline_the_mean_is_reported_and_the_missing_test_explained() -> None:
    row = lines(compare(results(noisy, pathways=["encode"]), design()), "encode")[0.5]
    assert row["mean"] is not None
    assert row["difference"] is None
    assert "no replicate to pair with the baseline" in row["note"]


def test_undefined_values_are_excluded_and_counted() -> None:
    table = results(lambda p, f, fold, seed: None if fold == 0 else noisy(p, f, fold, seed), fractions=[0.5])
    row = lines(compare(table, design()), "encode")[0.5]
    assert row["mean"] == pytest.approx(values_of("encode", 0.5)[1:].mean())
    assert row["n"] == 8
    assert "undefined in 2 of 10" in row["note"]


def test_a_metric_undefined_everywhere_is_null() -> None:
    row = lines(compare(results(lambda *_: None), design()), "encode")[0.5]
    assert row["n"] == 0
    assert {row[name] for name in ("mean", "sd_folds", "ci_low", "difference", "p", "labels_saved")} == {None}


def test_one_replicate_has_a_mean_and_a_difference_but_no_interval_and_no_test() -> None:
    row = lines(compare(results(noisy, folds=1, seeds=1), design(folds=1, seeds=1)), "encode")[0.5]
    assert row["difference"] == pytest.approx(noisy("encode", 0.5, 0, 0) - noisy("none", 0.5, 0, 0))
    assert {row[name] for name in ("sd_seeds", "sd_folds", "ci_low", "ci_high", "p", "effect_size")} == {None}
    assert "n too small for an interval; n too small for a test" in row["note"]


def test_differences_without_variation_have_no_test() -> None:
    shifted = results(lambda p, f, fold, seed: 0.1 * fold + (0.04 if p == "encode" else 0))
    row = lines(compare(shifted, design()), "encode")[0.5]
    assert row["difference"] == pytest.approx(0.04)
    assert row["p"] is None
    assert "paired differences do not vary" in row["note"]


def test_equal_results_have_no_interval_of_width_zero() -> None:
    row = lines(compare(results(lambda *_: 0.5), design()), "encode")[0.5]
    assert (row["mean"], row["ci_low"]) == (0.5, None)
    assert "replicates do not vary" in row["note"]


CURVE = {0.25: 0.4, 0.5: 0.5, 1.0: 0.7}


def jittered(curve: Mapping[float, float], lift: float) -> Value:
    def value(pathway: str, fraction: float, fold: int, seed: int) -> float:
        noise = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed]).normal(0, 0.002)
        return curve[fraction] + 0.01 * fold + float(noise) + (lift if pathway == "encode" else 0)

    return value


def test_labels_equivalent_is_where_the_mean_difference_to_the_interpolated_baseline_is_zero() -> None:
    table = compare(results(jittered(CURVE, 0.15)), design())
    row, baseline = lines(table, "encode")[0.25], lines(table, "none")
    share = (row["mean"] - baseline[0.5]["mean"]) / (baseline[1.0]["mean"] - baseline[0.5]["mean"])
    assert row["labels_equivalent"] == pytest.approx(16 * 2**share)
    assert row["labels_saved"] == pytest.approx(16 * 2**share - 8)
    assert row["labels_equivalent_side"] == "within"


def test_the_interval_of_labels_contains_the_sizes_not_rejected_by_the_paired_test() -> None:
    value, places = jittered(CURVE, 0.1), list(product(range(5), range(2)))
    row = lines(compare(results(value), design()), "encode")[0.5]
    arm = np.array([value("encode", 0.5, *place) for place in places])
    curves = np.array([[value("none", size, *place) for size in CURVE] for place in places])
    remaining = []
    for images in np.geomspace(8, 32, 400):
        differences = arm - [np.interp(np.log(images), np.log([8, 16, 32]), curve) for curve in curves]
        statistic = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
        remaining += [images] if abs(statistic) < stats.t.ppf(0.975, 9) else []
    step = 2 ** (1 / 16)
    assert min(remaining) / step <= row["labels_equivalent_low"] <= min(remaining)
    assert max(remaining) <= row["labels_equivalent_high"] <= max(remaining) * step


@pytest.mark.parametrize(("lift", "side", "low", "high"), [(0.5, "above", 32, np.inf), (-0.35, "below", -np.inf, 8)])
def test_outside_the_measured_range_the_side_is_stated_and_the_limit_infinite(
    lift: float, side: str, low: float, high: float
) -> None:
    row = lines(compare(results(jittered(CURVE, lift)), design()), "encode")[0.25]
    assert (row["labels_equivalent_side"], row["labels_equivalent"], row["labels_saved"]) == (side, None, None)
    assert (row["labels_equivalent_low"], row["labels_equivalent_high"]) == pytest.approx((low, high))


def test_an_interval_limit_beyond_the_measured_range_is_infinite() -> None:
    noise = lambda p, f, fold, seed: noisy(p, f, fold, seed) + 0.02 * fold  # noqa: E731
    row = lines(compare(results(noise), design()), "encode")[0.25]
    assert (row["labels_equivalent_low"], row["labels_equivalent_side"]) == (-np.inf, "within")


def test_no_labels_are_saved_without_a_significant_difference_at_equal_labels() -> None:
    rows = lines(compare(results(noisy), design()), "encode")
    unsupported = [row for row in rows.values() if row["p_adjusted"] >= 0.05]
    assert unsupported
    assert {row["labels_saved"] for row in unsupported} == {None}


def test_one_size_has_no_equivalent_labels() -> None:
    row = lines(compare(results(noisy, fractions=[0.5]), design()), "encode")[0.5]
    assert (row["labels_equivalent"], row["labels_equivalent_low"], row["labels_equivalent_side"]) == (None, None, "")


def test_each_arm_is_tested_against_the_best_of_its_size_with_holm_over_all_pairs() -> None:
    pathways = ["none", "encode", "boxes", "classify"]
    table = results(noisy, pathways=pathways)
    rows = {row["pathway"]: row for row in compare(table, design()).to_pylist() if row["labelled_fraction"] == 0.5}
    best = max(rows, key=lambda name: rows[name]["mean"])
    assert (rows[best]["difference_to_best"], rows[best]["p_to_best"]) == (None, None)
    p = {}
    for pair in combinations(pathways, 2):
        differences = np.subtract(*(values_of(name, 0.5) for name in pair)).ravel()
        statistic = differences.mean() / np.sqrt((1 / 10 + 1 / 4) * differences.var(ddof=1))
        p[frozenset(pair)] = 2 * stats.t.sf(abs(statistic), 9)
    adjusted = dict(zip(p, multipletests(list(p.values()), method="holm")[1], strict=True))
    for name in set(pathways) - {best}:
        assert rows[name]["p_to_best"] == pytest.approx(adjusted[frozenset((name, best))])
        assert rows[name]["difference_to_best"] == pytest.approx(rows[name]["mean"] - rows[best]["mean"])


def test_the_best_of_an_error_is_the_smallest() -> None:
    rows = lines(compare(results(noisy, fractions=[0.5], metrics=["ece"]), design()), "none")
    assert rows[0.5]["difference_to_best"] is None


def test_a_metric_without_direction_has_no_comparison_with_a_best() -> None:
    compared = compare(results(noisy, metrics=["confidence"]), design())
    assert set(compared["difference_to_best"].to_pylist()) == {None}


def test_labels_of_a_metric_to_minimise_are_those_where_the_baseline_is_as_low() -> None:
    curve = {0.25: 0.4, 0.5: 0.3, 1.0: 0.1}
    row = lines(compare(results(jittered(curve, -0.05), metrics=["ece"]), design()), "encode")[0.25]
    assert row["labels_equivalent_low"] < row["labels_equivalent"] < row["labels_equivalent_high"]
    assert row["labels_equivalent"] == pytest.approx(8 * 2**0.5, rel=0.03)


def shared(seeds: int, runs: int) -> Design:
    """Return a design in which all folds of the arm encode start from one pretraining run of each seed."""
    chains = {
        digest("encode", fraction, fold, seed): (f"run {min(seed, runs - 1)}",)
        for fraction, fold, seed in product(SIZES, range(5), range(seeds))
    }
    return replace(design(seeds=seeds), ancestors=chains)


def test_pretraining_shared_by_folds_uses_the_larger_p_of_replicates_and_runs() -> None:
    def value(pathway: str, fraction: float, fold: int, seed: int) -> float:
        run = np.random.default_rng(seed).normal(0, 0.05) if pathway == "encode" else 0.0
        return noisy(pathway, fraction, fold, seed) + float(run)

    table = results(value, seeds=4, fractions=[0.5])
    row = lines(compare(table, shared(4, 4)), "encode")[0.5]
    d = np.array([[value("encode", 0.5, f, s) - value("none", 0.5, f, s) for s in range(4)] for f in range(5)])
    over_replicates = d.mean() / np.sqrt((1 / 20 + 1 / 4) * d.var(ddof=1))
    expected = max(stats.ttest_1samp(d.mean(axis=0), 0).pvalue, 2 * stats.t.sf(abs(over_replicates), 19))
    assert row["p"] == pytest.approx(expected)
    assert (row["unit"], row["generalises_to"]) == ("seed", "new training sets")


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_pretraining_run_has_no_p_and_states_its_generalisation(seeds: int) -> None:
    tables = statistics.compare(results(noisy, seeds=seeds), shared(seeds, 1))
    row = lines(tables.comparisons, "encode")[0.5]
    assert {row[name] for name in ("p", "p_adjusted", "p_better", "p_equivalent", "labels_saved")} == {None}
    assert row["generalises_to"] == "this one pretraining run"
    assert ("use 3 or more seeds" if seeds == 1 else "remove the seed of the stage") in row["note"]
    conditional = [test for test in tables.tests.to_pylist() if test["generalises_to"] == "this one pretraining run"]
    assert any(test["p"] is not None for test in conditional)


def test_pretraining_of_each_fold_is_not_a_shared_run() -> None:
    chains = {
        digest("encode", fraction, fold, seed): (f"{fold} {seed}",)
        for fraction, fold, seed in product(SIZES, range(5), range(2))
    }
    expected = lines(compare(results(noisy), design()), "encode")[0.5]["p"]
    assert lines(compare(results(noisy), replace(design(), ancestors=chains)), "encode")[0.5]["p"] == expected


def test_settings_selected_by_a_search_are_part_of_the_claim() -> None:
    row = lines(compare(results(noisy), replace(design(), tuned=[key("encode")])), "encode")[0.5]
    assert row["generalises_to"] == "new training sets, at the settings found"


def test_the_probabilities_are_those_of_the_correlated_bayesian_t_test() -> None:
    row = lines(compare(results(noisy), design()), "encode")[0.5]
    d = (values_of("encode", 0.5) - values_of("none", 0.5)).ravel()
    posterior = stats.t(9, d.mean(), d.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
    assert row["rope"] == 0.01
    assert row["p_better"] == pytest.approx(posterior.sf(0.01))
    assert row["p_worse"] == pytest.approx(posterior.cdf(-0.01))
    assert row["p_better"] + row["p_equivalent"] + row["p_worse"] == pytest.approx(1)


def test_an_error_is_better_if_smaller_and_an_unbounded_metric_has_no_rope() -> None:
    metrics = ["ece", "false_positive_pixels"]
    table = compare(results(noisy, fractions=[0.5], metrics=metrics), design())
    error, unbounded = (row for row in table.to_pylist() if row["pathway"] == "encode")
    assert error["difference"] > 0
    assert error["p_worse"] > error["p_better"]
    assert (unbounded["rope"], unbounded["p_equivalent"]) == (None, None)
    by_metric = replace(design(), rope=EquivalenceMargins(by_metric={"false_positive_pixels": 5.0}))
    table = compare(results(noisy, fractions=[0.5], metrics=metrics), by_metric)
    assert [row["p_equivalent"] for row in table.to_pylist() if row["pathway"] == "encode"][1] == pytest.approx(1)


def test_few_folds_are_reported_as_few() -> None:
    row = lines(compare(results(noisy, folds=3), design(folds=3)), "encode")[0.5]
    assert "3 folds are few" in row["note"]


def test_notes_of_replicates_are_reported_once_per_cell() -> None:
    notes = {digest("encode", 0.5, fold, 0): "last epoch taken" for fold in range(5)}
    rows = lines(compare(results(noisy), design(notes=notes)), "encode")
    assert rows[0.5]["note"] == "last epoch taken"
    assert "last epoch" not in rows[0.25]["note"]


def test_labelled_images_that_differ_between_folds_are_averaged_in_a_cell() -> None:
    table = results(noisy, fractions=[0.5])
    images = pa.array([16 + row["fold"] for row in table.to_pylist()], pa.int64())
    table = table.set_column(table.column_names.index("labelled_images"), "labelled_images", images)
    compared = compare(table, design())
    assert compared.num_rows == 2
    assert set(compared["labelled_images"].to_pylist()) == {18}


def test_a_family_that_defines_arms_by_other_factors_is_refused() -> None:
    short = Family(name="short", pairs={("unet", "none"): ("unet", "none")})
    with pytest.raises(ValueError, match="arms by 2 factors; allowed: architecture, backbone"):
        compare(results(noisy), Design(folds=5, seeds=2, families=[short]))


def test_without_results_the_table_is_empty() -> None:
    empty = schema.results().empty_table()
    assert compare(empty, design()).num_rows == 0
    assert statistics.compare(empty, design()).tests.num_rows == 0


def test_with_its_own_split_seed_seeds_are_averaged_and_folds_counted() -> None:
    row = lines(compare(results(noisy, seeds=4), replace(design(seeds=4), fixed_split=True)), "encode")[0.5]
    d = np.array([[noisy("encode", 0.5, f, s) - noisy("none", 0.5, f, s) for s in range(4)] for f in range(5)])
    folds = d.mean(axis=1)
    statistic = folds.mean() / (folds.std(ddof=1) * np.sqrt(1 / 5 + 1 / 4))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(statistic), 4))


def test_one_failed_replicate_does_not_extend_the_claim_of_one_pretraining_run() -> None:
    remaining = without(results(noisy, seeds=1, fractions=[0.5]), "encode", 4)
    cells = planned("none", "encode", failed="encode")
    row = lines(compare(remaining, replace(shared(1, 1), cells=cells)), "encode")[0.5]
    assert (row["ci_low"], row["generalises_to"], row["p"]) == (None, "", None)


def test_the_tests_table_has_the_adjusted_p_of_the_comparisons() -> None:
    pathways = ["none", "encode", "boxes"]
    design_ = replace(shared(2, 2), families=design().families)
    tables = statistics.compare(results(noisy, pathways=pathways), design_)
    rows = {(row["pathway"], row["labelled_fraction"]): row["p_adjusted"] for row in tables.comparisons.to_pylist()}
    tests = [row for row in tables.tests.to_pylist() if row["unit"] in ("seed", "fold and seed")]
    assert len(tests) == 6
    for row in tests:
        assert row["p_adjusted"] == rows[row["pathway"], row["labelled_fraction"]]


def test_folds_alone_support_no_claim_if_they_share_several_pretraining_runs() -> None:
    tests = statistics.compare(results(noisy), shared(2, 2)).tests.to_pylist()
    assert "fold" not in {row["unit"] for row in tests if row["pathway"] == "encode"}


def test_validation_images_are_not_tested() -> None:
    table = results(noisy)
    split = pa.array(["validation"] * table.num_rows)
    table = table.set_column(table.column_names.index("split"), "split", split)
    row = lines(compare(table, design()), "encode")[0.5]
    assert row["difference"] is not None
    assert {row[name] for name in ("p", "ci_low", "p_better", "p_to_best", "labels_equivalent_low")} == {None}
    assert "only test images are tested" in row["note"]


def test_complete_sizes_of_a_baseline_are_its_curve_if_another_failed() -> None:
    table = results(jittered(CURVE, 0.1))
    remaining = table.filter([
        not (row["pathway"] == "none" and row["labelled_fraction"] == 1.0 and row["fold"] == 0)
        for row in table.to_pylist()
    ])  # fmt: skip
    cells = [
        PlannedCell(arm=key(name), level=size, labelled_fraction=size, labelled_images=SIZES[size],
                    failed=int(name == "none" and size == 1.0))
        for name, size in product(("none", "encode"), CURVE)
    ]  # fmt: skip
    rows = lines(compare(remaining, replace(design(), cells=cells)), "encode")
    assert rows[0.25]["labels_equivalent_side"] == "within"
    assert "replicates of the baseline failed" in rows[1.0]["note"]


def test_a_mean_over_classes_states_which_class_it_excludes() -> None:
    table = results(lambda _p, _f, _fold, _seed: 0.5, pathways=["none"], fractions=[1.0], seeds=1).to_pylist()
    classes = [
        {**row, "class": name, "value": None if name == "rare" and row["fold"] > 1 else 0.5}
        for row in table
        for name in ("common", "rare")
    ]
    columns = schema.results()
    tables = statistics.compare(pa.Table.from_pylist(table + classes, columns), Design(folds=5, seeds=1))
    notes = {row["class"]: row["note"] for row in tables.comparisons.to_pylist()}
    assert "mean without rare in 3 of 5" in notes["macro"]
    assert "mean without" not in notes["common"] + notes["rare"]
