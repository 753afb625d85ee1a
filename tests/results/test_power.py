"""What the headline test finds, and what it lets pass, over thousands of studies."""

import numpy as np
import pytest

from results.inference import Array, holm, paired_t

FOLDS, SEEDS, STUDIES = 5, 5, 4000


def p_values(effect: float, *, ratio: float = 1 / (FOLDS - 1), shared: float = 0.5, seed: int = 0) -> Array:
    """Return p of each study; `shared` is the correlation of differences within a study that folds bring about."""
    random = np.random.default_rng(seed)
    common = random.normal(0, np.sqrt(shared / (FOLDS - 1)), (STUDIES, 1, 1))
    folds = random.normal(0, np.sqrt(shared), (STUDIES, FOLDS, 1))
    differences = effect + common + folds + random.normal(0, np.sqrt(1 - shared), (STUDIES, FOLDS, SEEDS))
    flat = differences.reshape(STUDIES, -1)
    return paired_t(flat.mean(axis=1), flat.std(axis=1, ddof=1), np.full(STUDIES, flat.shape[1] * 1.0), ratio)[1]


def test_equal_arms_are_called_different_in_at_most_one_of_twenty_studies() -> None:
    assert (p_values(0.0) < 0.05).mean() <= 0.05


def test_without_the_correction_equal_arms_would_be_called_different_far_too_often() -> None:
    assert (p_values(0.0, ratio=0.0) < 0.05).mean() > 0.2


def test_a_difference_of_two_standard_deviations_is_found_nearly_always() -> None:
    assert (p_values(2.0) < 0.05).mean() > 0.9


@pytest.mark.parametrize("arms", [2, 6])
def test_holm_keeps_the_chance_of_any_false_call_with_many_arms(arms: int) -> None:
    p = np.random.default_rng(1).random((STUDIES, arms))
    called = np.mean([(holm(study) < 0.05).any() for study in p])
    assert called <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / STUDIES)
