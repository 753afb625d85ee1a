"""Summary of the comparisons in the report."""

import math
from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.report.answers import answer, best_cell, notes, one_per_cell, select_records
from results.report.grids import class_grid, grid_of_tests, labels_saved, main_grid
from results.report.page import Grid, Items, Text
from results.statistics import design


def record(pathway: str, size: int, **changes: object) -> dict[str, Any]:
    text = dict.fromkeys(("baseline", "test", "note", "labels_equivalent_side"), "")
    place = {"study": "s", "architecture": "unet", "backbone": "r", "initial_weights": "w", "pathway": pathway}
    numbers = {"labelled_fraction": size / 32, "labelled_images": size, "mean": 0.5, "n": 10}
    claim = {"unit": "fold and seed", "generalises_to": design.TRAINING, "rope": 0.01, "provisional": False}
    return {**place, **numbers, **schema.HEADLINE, **text, **claim, "ci_low": 0.4, "ci_high": 0.6, **changes}


def table(*records: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema.comparisons())


def compared(p: float | None, difference: float = 0.2, size: int = 8, **changes: object) -> dict[str, Any]:
    numbers: dict[str, Any] = {"mean": 0.5 + difference, "difference": difference, "p_adjusted": p}
    return record("two_step", size, **numbers | {"baseline": "pathway=none"} | changes)


BASE = {"baseline": "pathway=none", "note": "baseline itself"}
NONE = record("none", 8, **BASE)
FAILED = {"note": "3 of 5 replicates; 2 of 5 replicates failed; not compared"}


def test_the_summary_names_the_best_cell_with_its_interval() -> None:
    first = answer(table(NONE, compared(0.01)))[0]
    mean = "a mean IoU of 0.700 (95 % interval 0.400 to 0.600)"
    assert first == f"With 8 labelled images, two_step reached {mean}, the highest of 2 cells."


def test_a_significant_difference_is_stated_with_its_size_and_p() -> None:
    second = answer(table(NONE, compared(0.012), compared(0.4, -0.1, 16)))[1]
    assert second == (
        "Its difference to the baseline is +0.200 (adjusted p 0.012). Of the 2 comparisons with the baseline "
        "(pathway=none), 1 came out significantly better and 0 significantly worse (adjusted p below 0.05)."
    )


def test_with_several_baselines_a_difference_names_its_baseline() -> None:
    second = answer(table(NONE, compared(0.2), compared(0.01, baseline="pathway=one")))[1]
    assert second.startswith("Its difference to the baseline (pathway=one) is +0.200 (adjusted p 0.01). Of the 2")
    assert "with a baseline (pathway=none; pathway=one), 1 came out" in second


def test_a_missing_significant_difference_is_stated_without_a_claim_of_equality() -> None:
    second = answer(table(NONE, compared(0.21), compared(0.4, 0.1, 16)))[1]
    assert second == (
        "Nothing is statistically significant: the smallest adjusted p of the 2 comparisons with the baseline "
        "(pathway=none) is 0.21. This does not show that the arms are equal."
    )
    assert "the adjusted p of the one comparison with the baseline" in answer(table(NONE, compared(0.21)))[1]


def test_the_best_cell_may_be_insignificant_when_another_is_significant() -> None:
    second = answer(table(NONE, compared(0.5, 0.3), compared(0.01, 0.1, 16)))[1]
    assert "+0.300 (adjusted p 0.50, not significant)" in second


def test_the_best_cell_may_be_the_baseline() -> None:
    second = answer(table(NONE | {"mean": 0.9}, compared(0.01, -0.2)))[1]
    assert second.startswith("It is the baseline itself. Of the one comparison")
    assert "0 came out significantly better and 1 significantly worse" in second


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([record("none", 8)], "No baseline was named, so no difference was tested."),
        ([NONE, compared(None)], "No difference to the baseline could be tested: there are too few replicates."),
        (
            [NONE, compared(None, note="one fold: no corrected test")],
            "No difference to the baseline could be tested: one fold: no corrected test.",
        ),
    ],
)
def test_the_reason_for_a_missing_test_is_stated(records: list[dict[str, Any]], words: str) -> None:
    assert answer(table(*records))[1] == words


def test_notes_shared_with_the_baseline_are_not_a_reason_for_a_missing_test() -> None:
    fixed = "fixed test set: tested over patients; last epoch taken"
    few = f"{fixed}; 5 test patients: too few for a test (6) and an interval (10)"
    second = answer(table(NONE | {"note": f"{fixed}; baseline itself"}, compared(None, note=few)))[1]
    assert second == (
        "No difference to the baseline could be tested: 5 test patients: too few for a test (6) and an interval (10)."
    )


