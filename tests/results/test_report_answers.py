"""What the page says of the comparisons."""

from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.report_answers import answer, chosen, notes, once
from results.report_grids import class_grid, grid_of_tests, labels_saved, main_grid


def record(pathway: str, size: int, **given: object) -> dict[str, Any]:
    text = dict.fromkeys(("baseline", "test", "note"), "")
    place = {"study": "s", "architecture": "unet", "backbone": "r", "initial_weights": "w", "pathway": pathway}
    series = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "mean_iou"}
    numbers = {"labelled_fraction": size / 32, "labelled_images": size, "mean": 0.5, "n": 10}
    return {**place, **numbers, **series, **text, "ci_low": 0.4, "ci_high": 0.6, **given}


def table(*records: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema.comparisons())


BASE = {"baseline": "pathway=none", "note": "baseline itself"}


def compared(p: float | None, difference: float = 0.2, size: int = 8) -> dict[str, Any]:
    return record("two_step", size, mean=0.5 + difference, difference=difference, p_adjusted=p, baseline="pathway=none")


def test_the_answer_names_the_best_cell_with_its_interval() -> None:
    first = answer(table(record("none", 8, **BASE), compared(0.01)))[0]
    mean = "a mean IoU of 0.700 (95 % interval 0.400 to 0.600)"
    assert first == f"With 8 labelled images, two_step reached {mean}, the highest of 2 cells."


def test_a_significant_difference_is_told_with_its_size_and_p() -> None:
    second = answer(table(record("none", 8, **BASE), compared(0.012), compared(0.4, -0.1, 16)))[1]
    assert second == (
        "Its difference to the baseline is +0.200 (adjusted p 0.012); of 2 comparisons with the baseline "
        "(pathway=none), 1 came out significantly better and 0 significantly worse (adjusted p below 0.05)."
    )


def test_that_nothing_is_significant_is_said_plainly() -> None:
    second = answer(table(record("none", 8, **BASE), compared(0.21), compared(0.4, 0.1, 16)))[1]
    assert second.startswith("Nothing is statistically significant: none of the 2 comparisons")
    assert "(the smallest is 0.21), which does not show that the arms are equal" in second


def test_the_best_cell_may_be_worse_off_than_others_and_still_not_significant_itself() -> None:
    second = answer(table(record("none", 8, **BASE), compared(0.5, 0.3), compared(0.01, 0.1, 16)))[1]
    assert "+0.300 (adjusted p 0.50, not significant)" in second


def test_the_best_cell_may_be_the_baseline() -> None:
    second = answer(table(record("none", 8, **{**BASE, "mean": 0.9}), compared(0.01, -0.2)))[1]
    assert second.startswith("It is the baseline itself; of 1 comparisons")
    assert "0 came out significantly better and 1 significantly worse" in second


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record("none", 8)], "No baseline was named, so no difference was tested."),
        (
            [record("none", 8, **BASE), compared(None)],
            "No difference to the baseline could be tested: there are too few",
        ),
    ],
)
def test_without_a_test_the_answer_says_why(records: list[dict[str, Any]], said: str) -> None:
    assert answer(table(*records))[1].startswith(said)


def test_without_an_interval_or_a_mean_the_answer_says_so() -> None:
    assert "(too few folds for an interval)" in answer(table(record("none", 8, ci_low=None, ci_high=None)))[0]
    assert answer(table(record("none", 8, mean=None))) == ["There is no result yet."]
    assert answer(table()) == ["There is no result yet."]


def test_masks_saved_are_a_sentence_and_a_row() -> None:
    saving = compared(0.01) | {"labels_equivalent": 21.0, "labels_equivalent_low": 14.0, "labels_saved": 13.0}
    sentences, grid, _ = labels_saved(table(record("none", 8, **BASE), saving))
    said = "With 8 masks, two_step reaches what the baseline (pathway=none) needs 21 (14 to not reached) for: 13 saved."
    assert list(sentences.items) == [said]  # type: ignore[union-attr]
    assert [entry.text for entry in grid.rows[0]][2:5] == ["21", "14 to not reached", "+13"]  # type: ignore[union-attr]


def test_masks_saved_that_no_arm_reaches_are_said_to_be_unknown() -> None:
    above = compared(0.01) | {"note": "not reached by the baseline at any size"}
    block, grid, _ = labels_saved(table(record("none", 8, **BASE), above))
    assert block.text.startswith("No arm's mean lies on the baseline's curve")  # type: ignore[union-attr]
    assert [entry.text for entry in grid.rows[0]][-1] == "not reached by the baseline at any size"  # type: ignore[union-attr]


def test_the_main_grid_has_a_row_a_cell_with_dice_beside_it_and_the_best_bold() -> None:
    dice = record("two_step", 8, metric="dice", mean=0.8, baseline="pathway=none")
    grid = main_grid(table(record("none", 8, **BASE), compared(0.0004), dice))
    assert [column.name for column in grid.columns][:3] == ["pathway", "labelled images", "mean IoU"]
    best = grid.rows[1]
    assert [entry.text for entry in best] == [
        "two_step", "8", "0.700", "0.400 to 0.600", "0.800", "10", "+0.200", "< 0.001", "", ""
    ]  # fmt: skip
    assert [entry.strong for entry in best].count(True) == 2
    assert not any(entry.strong for entry in grid.rows[0])


def test_two_baselines_give_a_row_each_and_count_as_one_cell() -> None:
    other = compared(0.2) | {"baseline": "pathway=one"}
    both = table(record("none", 8, **BASE), compared(0.01), other)
    assert "baseline" in [column.name for column in main_grid(both).columns]
    assert len(once(chosen(both))) == 2


def test_classes_stand_side_by_side_at_the_most_labelled_images() -> None:
    lung = [
        record(pathway, 32, metric="dice", **{"class": "lung", "mean": mean})
        for pathway, mean in (("a", 0.6), ("b", 0.9))
    ]
    macro = [record(pathway, 32, metric="dice", mean=mean) for pathway, mean in (("a", 0.6), ("b", 0.9))]
    grid = class_grid(table(record("a", 8, metric="dice"), *lung, *macro), "dice")
    assert grid is not None
    assert [[entry.text for entry in row] for row in grid.rows] == [
        ["b", "0.900 (0.400 to 0.600)", "0.900 (0.400 to 0.600)"],
        ["a", "0.600 (0.400 to 0.600)", "0.600 (0.400 to 0.600)"],
    ]


def test_every_test_is_listed_with_what_it_generalises_to() -> None:
    numbers = {"pairs": 10, "difference": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p": 0.01, "p_adjusted": 0.0002}
    words = {"baseline": "pathway=none", "test": "t", "unit": "fold", "generalises_to": "new training sets"}
    grid = grid_of_tests(pa.Table.from_pylist([record("two_step", 8) | numbers | words], schema.paired_tests()))
    assert grid is not None
    shown = [entry.text for entry in grid.rows[0]]
    assert shown[:7] == ["two_step", "8", "+0.100", "0.050 to 0.150", "0.01", "< 0.001", "10"]
    assert shown[7:] == ["fold (dataset)", "new training sets", "t", ""]


def test_remarks_are_counted_by_cell() -> None:
    remarked = [record("none", size, note="9 of 10 replicates; baseline itself") for size in (8, 16)]
    assert list(notes(remarked)) == ["9 of 10 replicates (2 cells)"]
