"""Post-processing of masks: empty-mask rule, smallest area, largest component, and rules of several networks."""

import numpy as np
import pytest
from scipy.ndimage import label

from datasets.large import temporary_array
from results.metrics import lesions
from results.postprocessing.rules import ClassRule, EmptyMaskRule, postprocess

EMPTY = EmptyMaskRule(top=0.8, area=10, bottom=0.4)


def blobs(shape: tuple[int, ...]) -> np.ndarray:
    """Return a random mask with components of many sizes."""
    random = np.random.default_rng(0).random(shape)
    return random < 0.35


@pytest.mark.parametrize("shape", [(60, 50), (9, 20, 21)])
@pytest.mark.parametrize("rule", [
    ClassRule(smallest_area=4), ClassRule(largest_component=True), ClassRule(smallest_area=3, largest_component=True),
    ClassRule(smallest_area=10**6),
])  # fmt: skip
def test_components_are_removed_by_size(shape: tuple[int, ...], rule: ClassRule) -> None:
    mask = blobs(shape)
    labels, count = label(mask, np.ones((3,) * len(shape)))
    sizes = np.bincount(labels.ravel())
    kept = [number for number in range(1, count + 1) if sizes[number] >= rule.smallest_area]
    if rule.largest_component:
        kept = [number for number in kept if number == 1 + sizes[1:].argmax()]
    expected = np.isin(labels, kept)
    postprocess(mask, rule)
    np.testing.assert_array_equal(mask, expected)


def test_a_large_mask_in_a_file_is_post_processed_like_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = blobs((90, 70))
    mask = temporary_array(expected.shape, np.bool_)
    mask[:] = expected
    rule = ClassRule(smallest_area=5)
    postprocess(expected, rule)
    monkeypatch.setattr(lesions, "is_large", lambda *_: True)
    monkeypatch.setattr(
        lesions, "row_bands", lambda height, _: (slice(top, min(top + 7, height)) for top in range(0, height, 7))
    )
    postprocess(mask, rule)
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(("top_pixels", "is_empty"), [(0, True), (9, True), (10, False), (500, False)])
def test_a_mask_is_empty_below_the_area_at_the_upper_threshold(top_pixels: int, is_empty: bool) -> None:
    mask = blobs((20, 20))
    before = mask.copy()
    postprocess(mask, ClassRule(empty=EMPTY), top_pixels=top_pixels)
    np.testing.assert_array_equal(mask, np.zeros_like(before) if is_empty else before)


def test_an_empty_mask_stays_empty() -> None:
    mask = np.zeros((5, 5), np.bool_)
    postprocess(mask, ClassRule(smallest_area=3, largest_component=True))
    assert not mask.any()


def test_areas_scale_with_the_number_of_pixels() -> None:
    scaled = ClassRule(empty=EMPTY, smallest_area=5, largest_component=True).scaled(4.0)
    assert scaled == ClassRule(
        empty=EmptyMaskRule(top=0.8, area=40, bottom=0.4), smallest_area=20, largest_component=True
    )
    tiny = ClassRule(empty=EMPTY).scaled(1e-6).empty
    assert tiny is not None
    assert tiny.area == 1


def test_rules_of_several_networks_are_combined_by_medians_and_majorities() -> None:
    rules = [
        ClassRule(empty=EMPTY, smallest_area=0, largest_component=True),
        ClassRule(empty=EmptyMaskRule(top=0.6, area=30, bottom=0.5), smallest_area=7),
        ClassRule(smallest_area=100, largest_component=True),
    ]
    assert ClassRule.combined(rules) == ClassRule(
        empty=EmptyMaskRule(top=0.7, area=20, bottom=0.45), smallest_area=7, largest_component=True
    )
    assert ClassRule.combined(rules[1:]).largest_component is False
    assert ClassRule.combined(rules[1:]).empty is None


def test_a_rule_is_restored_from_its_record() -> None:
    for rule in (ClassRule(), ClassRule(empty=EMPTY, smallest_area=3, largest_component=True)):
        assert ClassRule.from_record(rule.record()) == rule