def test_a_missing_interval_or_mean_is_stated() -> None:
    assert "(no interval)" in answer(table(record("none", 8, ci_low=None, ci_high=None)))[0]
    assert answer(table(record("none", 8, mean=None))) == ["There is no result yet."]
    assert answer(table()) == ["There is no result yet."]


def test_no_best_cell_is_named_while_a_cell_is_provisional() -> None:
    records = (NONE, compared(0.001), record("late", 8, provisional=True))
    assert answer(table(*records)) == [
        "The study is not complete: 1 of 3 cells, or their baselines, lack replicates. All numbers are provisional, "
        "and no best cell is named."
    ]
    assert best_cell(select_records(table(*records))) is None


def test_provisional_cells_of_another_metric_do_not_prevent_the_summary() -> None:
    other = record("two_step", 8, metric="auc", provisional=True)
    assert "two_step reached a mean IoU" in answer(table(NONE, compared(0.01), other))[0]


def test_an_arm_with_failed_replicates_is_not_the_best_and_is_named_as_not_compared() -> None:
    failed = compared(None, 0.4, **FAILED) | {"pathway": "broken"}
    lines = answer(table(NONE, compared(0.01), failed))
    assert "two_step reached a mean IoU of 0.700" in lines[0]
    assert "the highest of 2 cells" in lines[0]
    assert lines[-1] == "Not compared, because replicates failed: broken with 8 labelled images."


def test_failed_cells_are_named_by_their_labelled_images() -> None:
    failed = [compared(None, 0.4, size, **FAILED) for size in (8, 16)]
    lines = answer(table(NONE, *failed, compared(0.01, 0.1, 32)))
    assert lines[-1] == "Not compared, because replicates failed: two_step with 8, 16 labelled images."


def test_failed_arms_are_named_in_an_incomplete_study() -> None:
    records = (compared(None, 0.4, **FAILED), record("late", 8, provisional=True))
    assert answer(table(NONE, *records))[-1].startswith("Not compared, because replicates failed: two_step")


def test_if_every_cell_failed_the_summary_states_it() -> None:
    lines = answer(table(compared(None, 0.4, **FAILED)))
    assert lines[0] == "No cell has all its replicates."
    assert lines[1].startswith("Not compared, because replicates failed: two_step")


def test_arms_without_significant_difference_to_the_best_are_counted() -> None:
    near = [record(name, 8, p_to_best=p) for name, p in (("a", 0.3), ("b", 0.05), ("c", 0.01), ("untested", None))]
    lines = answer(table(NONE, compared(0.01), *near, record("a", 16, p_to_best=0.3)))
    assert lines[1] == (
        "With as many labels, 2 of the 3 other arms did not differ significantly from it (p adjusted by Holm over all "
        "pairs)."
    )


def test_arms_close_to_the_best_are_matched_by_images_although_fractions_differ() -> None:
    near = [record(name, 8, p_to_best=0.3, labelled_fraction=share) for name, share in (("a", 0.26), ("b", 0.24))]
    lines = answer(table(compared(0.01), *near))
    assert lines[1].startswith("With as many labels, none of the 2 other arms differed significantly from it (")


def test_a_single_arm_close_to_the_best_is_named() -> None:
    lines = answer(table(NONE | {"p_to_best": 0.3}, compared(0.01)))
    assert lines[1].startswith("With as many labels, the one other arm did not differ significantly from it")


def test_equivalence_is_stated_if_it_is_probable() -> None:
    chances = {"p_better": 0.02, "p_equivalent": 0.97, "p_worse": 0.01}
    lines = answer(
        table(NONE, compared(0.6, 0.001, **chances), compared(0.6, 0.1, 16, **chances | {"p_equivalent": 0.9}))
    )
    assert lines[2] == (
        "1 of 2 comparisons shows practical equivalence: with a probability of at least 0.95, the difference is at "
        "most 0.01 in either direction."
    )
    assert not any("equivalence" in line for line in answer(table(NONE, compared(0.01))))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (design.TRAINING, "newly trained models on new patients"),
        (design.PATIENTS, "these trained networks on new patients, not for newly trained ones"),
        (
            design.TRAINING + design.AT_SETTINGS,
            "newly trained models on new patients (at the settings that the search found)",
        ),
    ],
)
def test_the_summary_states_what_tests_and_intervals_generalise_to(claim: str, words: str) -> None:
    changes = {"generalises_to": claim}
    assert answer(table(NONE | changes, compared(0.01, **changes)))[-1] == f"Tests and intervals hold for {words}."


