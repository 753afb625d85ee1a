"""Error rates and coverage of the tables of simulated studies, 200 per design.

Each study of the catalog has 50, because they have many cells. The bench does the same with 1,000 studies and more
designs (`python -m tests.bench coverage`). Seeds are fixed; bounds allow two standard errors.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.statistics.power import detectable_over_replicates
from tests.simulation import catalog, earlier_rules, measures
from tests.simulation.designs import Pretraining, document, fixed_split
from tests.simulation.effects import advantages, true_difference, with_advantage, with_pretraining
from tests.simulation.measures import Share
from tests.simulation.studies import (
    METRICS,
    Layout,
    Simulated,
    SimulationResult,
    comparisons,
    metric_values,
    plan_study,
    simulate,
    train_replicates,
)
from tests.simulation.worlds import BALANCED, FLAT, INFLUENTIAL, STEADY, STEEP, Learner, score

STUDIES = 200
FEW_AND_ALL = (0.1, 1.0)
LEVELS = (0.1, 0.4, 0.7, 1.0)
LABELS_OF_A1: dict[str, Any] = {"pretraining": "own labels", "pretrained": [1], "minutes": {"mask": 8, "class": 2.4}}
"""The labels of all training images, used only by the last of two arms, cost as much as 30 % of the masks."""


def study(folds: int, seeds: int = 1, *, learner: Learner = BALANCED, **settings: Any) -> Simulated:  # noqa: ANN401
    return Simulated(name="simulated", document=document(folds=folds, seeds=seeds, **settings), learner=learner)


def pretrained(folds: int, seeds: int, kind: Pretraining, multiple: float) -> Simulated:
    return with_pretraining(study(folds, seeds, pretraining=kind, learner=STEADY), multiple)


def equal_in_hours(simulated: Simulated) -> Simulated:
    """Return the study in which arm a1 is worth 30 % more masks than it trains on."""
    worth = dict(zip(LEVELS, (*LEVELS[1:], 1.0), strict=True))
    return replace(simulated, effects=replace(simulated.effects, labels={"a1": worth}))


def assert_goals_met(shares: Iterable[Share]) -> None:
    missed = [share for share in shares if not share.within_goal]
    assert not missed


@lru_cache
def of_folds_and_seeds(folds: int, seeds: int) -> SimulationResult:
    return simulate(study(folds, seeds, labelled=FEW_AND_ALL), STUDIES)


CROSS_VALIDATED = [name for name in catalog.names() if not catalog.is_fixed(catalog.catalog_document(name))]
FIXED = {
    "9 folds, 10 test patients": study(9, images=100, images_per_patient=1, split=fixed_split(10)),
    "3 seeds, 11 test patients": study(1, 3, images=60, images_per_patient=1, split=fixed_split(11, by_folds=False)),
}


@lru_cache
def of_fixed_test(name: str, swapped: bool) -> SimulationResult:
    return simulate(replace(FIXED[name], swapped=swapped), STUDIES, truth=not swapped)


def layout_of(simulated: Simulated) -> Layout:
    return plan_study(simulated, 0, np.random.default_rng(0))[0]


@pytest.mark.parametrize(
    "simulated",
    [study(3, labelled=(0.5, 1.0), arms=3), study(3, images=30, images_per_patient=1, split=fixed_split(10))],
)
def test_worlds_compared_together_equal_worlds_compared_separately(simulated: Simulated) -> None:
    random = np.random.default_rng(0)
    layout = layout_of(simulated)
    weights, images, strength = train_replicates(layout, simulated, 3, random)
    pixels = score(images, weights, tested=layout.tested, boost=strength)
    scores, present = metric_values(pixels, layout.tested), np.ones((layout.arms, layout.positions), dtype=bool)
    columns = ["mean", "ci_low", "ci_high", "p", "p_adjusted", "p_to_best", "p_equivalent", "labels_equivalent_low"]

    def compared_lines(worlds: slice) -> pd.DataFrame:
        part = {metric: values[worlds] for metric, values in scores.items()}
        lines = comparisons(layout, part, present, worlds.start, pixels[worlds]).lines
        return lines.set_index(["world", "aggregation", "arm_number", "level_number"])[columns].sort_index()

    together = compared_lines(slice(0, 3))
    for world in range(3):
        separate = compared_lines(slice(world, world + 1))
        np.testing.assert_allclose(separate.to_numpy(), together.loc[[world]].to_numpy(), rtol=1e-9)


def test_folds_are_redrawn_by_seed() -> None:
    layout = layout_of(study(5, 3))
    assert len(np.unique(layout.tested, axis=0)) == 15


@pytest.mark.parametrize(("kind", "runs"), [("shared", 3), ("own seed", 1), ("per fold", 15), ("none", 15)])
def test_pretraining_runs_are_those_shared_in_the_plan(kind: Pretraining, runs: int) -> None:
    layout = layout_of(study(5, 3, pretraining=kind))
    assert [len(np.unique(arm)) for arm in layout.runs] == [runs, runs]


@pytest.mark.parametrize(("folds", "seeds"), [(5, 1), (5, 3), (5, 10), (9, 1)])
def test_equal_arms_rarely_differ_over_folds_and_seeds(folds: int, seeds: int) -> None:
    assert_goals_met(measures.errors(of_folds_and_seeds(folds, seeds)))


@pytest.mark.parametrize(("folds", "seeds"), [(5, 1), (5, 3), (5, 10), (9, 1)])
def test_intervals_cover_the_expected_score_over_folds_and_seeds(folds: int, seeds: int) -> None:
    assert_goals_met(measures.coverage(of_folds_and_seeds(folds, seeds)))


def test_intervals_over_fold_means_miss_the_expected_score_with_ten_seeds() -> None:
    assert earlier_rules.fold_interval_misses(of_folds_and_seeds(5, 10).values, 1) > 0.2


def test_without_the_correction_equal_arms_differ_too_often() -> None:
    p = earlier_rules.paired_t_p(earlier_rules.differences(of_folds_and_seeds(5, 10).values))
    assert (p < 0.05).mean() > 0.2


@pytest.mark.parametrize(("folds", "seeds", "multiple"), [(3, 2, 7), (5, 3, 0), (5, 3, 1), (5, 5, 2)])
def test_equal_arms_rarely_differ_if_folds_share_pretraining(folds: int, seeds: int, multiple: float) -> None:
    outcome = simulate(pretrained(folds, seeds, "shared", multiple), STUDIES)
    assert_goals_met([*measures.errors(outcome), *measures.coverage(outcome)])


@pytest.mark.parametrize(("seeds", "kind"), [(1, "shared"), (3, "own seed")])
def test_one_pretraining_run_supports_no_test(seeds: int, kind: Pretraining) -> None:
    outcome = simulate(pretrained(5, seeds, kind, 1), STUDIES // 2)
    assert_goals_met([measures.claims_from_one_run(outcome)])


def test_equal_arms_rarely_differ_if_each_fold_has_its_own_pretraining() -> None:
    outcome = simulate(pretrained(5, 3, "per fold", 1), STUDIES)
    assert_goals_met([*measures.errors(outcome), *measures.coverage(outcome)])


@pytest.mark.parametrize("name", FIXED)
def test_swapped_outputs_rarely_differ_on_a_fixed_test_set(name: str) -> None:
    assert_goals_met([share for metric in METRICS for share in measures.errors(of_fixed_test(name, True), metric)])


@pytest.mark.parametrize("name", FIXED)
def test_intervals_cover_the_scores_of_these_models_on_new_patients(name: str) -> None:
    assert_goals_met([share for metric in METRICS for share in measures.coverage(of_fixed_test(name, False), metric)])


@pytest.mark.parametrize("labelled", [0.1, 0.6])
def test_equal_procedures_are_rarely_claimed_to_differ_for_new_training_sets(labelled: float) -> None:
    split = fixed_split(60, by_folds=False)
    outcome = simulate(
        study(1, 3, images=140, images_per_patient=1, split=split, labelled=(labelled,), learner=INFLUENTIAL), STUDIES
    )
    assert_goals_met([measures.stronger_claims(outcome, metric) for metric in METRICS])


def test_folds_shared_by_all_seeds_count_once() -> None:
    outcome = simulate(study(5, 3, labelled=FEW_AND_ALL, split={"seed": 0}), STUDIES)
    assert_goals_met([*measures.errors(outcome), *measures.coverage(outcome)])


def test_a_t_test_over_replicates_calls_swapped_outputs_different_in_most_studies() -> None:
    p = earlier_rules.paired_t_p(earlier_rules.differences(of_fixed_test("9 folds, 10 test patients", True).values))
    assert (p < 0.05).mean() > 0.5


def test_an_arm_with_a_failed_replicate_is_neither_compared_nor_best_and_the_others_err_rarely() -> None:
    outcome = simulate(replace(study(5, 3, arms=4), failing=1), STUDIES)
    assert_goals_met([measures.failed_arm_is_used(outcome), *measures.errors(outcome), measures.daggers(outcome)])


def test_an_incomplete_study_claims_nothing() -> None:
    outcome = simulate(replace(study(5, 3, arms=4), missing=0.5), STUDIES // 2)
    assert_goals_met([measures.claims_of_partial_study(outcome)])


@pytest.mark.parametrize("arms", [5, 10])
def test_an_equal_arm_is_rarely_called_worse_than_the_best(arms: int) -> None:
    assert_goals_met([measures.daggers(simulate(study(5, 1, arms=arms), STUDIES))])


@pytest.mark.parametrize("learner", [FLAT, BALANCED], ids=["flat", "rising"])
def test_equal_arms_are_rarely_claimed_to_save_labels(learner: Learner) -> None:
    outcome = simulate(study(5, 3, labelled=(0.25, 0.5, 1.0), learner=learner), STUDIES)
    assert_goals_met([measures.label_claims(outcome)])


def test_the_interval_of_equivalent_labels_covers_the_truth_of_an_arm_worth_twice_its_labels() -> None:
    plain = study(5, 3, labelled=(0.25, 0.5, 1.0))
    worth = replace(plain.effects, labels={"a1": {0.25: 0.5, 0.5: 1.0, 1.0: 1.0}})
    outcome = simulate(replace(plain, effects=worth), STUDIES)
    assert_goals_met([measures.labels_covered(outcome, 1, {0: 1, 1: 2})])


@pytest.mark.parametrize("learner", [FLAT, BALANCED], ids=["flat", "rising"])
def test_equal_arms_are_rarely_claimed_to_save_or_cost_hours(learner: Learner) -> None:
    simulated = study(5, 3, labelled=(0.25, 0.5, 1.0), learner=learner, minutes={"mask": 8, "class": 2})
    assert_goals_met([measures.hours_claims(simulate(simulated, STUDIES))])


def test_an_arm_whose_labels_cost_the_hours_saved_in_masks_is_rarely_claimed_to_save_or_cost_hours() -> None:
    simulated = study(5, 3, images=120, labelled=LEVELS, learner=STEEP, **LABELS_OF_A1)
    outcome = simulate(equal_in_hours(simulated), STUDIES)
    assert measures.detection_rate(outcome, 1) > 0.5
    assert_goals_met([measures.hours_claims(outcome)])


def test_hours_saved_are_reported_for_an_arm_that_saves_masks_and_hours() -> None:
    cheap = LABELS_OF_A1 | {"minutes": {"mask": 8, "class": 0.1}}
    simulated = study(5, 3, images=120, labelled=LEVELS, learner=STEEP, **cheap)
    assert measures.hours_claims(simulate(equal_in_hours(simulated), STUDIES // 4)).share > 0.5


@pytest.mark.parametrize(("arms", "learner", "settings"), [
    (5, BALANCED, {"minutes": {"mask": 8}}), (2, FLAT, LABELS_OF_A1), (2, BALANCED, {"minutes": {"mask": 8}}),
])  # fmt: skip
def test_an_equal_arm_is_rarely_called_worse_than_the_best_at_equal_hours(
    arms: int, learner: Learner, settings: dict[str, Any]
) -> None:
    simulated = study(5, 3, arms=arms, labelled=(0.25, 0.5, 1.0), learner=learner, hours=(3.5, 5.0), **settings)
    assert_goals_met([measures.budget_daggers(simulate(simulated, STUDIES))])


@pytest.mark.parametrize("name", FIXED)
def test_swapped_outputs_are_rarely_called_different_at_equal_hours_on_a_fixed_test_set(name: str) -> None:
    plain = FIXED[name]
    target, compared = plain.document["data"]["hospital"], plain.document["compare"]
    document = plain.document | {
        "data": {"hospital": target | {"annotation_minutes": {"mask": 8}}},
        "compare": compared | {"labelled_fraction": [0.5, 1.0], "hours": [6.3]},
    }
    outcome = simulate(replace(plain, document=document, swapped=True), STUDIES)
    assert_goals_met([measures.budget_daggers(outcome, metric) for metric in METRICS])


@pytest.mark.parametrize(("seeds", "kind", "multiple"), [(3, "none", 0), (5, "shared", 1)])
def test_arms_that_differ_by_the_region_of_equivalence_are_rarely_called_equivalent(
    seeds: int, kind: Pretraining, multiple: float
) -> None:
    make = partial(study, 5, seeds, pretraining=kind, learner=STEADY)
    different = with_advantage(with_pretraining(make(), multiple), "a1", 0.3)
    rope = true_difference(different, STUDIES)
    outcome = simulate(replace(different, document=make(rope=rope).document), STUDIES)
    assert_goals_met([measures.called_equivalent(outcome, 1)])


def test_the_stated_detectable_difference_is_significant_in_most_studies() -> None:
    plain = study(5, 3, learner=STEADY)
    stated = detectable_over_replicates(5, 3)
    once, more = (
        measures.detection_rate(simulate(with_advantage(plain, "a1", advantage), STUDIES), 1)
        for advantage in advantages(plain, "a1", [stated, 1.5 * stated], STUDIES // 2).tolist()
    )
    assert once >= measures.POWER - measures.two_standard_errors(measures.POWER, STUDIES)
    assert more >= measures.POWER


@pytest.mark.parametrize("name", CROSS_VALIDATED)
def test_equal_arms_of_the_catalog_rarely_differ(name: str) -> None:
    outcome = simulate(catalog.simulated(name), STUDIES // 4)
    assert_goals_met([measures.errors(outcome)[-1], measures.daggers(outcome), measures.label_claims(outcome)])
