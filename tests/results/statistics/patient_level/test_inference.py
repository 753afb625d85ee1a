"""Inference with a fixed test set: over patients, for the networks as trained."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from results import schema
from results.metrics.compute import MetricSettings, measure_all, results_table
from results.metrics.formulas import FloatArray
from results.schema import FACTORS, ReplicateRecord
from results.statistics.compare import Tables, compare
from results.statistics.design import ArmKey, Design, Family
from results.statistics.patient_level.sums import ScoredReplicate

CLASSES = ("lung", "heart")
PIXELS = 400


def key(pathway: str) -> ArmKey:
    return ("unet", "vgg16", "random", pathway)


def counts(pathway: str, seed: int, images: int, *, lift: float = 0.0, noise: float = 0.05) -> FloatArray:
    """Return tp, fp, fn, tn as (images, classes, 4); `lift` raises the recall."""
    hardness = np.random.default_rng(9).normal(0.7, 0.1, (images, len(CLASSES)))
    random = np.random.default_rng([len(pathway), seed])
    positives = np.random.default_rng(8).integers(20, 90, (images, len(CLASSES)))
    recall = np.clip(hardness + lift + random.normal(0, noise, hardness.shape), 0, 1)
    tp = np.rint(positives * recall)
    fp = np.rint(np.abs(random.normal(5, 2, hardness.shape)))
    fn = positives - tp
    return np.stack([tp, fp, fn, PIXELS - tp - fp - fn], axis=-1)


def tables_of(pixels: FloatArray) -> tuple[pa.Table, pa.Table]:
    """Return stored scores and images of counts (images, classes, 4), two images per patient."""
    empty = [0] * 200
    scores = [
        {"image": f"i{image:02}", "class": name, "split": "test", "positives": empty, "negatives": empty}
        | dict(zip(("tp", "fp", "fn", "tn"), map(int, pixels[image, number]), strict=True))
        for image, (number, name) in product(range(len(pixels)), enumerate(CLASSES))
    ]
    bins = {f"confidence_{name}": [1] * 20 for name in ("count", "sum", "correct")}
    images = [
        {"image": f"i{image:02}", "patient": f"p{image // 2:02}", "split": "test", **bins}
        for image in range(len(pixels))
    ]
    return pa.Table.from_pylist(scores, schema.scores()), pa.Table.from_pylist(images, schema.images())


def study(
    pixels: dict[tuple[str, int, int], FloatArray], *, ancestors: dict[str, tuple[str, ...]] | None = None,
    labelled: float = 0.1, fixed_split: bool = False,
) -> Tables:  # fmt: skip
    """Compare the pathways of counts by pathway, fold and seed."""
    replicates = [
        ReplicateRecord(
            factors=dict(zip(FACTORS, key(pathway), strict=True)), labelled_fraction=labelled, labelled_images=32,
            updates=1, fold=fold, seed=seed, digest=f"{pathway}-{fold}-{seed}",
        )
        for pathway, fold, seed in pixels
    ]  # fmt: skip
    by_digest = {f"{pathway}-{fold}-{seed}": value for (pathway, fold, seed), value in pixels.items()}
    measured = measure_all(replicates, lambda replicate: tables_of(by_digest[replicate.digest]), MetricSettings())
    names = dict.fromkeys(pathway for pathway, _, _ in pixels)
    design = Design(
        folds=len({fold for _, fold, _ in pixels}), seeds=len({seed for _, _, seed in pixels}), fixed_test=True,
        fixed_split=fixed_split,
        families=[Family(name="pathway=none", pairs={key(name): key("none") for name in names})],
        ancestors=ancestors or {},
    )  # fmt: skip
    scored = [ScoredReplicate(replicate, measured[replicate.digest, ""].images) for replicate in replicates]
    return compare(results_table("s", replicates, measured), design, scored)


def two_arms(
    images: int, *, lift: float = 0.0, folds: int = 2, seeds: int = 1
) -> dict[tuple[str, int, int], FloatArray]:
    return {
        (pathway, fold, seed): counts(pathway, 10 * fold + seed, images, lift=lift if pathway == "encode" else 0.0)
        for pathway, fold, seed in product(("none", "encode"), range(folds), range(seeds))
    }


def row_of(tables: Tables, aggregation: str, metric: str, class_: str = "macro") -> dict[str, Any]:
    (row,) = (
        row
        for row in tables.comparisons.to_pylist()
        if (row["pathway"], row["aggregation"], row["metric"], row["class"]) == ("encode", aggregation, metric, class_)
    )
    return row


def pooled_iou(pixels: FloatArray) -> FloatArray:
    """Return mean IoU of counts (..., images, classes, 4) summed over images."""
    tp, fp, fn, _ = np.moveaxis(pixels.sum(axis=-3), -1, 0)
    return np.asarray((tp / (tp + fp + fn)).mean(axis=-1))


def test_the_pooled_test_swaps_the_counts_of_a_patient_in_all_replicates_together() -> None:
    pixels = two_arms(16, lift=0.05)
    arm, base = (np.stack([pixels[name, fold, 0] for fold in range(2)]) for name in ("encode", "none"))

    def difference(first: FloatArray, second: FloatArray) -> float:
        return float((pooled_iou(first) - pooled_iou(second)).mean())

    observed, extreme = difference(arm, base), 0
    for code in range(2**8):
        swapped = np.repeat([bool(code >> patient & 1) for patient in range(8)], 2)[None, :, None, None]
        extreme += abs(difference(np.where(swapped, base, arm), np.where(swapped, arm, base))) >= abs(observed) - 1e-12
    row = row_of(study(pixels), "dataset", "mean_iou")
    assert row["difference"] == pytest.approx(observed)
    assert row["p"] == pytest.approx(extreme / 2**8)


def test_the_per_case_test_is_scipys_permutation_of_patient_sums() -> None:
    pixels = two_arms(16, lift=0.05)

    def dice(name: str) -> FloatArray:
        tp, fp, fn, _ = np.moveaxis(np.stack([pixels[name, fold, 0] for fold in range(2)]), -1, 0)
        return np.asarray((2 * tp / (2 * tp + fp + fn)).mean(axis=(0, 2)))

    sums = (dice("encode") - dice("none")).reshape(8, 2).sum(axis=1)
    expected = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=2**8)
    row = row_of(study(pixels), "case", "dice")
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["unit"], row["generalises_to"]) == ("patient", "these models, new patients")


def test_equal_networks_never_differ_for_any_number_of_folds() -> None:
    pixels = two_arms(40, folds=1)
    pixels = {(pathway, fold, 0): pixels[pathway, 0, 0] for pathway, fold in product(("none", "encode"), range(9))}
    one_fold = study({place: value for place, value in pixels.items() if place[1] == 0})
    repeated = study(pixels)
    for series in (("dataset", "mean_iou"), ("case", "dice")):
        assert row_of(repeated, *series)["p"] == pytest.approx(row_of(one_fold, *series)["p"])


def test_the_interval_of_a_mean_is_a_bootstrap_over_patients() -> None:
    pixels = two_arms(60, folds=1)
    row = row_of(study(pixels), "dataset", "mean_iou")
    by_patient = pixels["encode", 0, 0].reshape(30, 2, len(CLASSES), 4).sum(axis=1)
    random = np.random.default_rng(0)
    draws = [pooled_iou(by_patient[random.integers(0, 30, 30)]) for _ in range(4000)]
    level = stats.norm.cdf(-np.sqrt(30 / 29) * stats.t.ppf(0.975, 29))
    expected = np.quantile(draws, [level, 1 - level])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(expected), abs=0.004)


def test_the_probabilities_are_shares_of_the_bootstrap() -> None:
    row = row_of(study(two_arms(60, lift=0.08)), "case", "dice")
    assert row["p_better"] + row["p_equivalent"] + row["p_worse"] == pytest.approx(1)
    assert row["p_better"] > 0.5


def test_few_patients_have_neither_test_nor_interval_with_the_reason() -> None:
    row = row_of(study(two_arms(10)), "dataset", "mean_iou")
    assert {row[name] for name in ("p", "ci_low", "p_equivalent")} == {None}
    assert "5 test patients: too few for a test" in row["note"]


def test_eight_patients_have_a_test_and_no_interval() -> None:
    row = row_of(study(two_arms(16)), "dataset", "mean_iou")
    assert row["p"] is not None
    assert row["ci_low"] is None


def test_the_stronger_claim_requires_three_seeds_and_both_tests() -> None:
    two, three = (study(two_arms(40, lift=0.1, folds=1, seeds=seeds)) for seeds in (2, 3))
    assert row_of(two, "dataset", "mean_iou")["generalises_to"] == "these models, new patients"
    row = row_of(three, "dataset", "mean_iou")
    assert (row["generalises_to"], row["unit"]) == ("new training sets", "seed")
    pixels = two_arms(40, lift=0.1, folds=1, seeds=3)
    means = [pooled_iou(pixels["encode", 0, seed]) - pooled_iou(pixels["none", 0, seed]) for seed in range(3)]
    error = np.std(means, ddof=1) * np.sqrt(1 / 3 + 0.1 / 0.9)
    assert row["p"] == pytest.approx(max(1e-4, 2 * stats.t.sf(abs(np.mean(means)) / error, 2)))


@pytest.mark.parametrize("settings", [{"labelled": 1.0}, {"fixed_split": True}])
def test_seeds_with_the_same_training_images_do_not_support_the_stronger_claim(settings: dict[str, Any]) -> None:
    row = row_of(study(two_arms(40, lift=0.1, folds=1, seeds=3), **settings), "dataset", "mean_iou")
    assert row["generalises_to"] == "these models, new patients"


def test_one_pretraining_run_does_not_support_the_stronger_claim() -> None:
    chains = {f"encode-0-{seed}": ("one run",) for seed in range(3)}
    row = row_of(study(two_arms(40, lift=0.1, folds=1, seeds=3), ancestors=chains), "dataset", "mean_iou")
    assert row["generalises_to"] == "these models, new patients"


def test_a_metric_of_score_histograms_is_not_tested_pooled_and_refers_to_the_other_test() -> None:
    row = row_of(study(two_arms(40)), "dataset", "ece")
    assert row["p"] is None
    assert "see aggregation case" in row["note"]


def test_labels_equivalent_follow_the_bootstrap_of_the_difference_to_the_interpolated_baseline() -> None:
    levels = {8: -0.2, 16: -0.1, 32: 0.0}
    replicates, by_digest = [], {}
    for (size, lift), pathway in product(levels.items(), ("none", "encode")):
        record = ReplicateRecord(
            factors=dict(zip(FACTORS, key(pathway), strict=True)), labelled_fraction=size / 32, labelled_images=size,
            updates=1, fold=0, seed=0, digest=f"{pathway}-{size}",
        )  # fmt: skip
        replicates.append(record)
        by_digest[record.digest] = counts(pathway, size, 60, lift=lift + (0.1 if pathway == "encode" else 0.0))
    measured = measure_all(replicates, lambda record: tables_of(by_digest[record.digest]), MetricSettings())
    family = Family(name="pathway=none", pairs={key(name): key("none") for name in ("none", "encode")})
    design = replace(Design(folds=1, seeds=1, families=[family]), fixed_test=True)
    scored = [ScoredReplicate(record, measured[record.digest, ""].images) for record in replicates]
    tables = compare(results_table("s", replicates, measured), design, scored)
    rows = {
        row["labelled_images"]: row
        for row in tables.comparisons.to_pylist()
        if (row["pathway"], row["aggregation"], row["metric"], row["class"]) == ("encode", "case", "dice", "macro")
    }
    assert rows[8]["labels_equivalent"] == pytest.approx(16, rel=0.1)
    assert rows[8]["labels_equivalent_low"] < 16 < rows[8]["labels_equivalent_high"] < 32
    assert rows[8]["labels_saved"] == pytest.approx(rows[8]["labels_equivalent"] - 8)
    assert rows[32]["labels_equivalent_side"] == "above"


def test_a_metric_defined_on_other_images_in_the_baseline_is_not_tested() -> None:
    pixels = two_arms(40)
    silent = pixels["encode", 0, 0].copy()
    silent[::2, :, 2] += silent[::2, :, 0]
    silent[::2, :, 3] += silent[::2, :, 1]
    silent[::2, :, :2] = 0  # nothing is predicted in every second image: precision is undefined there
    pixels |= {("encode", fold, 0): silent for fold in range(2)}
    row = row_of(study(pixels), "case", "precision")
    assert {row[name] for name in ("p", "p_better", "labels_saved")} == {None}
    assert "undefined in other replicates" in row["note"]
    assert row_of(study(pixels), "case", "dice")["p"] is not None