def test_the_summary_of_one_pretraining_run_claims_no_test() -> None:
    changes = {"generalises_to": design.ONE_RUN}
    lines = answer(table(NONE | changes, compared(None, **changes)))
    assert lines[-1] == "Intervals hold for this one pretraining run only."


def test_a_summary_without_a_claim_has_no_sentence_on_it() -> None:
    changes = {"generalises_to": None}
    assert not any("hold for" in line for line in answer(table(NONE | changes, compared(0.01, **changes))))


OLDER = table(NONE, compared(0.01)).drop_columns(["generalises_to", "provisional", "rope"])


def test_comparisons_of_an_older_version_need_another_run() -> None:
    assert answer(OLDER) == [
        "An older version wrote the tables of this study, and its tests are not shown. Run the study again."
    ]


def test_values_of_an_older_version_are_in_no_table() -> None:
    assert main_grid(OLDER).rows == []
    assert class_grid(OLDER, "mean_iou") is None
    assert [type(block) for block in labels_saved(OLDER)] == [Text]


def masks(*records: dict[str, Any]) -> tuple[Items | Text, list[str]]:
    """Return the summary, and the last columns of the first row: needed, interval, saved, adjusted p, baseline."""
    curve = [record("none", size, **BASE) for size in (8, 16, 32)]
    summary, grid, _ = labels_saved(table(*curve, *records))
    assert isinstance(summary, Items | Text)
    assert isinstance(grid, Grid)
    return summary, [entry.text for entry in grid.rows[0]][2:]


WITHIN = {"labels_equivalent": 21.2, "labels_equivalent_low": 14.0, "labels_equivalent_high": math.inf}
WITHIN |= {"labels_equivalent_side": "within", "labels_saved": 13.2}


def test_masks_saved_are_a_sentence_and_a_row() -> None:
    summary, row = masks(compared(0.01, **WITHIN))
    assert isinstance(summary, Items)
    assert list(summary.items) == [
        "With 8 masks, two_step reached the result for which the baseline (pathway=none) needs about 21 masks "
        "(95 % interval 14 to more than 32): about 13 saved."
    ]
    assert row == ["21", "14 to more than 32", "+13", "0.01", "pathway=none"]


def test_without_a_significant_difference_no_masks_saved_are_stated() -> None:
    summary, row = masks(compared(0.59, **WITHIN | {"labels_saved": None}))
    assert summary == Text(text="No difference with equally many masks is significant, so masks saved are not stated.")
    assert row == ["21", "14 to more than 32", "", "0.59", "pathway=none"]


@pytest.mark.parametrize(
    ("side", "low", "high", "expected"),
    [
        ("above", 20.0, math.inf, ["more than 32", "20 to more than 32", ""]),
        ("below", -math.inf, 12.0, ["fewer than 8", "fewer than 8 to 12", ""]),
        ("", None, None, ["not tested", "", ""]),
    ],
)
def test_masks_outside_the_measured_range_are_stated_in_words(
    side: str, low: float | None, high: float | None, expected: list[str]
) -> None:
    ends = {"labels_equivalent_low": low, "labels_equivalent_high": high, "labels_equivalent_side": side}
    assert masks(compared(0.01, **ends))[1][:3] == expected


def test_masks_outside_the_measured_range_are_sorted_after_those_within_it() -> None:
    sides = [compared(0.01, size=size, **WITHIN | {"labels_equivalent_low": -math.inf, "labels_equivalent_side": side})
             for size, side in ((8, "above"), (16, "within"), (32, "below"))]  # fmt: skip
    _, grid, _ = labels_saved(table(*(record("none", size, **BASE) for size in (8, 16, 32)), *sides))
    assert isinstance(grid, Grid)
    assert [row[2].value for row in grid.rows] == [33, 21.2, 7]
    assert all(math.isfinite(row[3].value or 0.0) for row in grid.rows)


def test_significant_differences_without_a_learning_curve_state_no_masks_saved() -> None:
    assert masks(compared(0.01))[0] == Text(text="Masks saved could not be tested.")


