"""Statistical tests, each compared with scipy or statsmodels on the same vectors."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from results.metrics.compute import ImageValues, MetricRow, StageMetrics, results_table
from results.metrics.formulas import FloatArray
from results.schema import FACTORS, ReplicateRecord
from results.statistics.compare import compare
from results.statistics.design import ArmKey, Design, Family
from results.statistics.estimates import hedges_g
from results.statistics.paired.one_sample import over_patients, t_test, wilcoxon_test
from results.statistics.paired.signed_rank import signed_rank
from results.statistics.patient_level import bootstrap
from results.statistics.patient_level.permutation import sign_flip_p
from results.statistics.patient_level.sums import ScoredReplicate

FOLDS, SEEDS, IMAGES = 8, 2, 4


def columns(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(0.3, 1.0, shape)


@pytest.mark.parametrize("pairs", [6, 13, 50, 51, 200])
def test_signed_rank_p_equals_scipy(pairs: int) -> None:
    values = columns(pairs, 5)
    expected = stats.wilcoxon(values, axis=0)
    result = signed_rank(values)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.statistic == pytest.approx(expected.statistic)


def test_signed_rank_with_ties_and_equal_pairs_equals_scipy_over_all_permutations() -> None:
    values = np.array([0.0, 0.1, 0.1, -0.2, 0.3, 0.3, 0.3, 0.5, -0.1])[:, None]
    expected = stats.wilcoxon(values[values != 0], method=stats.PermutationMethod())
    result = signed_rank(values)
    assert result.p[0] == pytest.approx(expected.pvalue)
    assert result.unequal[0] == 8


def test_many_ties_follow_the_normal_approximation_of_scipy() -> None:
    values = columns(80, 1).round(1)
    assert signed_rank(values).p == pytest.approx(stats.wilcoxon(values[values != 0], method="asymptotic").pvalue)


def test_missing_pairs_are_excluded_from_a_signed_rank_test() -> None:
    values = columns(12, 3)
    values[[0, 5], 1] = np.nan
    assert signed_rank(values).p[1] == pytest.approx(stats.wilcoxon(np.delete(values[:, 1], [0, 5])).pvalue)


def test_equal_differences_are_tied_despite_rounding_errors() -> None:
    values = ((np.arange(1, 9) / 10 + 0.04) - np.arange(1, 9) / 10)[:, None]
    assert signed_rank(values).p[0] == pytest.approx(2 / 2**8)


def test_rank_biserial_is_the_share_of_ranks_above_minus_below() -> None:
    values = np.array([0.5, 0.4, -0.1, 0.3, 0.2, 0.6])[:, None]
    assert signed_rank(values).rank_biserial[0] == pytest.approx((20 - 1) / 21)


def test_five_unequal_pairs_are_too_few_for_ranks() -> None:
    result = wilcoxon_test(columns(5, 1))
    assert np.isnan(result["p"]).all()
    assert result["note"][0].startswith("n too small")


def test_the_t_test_and_its_interval_equal_statsmodels() -> None:
    values = columns(7, 2)
    result = t_test(values)
    for column in range(2):
        expected = DescrStatsW(values[:, column])
        statistic, p, freedom = expected.ttest_mean(0.0)
        assert (result["statistic"][column], result["p"][column]) == pytest.approx((statistic, p))
        assert result["degrees_of_freedom"][column] == freedom
        assert (result["ci_low"][column], result["ci_high"][column]) == pytest.approx(expected.tconfint_mean())


def test_d_z_is_mean_over_standard_deviation_and_hedges_corrects_its_bias() -> None:
    random = np.random.default_rng(4)
    draws = random.normal(0.5, 1.0, (6, 20_000))
    result = t_test(draws)
    assert result["effect_size"][0] == pytest.approx(draws[:, 0].mean() / draws[:, 0].std(ddof=1))
    assert result["effect_size"].mean() > 0.55
    assert result["hedges_g"].mean() == pytest.approx(0.5, abs=0.01)


def test_hedges_factor_is_close_to_its_approximation() -> None:
    freedom = np.array([4.0, 9.0, 49.0])
    assert hedges_g(np.ones(3), freedom) == pytest.approx(1 - 3 / (4 * freedom - 1), abs=0.003)


@pytest.mark.parametrize(
    ("values", "note"),
    [([np.nan, np.nan], "no replicate to pair"), ([0.1, np.nan], "n too small"), ([0.2, 0.2], "do not vary")],
)
def test_a_missing_t_test_has_a_reason(values: list[float], note: str) -> None:
    result = t_test(np.array(values)[:, None])
    assert np.isnan(result["p"][0])
    assert note in result["note"][0]


def draws_of(values: FloatArray) -> FloatArray:
    """Return bootstrap means of one value per patient, (draws, series)."""
    return bootstrap.patient_weights(len(values)) @ values / len(values)


@pytest.mark.parametrize("patients", [10, 23, 200])
def test_bootstrap_percentiles_are_widened_to_t_and_the_small_sample_factor(patients: int) -> None:
    values = columns(patients, 1)
    level = stats.norm.cdf(-np.sqrt(patients / (patients - 1)) * stats.t.ppf(0.975, patients - 1))
    expected = np.quantile(draws_of(values)[:, 0], [level, 1 - level])
    assert np.ravel(bootstrap.interval(draws_of(values), patients)) == pytest.approx(expected)


def test_the_bootstrap_agrees_with_scipys_percentiles_at_the_widened_level() -> None:
    values = columns(60, 1)
    level = 1 - 2 * stats.norm.cdf(-np.sqrt(60 / 59) * stats.t.ppf(0.975, 59))
    expected = stats.bootstrap(
        (values[:, 0],), np.mean, method="percentile", n_resamples=20_000, confidence_level=level, rng=1
    )
    ends = np.ravel(bootstrap.interval(draws_of(values), 60))
    assert ends == pytest.approx(tuple(expected.confidence_interval), abs=0.03)


def test_images_of_a_patient_are_drawn_together() -> None:
    together = over_patients(np.repeat(columns(20, 1), 10, axis=0), np.repeat(np.arange(20), 10))
    alone = over_patients(columns(20, 1), np.arange(20))
    for name in ("ci_low", "ci_high", "p"):
        assert together[name] == pytest.approx(alone[name])


def test_a_draw_without_the_class_is_excluded_from_its_percentiles() -> None:
    values = np.where(np.arange(200)[:, None] < 10, 0.5, np.nan)
    result = over_patients(values, np.arange(200))
    assert (result["ci_low"][0], result["ci_high"][0]) == pytest.approx((0.5, 0.5))


def test_six_to_nine_patients_have_a_p_and_no_interval() -> None:
    result = over_patients(columns(27, 1), np.arange(27) // 3)
    assert np.isnan(result["ci_low"][0])
    assert 0 < result["p"][0] <= 1
    assert (result["pairs"][0], result["note"][0]) == (9, "9 test patients: too few for an interval (10)")


def test_fewer_than_six_patients_have_no_p() -> None:
    result = over_patients(columns(15, 1), np.arange(15) // 3)
    assert np.isnan(result["p"][0])
    assert "5 test patients: too few for a test" in result["note"][0]


@pytest.mark.parametrize("patients", [6, 12])
def test_up_to_twelve_patients_the_sign_flip_equals_scipys_exact_permutation_test(patients: int) -> None:
    values = columns(patients, 4)
    expected = [
        stats.permutation_test((column,), np.sum, permutation_type="samples", n_resamples=2**patients).pvalue
        for column in values.T
    ]
    assert sign_flip_p(values) == pytest.approx(expected)


def test_with_more_patients_the_sign_flip_is_close_to_scipys_random_permutation_test() -> None:
    values = columns(40, 1) - 0.1
    expected = stats.permutation_test((values[:, 0],), np.sum, permutation_type="samples", n_resamples=20_000, rng=2)
    assert sign_flip_p(values)[0] == pytest.approx(expected.pvalue, abs=0.02)


def key(pathway: str) -> ArmKey:
    return ("unet", "vgg16", "random", pathway)


def value_of(pathway: str, fold: int, seed: int, image: int) -> float:
    random = np.random.default_rng([len(pathway), fold, seed, image])
    return float(random.normal(0.6 + 0.01 * len(pathway), 0.1))


def replicate(pathway: str, fold: int, seed: int) -> ReplicateRecord:
    return ReplicateRecord(
        factors=dict(zip(FACTORS, key(pathway), strict=True)), labelled_fraction=1.0, labelled_images=32, updates=9,
        fold=fold, seed=seed, digest=f"{pathway}-{fold}-{seed}",
    )  # fmt: skip


def measured(pathway: str, fold: int, seed: int, *, fixed: bool) -> StageMetrics:
    first = 0 if fixed else fold * IMAGES
    values = np.array([[value_of(pathway, fold, seed, image)] for image in range(first, first + IMAGES)])
    images = ImageValues(
        split="test",
        images=tuple(f"i{image:02}" for image in range(first, first + IMAGES)),
        patients=tuple(f"p{image // 2:02}" for image in range(first, first + IMAGES)),
        series=(("macro", "dice"),),
        values=values,
        classes=(),
        averaged=(),
        counts=np.zeros((IMAGES, 0, 4), dtype=np.int64),
    )
    return StageMetrics([MetricRow("test", "case", "macro", "dice", float(values.mean()), IMAGES)], [images])


def by_unit(*pathways: str, fixed: bool = False, without: tuple[str, int, int] | None = None) -> dict[str, list[Any]]:
    """Return the rows of the tests table by unit."""
    records = [
        replicate(pathway, fold, seed) for pathway in pathways for fold in range(FOLDS) for seed in range(SEEDS)
        if (pathway, fold, seed) != without
    ]  # fmt: skip
    result = {
        (record.digest, ""): measured(record.factors["pathway"], record.fold, record.seed, fixed=fixed)
        for record in records
    }
    family = Family(name="pathway=none", pairs={key(pathway): key("none") for pathway in pathways})
    design = Design(folds=FOLDS, seeds=SEEDS, families=[family], fixed_test=fixed)
    scored = [ScoredReplicate(record, result[record.digest, ""].images) for record in records]
    table: pa.Table = compare(results_table("s", records, result), design, scored).tests
    units: dict[str, list[Any]] = {}
    for row in table.to_pylist():
        units.setdefault(row["unit"], []).append(row)
    return units


def image_differences(seeds: int = SEEDS) -> FloatArray:
    return np.array([
        [value_of("encode", image // IMAGES, seed, image) - value_of("none", image // IMAGES, seed, image)
         for seed in range(seeds)] for image in range(FOLDS * IMAGES)
    ])  # fmt: skip


def test_every_test_states_its_generalisation() -> None:
    units = by_unit("none", "encode")
    claims = {unit: {row["generalises_to"] for row in rows} for unit, rows in units.items()}
    assert claims == {
        "fold and seed": {"new training sets"},
        "fold": {"new training sets"},
        "test image": {"these models, new patients"},
        "patient": {"these models, new patients"},
    }


def test_over_folds_seeds_are_averaged_first() -> None:
    folds = image_differences().reshape(FOLDS, IMAGES, SEEDS).mean(axis=(1, 2))
    (t,) = by_unit("none", "encode")["fold"]
    assert t["p"] == pytest.approx(stats.ttest_1samp(folds, 0).pvalue)
    assert (t["pairs"], t["sd_difference"]) == (FOLDS, pytest.approx(folds.std(ddof=1)))
    assert "folds share training images" in t["note"]


def test_over_test_images_each_image_has_the_mean_of_its_seeds() -> None:
    images = image_differences().mean(axis=1)
    t, wilcoxon = by_unit("none", "encode")["test image"]
    assert t["pairs"] == FOLDS * IMAGES
    assert t["p"] == pytest.approx(stats.ttest_1samp(images, 0).pvalue)
    assert wilcoxon["p"] == pytest.approx(stats.wilcoxon(images).pvalue)
    assert "several images of a patient" in t["note"]


def test_images_of_a_fixed_test_set_are_averaged_over_folds() -> None:
    t, _ = by_unit("none", "encode", fixed=True)["test image"]
    assert t["pairs"] == IMAGES


def test_over_patients_the_signs_of_patient_sums_are_flipped() -> None:
    (row,) = by_unit("none", "encode")["patient"]
    images = image_differences().mean(axis=1)
    assert row["pairs"] == FOLDS * IMAGES / 2
    assert row["difference"] == pytest.approx(images.mean())
    assert row["p"] == pytest.approx(sign_flip_p(images.reshape(-1, 2).sum(axis=1, keepdims=True))[0])
    assert row["ci_low"] < images.mean() < row["ci_high"]


def test_cells_with_missing_replicates_have_no_tests() -> None:
    assert by_unit("none", "encode", without=("none", 0, 1)) == {}


def test_equal_arms_have_no_p_with_the_reason() -> None:
    rows = [row for part in by_unit("none", "some").values() for row in part]
    assert {row["difference"] for row in rows} == {0.0}
    assert {row["p"] for row in rows} == {row["effect_size"] for row in rows} == {None}
    notes = {row["unit"]: row["note"] for row in rows if not row["test"].startswith("Wilcoxon")}
    assert notes == dict.fromkeys(("fold and seed", "fold", "test image", "patient"), "paired differences do not vary")


def test_each_kind_of_test_is_adjusted_separately() -> None:
    rows = by_unit("none", "encode", "boxes")["test image"]
    for name in {row["test"] for row in rows}:
        same = [row for row in rows if row["test"] == name]
        assert [row["tests"] for row in same] == [2, 2]
        expected = multipletests([row["p"] for row in same], method="holm")[1]
        assert [row["p_adjusted"] for row in same] == pytest.approx(expected)
