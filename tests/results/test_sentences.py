"""Saved labels in words."""

from typing import Any

from results.render import render
from results.sentences import labels_sentences
from results.tables import table
from tests.results.test_tables import compared, record

CURVE = [record("none", share) for share in (0.25, 0.5, 1.0)]


def two_step(share: float = 0.25, **given: object) -> dict[str, Any]:
    labels = {"labels_equivalent": 20.6, "labels_equivalent_low": 12.4, "labels_equivalent_high": 30.1}
    return record("two_step", share) | {"baseline": "pathway=none", "note": ""} | labels | given


def said(*records: dict[str, Any]) -> list[str]:
    baselines = [line | {"baseline": "pathway=none"} for line in CURVE]
    return list(labels_sentences(compared(*baselines, *records).to_pylist()))


def test_masks_of_the_baseline_are_told_with_their_interval() -> None:
    assert said(two_step()) == ["With 8 masks, two_step reaches what none needs 21 (12 to 30) for."]


def test_ends_that_the_curve_does_not_reach_are_said_to_be_beyond_it() -> None:
    (line,) = said(two_step(labels_equivalent_low=None, labels_equivalent_high=None))
    assert "needs 21 (fewer than 8 to more than 32) for" in line


def test_without_an_interval_none_is_told() -> None:
    (line,) = said(two_step(ci_low=None, ci_high=None))
    assert "needs 21 for" in line


def test_what_the_baseline_never_reaches_is_said() -> None:
    (line,) = said(two_step(labels_equivalent=None, note="not reached by the baseline at any size"))
    assert line == "With 8 masks, two_step reaches what none does not reach with up to 32."


def test_an_arm_below_its_baseline_is_said_to_be() -> None:
    (line,) = said(two_step(labels_equivalent=None, note="9 of 10 replicates; below the baseline at every size"))
    assert line == "With 8 masks, two_step stays below what none reaches with 8."


def test_the_fewest_masks_count_and_not_the_finest_saving() -> None:
    (line,) = said(two_step(0.5, labels_equivalent=32.0), two_step(0.25))
    assert line.startswith("With 8 masks")


def test_arms_are_named_by_all_factors_that_vary() -> None:
    lines = said(two_step(), two_step(backbone="resnet18"))
    assert lines[1].startswith("With 8 masks, resnet18 / two_step reaches")


def test_nothing_is_said_without_a_baselines_curve() -> None:
    assert list(labels_sentences([two_step(baseline="")])) == []
    assert list(labels_sentences([two_step()])) == []


def test_sentences_stand_below_the_headline_table_and_no_other() -> None:
    records = [line | {"baseline": "pathway=none"} for line in CURVE]
    dice = [line | {"metric": "dice"} for line in (*records, two_step())]
    both = compared(*records, two_step(), *dice)
    assert "With 8 masks" in render(table(both), "md")
    assert "With 8 masks" not in render(table(both, metric="dice"), "md")
