"""Selected rules are those with the best mean Dice on the cases, compared with an exhaustive search."""

from itertools import product

import numpy as np
import pytest

from models.score_bins import SCORE_BINS, SCORE_EDGES
from results.postprocessing.choose import (
    CaseComponents,
    choose_empty_rule,
    choose_largest_component,
    choose_smallest_area,
)
from results.postprocessing.rules import EmptyMaskRule

Case = tuple[np.ndarray, np.ndarray]
"""Probabilities and true mask of one image."""


def cases(seed: int, *, images: int = 12, pixels: int = 40) -> list[Case]:
    """Return images of which half have no true pixel; probabilities are random and higher where the truth is."""
    random = np.random.default_rng(seed)
    truths = [random.random(pixels) < (0.3 if number % 2 else 0.0) for number in range(images)]
    return [(np.clip(random.beta(1, 3, pixels) + 0.4 * truth * random.random(), 0, 0.999), truth) for truth in truths]


def histograms(images: list[Case]) -> tuple[np.ndarray, np.ndarray]:
    """Return the score histograms of positive and negative pixels."""
    bins = [np.searchsorted(SCORE_EDGES, probabilities.astype(np.float32), side="right") for probabilities, _ in images]
    binned = [(place, truth) for place, (_, truth) in zip(bins, images, strict=True)]
    positives, negatives = (
        np.stack([np.bincount(place[truth == value], minlength=SCORE_BINS) for place, truth in binned])
        for value in (True, False)
    )
    return positives.astype(float), negatives.astype(float)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    total = mask.sum() + truth.sum()
    return float(2 * (mask & truth).sum() / total) if total else 1.0


def mean_dice(images: list[Case], rule: EmptyMaskRule | None, threshold: float = 0.5) -> float:
    values = []
    for probabilities, truth in images:
        mask = probabilities >= (threshold if rule is None else rule.bottom)
        if rule is not None and (probabilities >= rule.top).sum() < rule.area:
            mask = np.zeros_like(mask)
        values.append(dice(mask, truth))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(6))
def test_the_empty_mask_rule_is_the_best_of_all(seed: int) -> None:
    images = cases(seed)
    steps = [step / 20 for step in range(1, 20)]
    candidates = [
        mean_dice(images, EmptyMaskRule(top=top, area=area, bottom=bottom))
        for bottom, top, area in product(steps, steps, range(1, 42))
        if bottom <= top
    ]
    rule = choose_empty_rule(*histograms(images), threshold=0.5)
    assert mean_dice(images, rule) == pytest.approx(max(*candidates, mean_dice(images, None)))


def test_without_improvement_there_is_no_empty_mask_rule() -> None:
    probabilities = np.array([0.9, 0.9, 0.1, 0.1])
    images = [(probabilities, probabilities > 0.5), (np.full(4, 0.1), np.zeros(4, np.bool_))]
    assert choose_empty_rule(*histograms(images), threshold=0.5) is None


def components(seed: int, images: int = 8) -> list[CaseComponents]:
    random = np.random.default_rng(seed)
    component_list = []
    for _ in range(images):
        sizes = random.integers(1, 60, random.integers(0, 9))
        tp = (sizes * (random.random(len(sizes)) < sizes / 60)).astype(np.int64)
        component_list.append(
            CaseComponents(sizes=sizes, tp=tp, fp=sizes - tp, truth=int(tp.sum() + random.integers(0, 5)))
        )
    return component_list


@pytest.mark.parametrize("seed", range(5))
def test_the_selected_area_is_the_smallest_of_the_best_ones(seed: int) -> None:
    component_list = components(seed)

    def mean(area: int) -> float:
        return float(np.mean([case.dice(case.sizes >= area) for case in component_list]))

    scores = [mean(area) for area in range(62)]
    chosen = choose_smallest_area(component_list)
    assert scores[chosen] == pytest.approx(max(scores))
    assert all(score < max(scores) - 1e-12 for score in scores[:chosen])


def test_only_the_largest_component_is_kept_if_this_is_better() -> None:
    def case(*tp: int) -> CaseComponents:
        return CaseComponents(sizes=np.array([20, 5]), tp=np.array(tp), fp=np.array([20, 5]) - np.array(tp), truth=25)

    assert choose_largest_component([case(20, 0)], 0)
    assert not choose_largest_component([case(20, 5)], 0)
    assert not choose_largest_component([case(20, 0)], 6)  # the other component was removed already
    assert not choose_largest_component([], 0)


def test_a_correctly_empty_mask_has_a_dice_of_one() -> None:
    none = np.zeros(0, np.int64)
    assert CaseComponents(sizes=none, tp=none, fp=none, truth=0).dice(np.zeros(0, np.bool_)) == 1.0
    assert CaseComponents(sizes=none, tp=none, fp=none, truth=3).dice(np.zeros(0, np.bool_)) == 0.0
