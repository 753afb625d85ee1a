import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from results import schema
from results.design import ArmKey, Design, Family
from results.paired import paired_tests
from results.statistics import compare

SIZES = {0.25: 8, 1 / 3: 11, 0.5: 16, 1.0: 32}
Value = Callable[[str, float, int, int], float | None]


def key(pathway: str) -> ArmKey:
    return ("unet", "vgg16", "random", pathway)


def digest(pathway: str, fraction: float, fold: int, seed: int) -> str:
    return f"{pathway}-{fraction}-{fold}-{seed}"


def results(
    value: Value,
    *,
    pathways: Sequence[str] = ("none", "encode"),
    fractions: Sequence[float] = (0.25, 0.5, 1.0),
    folds: int = 5,
    seeds: int = 2,
    metrics: Sequence[str] = ("mean_iou",),
) -> pa.Table:
    columns, where = schema.results(), ("test", "dataset", "macro")
    rows = [
        (
            "s",
            *key(p),
            f,
            SIZES[f],
            100,
            fold,
            seed,
            *where,
            metric,
            value(p, f, fold, seed),
            4,
            digest(p, f, fold, seed),
            "key",
        )
        for p, f, fold, seed, metric in product(pathways, fractions, range(folds), range(seeds), metrics)
    ]
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in rows], columns)


def design(
    *, folds: int = 5, seeds: int = 2, fixed_test: bool = False, notes: Mapping[str, str] | None = None
) -> Design:
    pairs = {key(pathway): key("none") for pathway in ("none", "encode", "boxes")}
    families = (Family(name="pathway: none", pairs=pairs),)
    return Design(folds=folds, seeds=seeds, families=families, fixed_test=fixed_test, notes=notes or {})


def noisy(pathway: str, fraction: float, fold: int, seed: int) -> float:
    random = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed])
    return float(0.4 + 0.3 * fraction + 0.02 * len(pathway) + random.normal(0, 0.03))


def lines(table: pa.Table, pathway: str) -> dict[float, dict[str, Any]]:
    return {row["labelled_fraction"]: row for row in table.to_pylist() if row["pathway"] == pathway}


def over_replicates(results: pa.Table, design: Design) -> pa.Table:
    tests = paired_tests(results, design)
    return tests.filter(pc.equal(tests["unit"], "fold and seed"))


def test_a_share_of_labels_keeps_all_its_digits() -> None:
    table = compare(results(noisy, fractions=(1 / 3, 1.0)), design())
    assert set(table["labelled_fraction"].to_pylist()) == {1 / 3, 1.0}