def test_the_main_table_has_a_row_for_each_cell_with_dice_and_the_best_in_bold() -> None:
    dice = record("two_step", 8, metric="dice", aggregation="case", mean=0.8, baseline="pathway=none")
    chances = {"p_better": 0.9, "p_equivalent": 0.08, "p_worse": 0.02, "effect_size": 1.5}
    grid = main_grid(table(NONE, compared(0.0004, **chances), dice))
    assert [column.name for column in grid.columns][:5] == [
        "pathway", "labelled images", "mean IoU (pooled)", "95 % interval", "Dice (per case)"
    ]  # fmt: skip
    best = grid.rows[1]
    assert [entry.text for entry in best] == [
        "two_step", "8", "0.700", "0.400 to 0.600", "0.800", "10", "+0.200", "< 0.001", "90 % / 8 % / 2 %", "+1.50",
        "new training sets", "",
    ]  # fmt: skip
    assert [entry.strong for entry in best].count(True) == 2
    assert not any(entry.strong for entry in grid.rows[0])


def test_pooled_dice_is_not_shown_as_dice_per_case() -> None:
    grid = main_grid(table(record("none", 8), record("none", 8, metric="dice", mean=0.8)))
    assert grid.rows[0][4].text == ""


def test_the_caption_explains_equivalence_if_probabilities_are_shown() -> None:
    chances = {"p_better": 0.9, "p_equivalent": 0.08, "p_worse": 0.02, "rope": 0.02}
    explained = "equivalent means a difference of at most 0.02 in either direction"
    assert explained in main_grid(table(NONE, compared(0.01, **chances))).caption
    assert "equivalent means" not in main_grid(table(NONE, compared(None))).caption


def test_nothing_in_the_main_table_is_bold_while_a_cell_is_provisional() -> None:
    records = (NONE, compared(0.001, provisional=True, note="provisional: replicates are missing"))
    assert not any(entry.strong for row in main_grid(table(*records)).rows for entry in row)


def test_an_arm_with_failed_replicates_is_not_bold_at_the_best_mean() -> None:
    failed = compared(None, 0.2, **FAILED) | {"pathway": "broken"}
    _, _, row = main_grid(table(NONE, compared(0.01), failed)).rows
    assert not any(entry.strong for entry in row)


def test_two_baselines_have_a_row_each_and_count_as_one_cell() -> None:
    other = compared(0.2) | {"baseline": "pathway=one"}
    both = table(NONE, compared(0.01), other)
    assert "baseline" in [column.name for column in main_grid(both).columns]
    assert len(one_per_cell(select_records(both))) == 2


def test_classes_are_shown_side_by_side_at_the_largest_amount_of_labels() -> None:
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


def test_arms_with_equal_numbers_of_images_share_the_table_of_classes_although_fractions_differ() -> None:
    cells = [record("a", 32), record("b", 32, labelled_fraction=0.98)]
    grid = class_grid(table(*cells, *(line | {"class": "lung"} for line in cells)), "mean_iou")
    assert grid is not None
    assert [row[0].text for row in grid.rows] == ["a", "b"]


NUMBERS = {"pairs": 10, "difference": 0.1, "ci_low": 0.05, "ci_high": 0.15, "p": 0.01, "p_adjusted": 0.0002}
WORDS = {"baseline": "pathway=none", "test": "t", "unit": "fold", "generalises_to": "new training sets"}


def listed(line: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([line], schema.paired_tests())


def test_every_test_is_listed_with_its_generalisation() -> None:
    grid = grid_of_tests(listed(record("two_step", 8) | NUMBERS | WORDS))
    assert grid is not None
    expected = [entry.text for entry in grid.rows[0]]
    assert expected[:7] == ["two_step", "8", "+0.100", "0.050 to 0.150", "0.01", "< 0.001", "10"]
    assert expected[7:] == ["fold (dataset)", "new training sets", "t", ""]


def test_tests_of_an_older_version_are_not_listed() -> None:
    line = record("two_step", 8) | NUMBERS | WORDS
    assert grid_of_tests(listed(line).drop_columns(["generalises_to"])) is None


def test_notes_are_counted_by_cell() -> None:
    noted_records = [record("none", size, note="9 of 10 replicates; baseline itself") for size in (8, 16)]
    assert list(notes(noted_records)) == ["9 of 10 replicates (2 cells)"]


def test_a_note_of_a_cell_with_one_of_two_baselines_is_counted() -> None:
    both = [NONE, record("none", 8, baseline="pathway=one", note="paired differences do not vary")]
    assert list(notes(both)) == ["paired differences do not vary (1 cell)"]
