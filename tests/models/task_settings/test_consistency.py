"""Settings of consistency: unused settings of a method are refused; defaults."""

import pytest

from models.settings import SegmentationSettings, pool_of
from models.task_settings.consistency import ConsistencyBlock, ConsistencySettings, consistency_of


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            {"method": "fixmatch", "momentum": 0.9},
            r"momentum is 0.9 under fixmatch; allowed: under mean_teacher; remove",
        ),
        (
            {"method": "mean_teacher", "confidence": 0.9},
            r"confidence is 0.9 under .*; allowed: under fixmatch or unimatch",
        ),
        ({"method": "cross_pseudo", "feature_dropout": 0}, r"feature_dropout is 0 under .*; allowed: under unimatch"),
    ],
)
def test_settings_unused_by_a_method_are_refused(block: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConsistencyBlock.model_validate(block)


@pytest.mark.parametrize("method", ["mean_teacher", "fixmatch", "unimatch", "cross_pseudo"])
def test_settings_at_their_defaults_are_accepted_for_any_method(method: str) -> None:
    block = ConsistencyBlock.model_validate({"method": method})
    assert ConsistencyBlock.model_validate(block.model_dump(mode="json")) == block


@pytest.mark.parametrize(
    ("method", "cutmix", "strong", "views"),
    [
        ("mean_teacher", 0.0, 1, 2),
        ("mean_teacher", 0.5, 1, 3),
        ("fixmatch", 0.5, 1, 3),
        ("unimatch", 0.0, 2, 3),
        ("unimatch", 0.5, 2, 4),
        ("cross_pseudo", 0.0, 0, 1),
        ("cross_pseudo", 1.0, 1, 3),
    ],
)
def test_views_are_the_weak_one_strong_ones_and_that_of_the_partner(
    method: str, cutmix: float, strong: int, views: int
) -> None:
    block = ConsistencyBlock.model_validate({"method": method, "cutmix": cutmix})
    assert (block.strong_views, block.views) == (strong, views)


def test_only_the_mean_teacher_has_a_ramp_up_by_default() -> None:
    shares = {
        method: ConsistencyBlock.model_validate({"method": method}).ramp_up_share
        for method in ("mean_teacher", "fixmatch", "unimatch", "cross_pseudo")
    }
    assert shares == {"mean_teacher": 0.2, "fixmatch": 0.0, "unimatch": 0.0, "cross_pseudo": 0.0}
    assert ConsistencyBlock.model_validate({"method": "fixmatch", "ramp_up": 0.1}).ramp_up_share == 0.1


def test_the_pool_is_that_of_the_block() -> None:
    settings = ConsistencySettings.model_validate({"consistency": {"unlabelled": "all"}})
    assert (pool_of(ConsistencySettings()), pool_of(settings), pool_of(SegmentationSettings())) == (
        "hidden",
        "all",
        None,
    )
    assert consistency_of(settings) == settings.consistency
    assert consistency_of(SegmentationSettings()) is None