def values_of(pathway: str, fraction: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return noisy's values as (folds, seeds)."""
    return np.array([[noisy(pathway, fraction, fold, seed) for seed in range(2)] for fold in range(5)])


def test_the_table_has_the_columns_of_the_contract() -> None:
    assert compare(results(noisy), design()).schema == schema.comparisons()
    assert paired_tests(results(noisy), design()).schema == schema.paired_tests()


def test_mean_spread_and_interval_come_from_fold_means() -> None:
    row = lines(compare(results(noisy), design()), "encode")[0.5]
    values = values_of("encode", 0.5)
    folds = values.mean(axis=1)
    half = 2.776445 * folds.std(ddof=1) / np.sqrt(5)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["sd_folds"] == pytest.approx(folds.std(ddof=1))
    assert row["sd_seeds"] == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((folds.mean() - half, folds.mean() + half))
    assert row["n"] == 10


def test_seeds_are_averaged_before_folds_where_replicates_are_missing() -> None:
    table = results(lambda p, f, fold, seed: 1.0 if fold == 0 else 0.0, fractions=[0.5], folds=2)
    kept = table.filter([not (r["fold"] == 1 and r["seed"] == 1) for r in table.to_pylist()])
    row = lines(compare(kept, design(folds=2)), "none")[0.5]
    assert row["mean"] == pytest.approx(0.5)
    assert "3 of 4 replicates" in row["note"]


def test_the_corrected_test_follows_nadeau_and_bengio_over_all_fold_and_seed_pairs() -> None:
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


def test_a_fixed_test_set_takes_the_ordinary_paired_test_and_says_so() -> None:
    row = lines(compare(results(noisy), design(fixed_test=True)), "encode")[0.25]
    expected = stats.ttest_rel(values_of("encode", 0.25).ravel(), values_of("none", 0.25).ravel())
    assert row["p"] == pytest.approx(expected.pvalue)
    assert "fixed test set" in row["note"]


def test_p_is_adjusted_over_all_arms_and_fractions_of_one_metric_only() -> None:
    table = results(noisy, pathways=["none", "encode", "boxes"], metrics=["mean_iou", "dice"])
    rows = [row for row in compare(table, design()).to_pylist() if row["metric"] == "dice" and row["p"]]
    p = [row["p"] for row in rows]
    assert len(p) == 6
    assert [row["p_adjusted"] for row in rows] == pytest.approx(multipletests(p, method="holm")[1])


def test_each_family_is_adjusted_on_its_own_and_gives_every_cell_a_row() -> None:
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


def test_an_arm_without_a_baseline_keeps_its_row() -> None:
    row = lines(compare(results(noisy), Design(folds=5, seeds=2)), "encode")[1.0]
    assert (row["baseline"], row["test"], row["difference"], row["note"]) == ("", "", None, "")
    assert row["mean"] == pytest.approx(values_of("encode", 1.0).mean())


def test_only_replicates_both_arms_have_are_paired() -> None:
    table = results(noisy, fractions=[0.5])
    kept = table.filter([not (r["pathway"] == "none" and r["fold"] == 0) for r in table.to_pylist()])
    differences = (values_of("encode", 0.5) - values_of("none", 0.5))[1:]
    row = lines(compare(kept, design()), "encode")[0.5]
    assert row["difference"] == pytest.approx(differences.mean())
    assert lines(over_replicates(kept, design()), "encode")[0.5]["pairs"] == 8


def test_a_baseline_without_results_leaves_the_mean_and_says_why_there_is_no_test() -> None:
    row = lines(compare(results(noisy, pathways=["encode"]), design()), "encode")[0.5]
    assert row["mean"] is not None
    assert row["difference"] is None
    assert "no replicate to pair with the baseline" in row["note"]


def test_undefined_values_are_left_out_and_counted() -> None:
    table = results(lambda p, f, fold, seed: None if fold == 0 else noisy(p, f, fold, seed), fractions=[0.5])
    row = lines(compare(table, design()), "encode")[0.5]
    assert row["mean"] == pytest.approx(values_of("encode", 0.5)[1:].mean())
    assert row["n"] == 8
    assert "undefined in 2 of 10" in row["note"]


def test_a_metric_undefined_everywhere_is_null_throughout() -> None:
    row = lines(compare(results(lambda *_: None), design()), "encode")[0.5]
    assert row["n"] == 0
    assert {row[name] for name in ("mean", "sd_folds", "ci_low", "difference", "p", "labels_saved")} == {None}


def test_one_replicate_has_a_mean_and_a_difference_but_no_interval_and_no_test() -> None:
    row = lines(compare(results(noisy, folds=1, seeds=1), design(folds=1, seeds=1)), "encode")[0.5]
    assert row["difference"] == pytest.approx(noisy("encode", 0.5, 0, 0) - noisy("none", 0.5, 0, 0))
    assert {row[name] for name in ("sd_seeds", "sd_folds", "ci_low", "ci_high", "p", "effect_size")} == {None}
    assert "n too small for an interval; n too small for a test" in row["note"]


def test_one_fold_with_many_seeds_has_no_corrected_test() -> None:
    row = lines(compare(results(noisy, folds=1), design(folds=1)), "encode")[0.5]
    assert row["p"] is None
    assert "one fold" in row["note"]


def test_differences_without_variation_have_no_test() -> None:
    shifted = results(lambda p, f, fold, seed: 0.1 * fold + (0.04 if p == "encode" else 0))
    row = lines(compare(shifted, design()), "encode")[0.5]
    assert row["difference"] == pytest.approx(0.04)
    assert row["p"] is None
    assert "paired differences do not vary" in row["note"]


def test_equal_results_have_no_interval_of_width_zero() -> None:
    row = lines(compare(results(lambda *_: 0.5), design()), "encode")[0.5]
    assert (row["mean"], row["ci_low"]) == (0.5, None)
    assert "fold means do not vary" in row["note"]


def test_masks_saved_are_the_baselines_masks_for_the_same_mean_minus_the_cells_own() -> None:
    curve = {0.25: 0.4, 0.5: 0.5, 1.0: 0.7}
    lifted = results(lambda p, f, fold, seed: curve[f] + 0.01 * fold + (0.1 if p == "encode" else 0))
    rows = lines(compare(lifted, design()), "encode")
    assert rows[0.25]["labels_equivalent"] == pytest.approx(16)
    assert rows[0.25]["labels_saved"] == pytest.approx(8)
    assert rows[0.5]["labels_equivalent"] == pytest.approx(24)
    assert rows[0.5]["labels_equivalent_low"] < 24 < rows[0.5]["labels_equivalent_high"]
    assert rows[1.0]["labels_equivalent"] is None
    assert "not reached by the baseline at any size" in rows[1.0]["note"]


def test_an_arm_below_its_baselines_whole_curve_says_so() -> None:
    curve = {0.25: 0.4, 0.5: 0.5, 1.0: 0.7}
    table = results(lambda p, f, fold, seed: 0.1 if p == "encode" else curve[f])
    row = lines(compare(table, design()), "encode")[0.25]
    assert row["labels_equivalent"] is None
    assert "below the baseline at every size" in row["note"]


def test_what_the_baseline_reached_at_some_size_is_not_said_to_be_out_of_its_reach() -> None:
    falling = {0.25: 0.6, 0.5: 0.4, 1.0: 0.5}
    table = results(lambda p, f, fold, seed: 0.58 if p == "encode" else falling[f])
    row = lines(compare(table, design()), "encode")[0.25]
    assert row["labels_equivalent"] is None
    assert "the baseline's curve does not rise far enough to tell masks" in row["note"]


def test_each_arm_is_held_against_the_best_of_its_size_with_holm_over_the_arms() -> None:
    table = results(noisy, pathways=["none", "encode", "boxes"])
    rows = {row["pathway"]: row for row in compare(table, design()).to_pylist() if row["labelled_fraction"] == 0.5}
    best, *others = sorted(rows.values(), key=lambda row: -row["mean"])
    assert (best["difference_to_best"], best["p_to_best"]) == (None, None)
    p = []
    for row in others:
        differences = (values_of(row["pathway"], 0.5) - values_of(best["pathway"], 0.5)).ravel()
        assert row["difference_to_best"] == pytest.approx(differences.mean())
        statistic = differences.mean() / np.sqrt((1 / 10 + 1 / 4) * differences.var(ddof=1))
        p.append(2 * stats.t.sf(abs(statistic), 9))
    assert [row["p_to_best"] for row in others] == pytest.approx(multipletests(p, method="holm")[1])


def test_the_best_of_an_error_is_the_least() -> None:
    rows = lines(compare(results(noisy, fractions=[0.5], metrics=["ece"]), design()), "none")
    assert rows[0.5]["difference_to_best"] is None


def test_where_neither_way_is_better_nothing_is_held_against_a_best() -> None:
    compared = compare(results(noisy, metrics=["confidence"]), design())
    assert set(compared["difference_to_best"].to_pylist()) == {None}


def test_the_interval_of_masks_is_in_order_for_a_metric_that_should_fall() -> None:
    curve = {0.25: 0.4, 0.5: 0.3, 1.0: 0.1}
    lowered = results(
        lambda p, f, fold, seed: curve[f] + 0.001 * fold - (0.05 if p == "encode" else 0), metrics=["ece"]
    )
    row = lines(compare(lowered, design()), "encode")[0.25]
    assert row["labels_equivalent_low"] < row["labels_equivalent"] < row["labels_equivalent_high"]


def test_notes_of_replicates_are_said_once_a_cell() -> None:
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


def test_a_family_that_names_arms_by_other_factors_is_refused() -> None:
    short = Family(name="short", pairs={("unet", "none"): ("unet", "none")})
    with pytest.raises(ValueError, match="arms by 2 factors; allowed: architecture, backbone"):
        compare(results(noisy), Design(folds=5, seeds=2, families=[short]))


def test_no_results_give_an_empty_table() -> None:
    empty = schema.results().empty_table()
    assert compare(empty, design()).num_rows == 0
    assert paired_tests(empty, design()).num_rows == 0


def test_a_hundred_thousand_results_are_compared_in_seconds() -> None:
    metrics = [f"metric{number}" for number in range(100)]
    table = results(noisy, pathways=["none", "encode", "boxes"], folds=5, seeds=6, metrics=[*metrics, "dice"])
    table = pa.concat_tables(
        [table]
        + [
            table.set_column(table.column_names.index("class"), "class", pa.array([name] * table.num_rows))
            for name in ("lung", "opacity", "heart")
        ]
    )
    started = time.perf_counter()
    compare(table, design(seeds=6))
    assert table.num_rows > 100_000
    assert time.perf_counter() - started < 10
