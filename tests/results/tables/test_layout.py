"""Tables: layout of cells, marks and explanations, and every format."""

import csv
import html.parser
import io
import json
import math
from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.statistics import design
from results.tables.layout import Cell, Table, default_table, table
from results.tables.render import FORMATS, render

MEANS = {("none", 0.5): 0.571, ("none", 1.0): 0.65, ("encode", 0.5): 0.612}


def record(pathway: str, fraction: float, **changes: object) -> dict[str, Any]:
    itself = pathway == "none"
    mean = MEANS.get((pathway, fraction), 0.5)
    test: dict[str, Any] = {} if itself else {"difference": 0.041, "p": 0.015, "p_adjusted": 0.03}
    place = {"study": "s", "architecture": "unet", "backbone": "vgg16", "initial_weights": "random"}
    claim = {"unit": "fold and seed", "generalises_to": design.TRAINING, "rope": 0.01, "provisional": False}
    return {
        **place,
        **schema.HEADLINE,
        **test,
        **claim,
        "pathway": pathway,
        "labelled_fraction": fraction,
        "labelled_images": int(32 * fraction),
        "mean": mean,
        "ci_low": mean - 0.03,
        "ci_high": mean + 0.03,
        "n": 10,
        "baseline": "pathway: none",
        "test": "",
        "labels_equivalent_side": "",
        "note": "baseline itself" if itself else "3 folds are few",
        **changes,
    }


def compared(*records: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema.comparisons())


SMALL = compared(record("none", 1.0), record("none", 0.5), record("encode", 0.5))


def test_markdown_shows_mean_interval_difference_and_the_best_in_bold() -> None:
    assert render(table(SMALL), "md") == (
        "mean_iou (macro, dataset, test), mean (95 % interval); difference to the baseline (pathway: none), "
        "p adjusted by Holm; study s, architecture unet, backbone vgg16, initial_weights random; "
        "columns: labelled_fraction\n"
        "\n"
        "| pathway | 0.5 | 1 |\n"
        "| --- | --- | --- |\n"
        "| none | 0.571 (0.541 to 0.601) baseline | 0.650 (0.620 to 0.680) baseline |\n"
        "| encode | **0.612** (0.582 to 0.642) +0.041* p=0.03 | not run |\n"
        "\n"
        "The sign * marks differences with an adjusted p below 0.05.\n"
        "Bold marks the best mean of a column, which by itself is no evidence of a difference.\n"
        "Tests and intervals hold for newly trained models on new patients.\n"
        "Notes (number of cells): 3 folds are few (1).\n"
    )


def test_json_is_a_list_of_records_with_the_documented_keys() -> None:
    records = json.loads(render(table(SMALL), "json"))
    assert len(records) == 3
    keys = {"pathway", "labelled_fraction", "metric", "mean", "ci_low", "ci_high", "n"}
    assert keys | {"difference", "p", "p_adjusted", "note"} <= set(records[0])
    encode = next(row for row in records if row["pathway"] == "encode")
    assert (encode["mean"], encode["p"], encode["p_adjusted"]) == (0.612, 0.015, 0.03)


def test_json_has_the_generalisation_of_each_number_and_whether_it_is_provisional() -> None:
    cell = record("encode", 0.5, p_better=0.9, p_equivalent=0.08, p_worse=0.02, labels_equivalent_side="above")
    _, encode = json.loads(render(table(compared(record("none", 0.5), cell)), "json"))
    assert (encode["generalises_to"], encode["unit"]) == ("new training sets", "fold and seed")
    assert [encode[name] for name in ("p_better", "p_equivalent", "p_worse", "rope")] == [0.9, 0.08, 0.02, 0.01]
    assert (encode["provisional"], encode["labels_equivalent_side"]) == (False, "above")


ENDS = {"labels_equivalent": 12.0, "labels_equivalent_low": -math.inf, "labels_equivalent_high": math.inf}
OPEN = compared(record("none", 0.5), record("encode", 0.5, **ENDS))


def test_limits_outside_the_measured_range_are_null_in_json() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    _, encode = json.loads(render(table(OPEN), "json"), parse_constant=refuse)
    assert (encode["labels_equivalent_low"], encode["labels_equivalent_high"]) == (None, None)
    assert encode["labels_equivalent"] == 12.0


def test_limits_outside_the_measured_range_are_empty_in_csv() -> None:
    _, encode = csv.DictReader(io.StringIO(render(table(OPEN), "csv")))
    assert (encode["labels_equivalent_low"], encode["labels_equivalent_high"]) == ("", "")


def test_csv_has_the_same_records_as_json() -> None:
    rows = list(csv.DictReader(io.StringIO(render(table(SMALL), "csv"))))
    records = json.loads(render(table(SMALL), "json"))
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in records]
    assert list(rows[0]) == list(records[0])


def test_html_is_well_formed_and_escapes_names() -> None:
    text = render(table(compared(record("<none> & all", 0.5), record("b", 0.5))), "html")
    open_tags: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Parser().feed(text)
    assert open_tags == []
    assert "&lt;none&gt; &amp; all" in text


def test_latex_escapes_names_and_closes_every_environment() -> None:
    text = render(table(SMALL), "latex")
    assert r"mean\_iou" in text
    assert r"none & 0.571 (0.541 to 0.601) baseline &" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2


def test_latex_has_the_rules_of_booktabs_and_bold_for_the_best() -> None:
    text = render(table(SMALL), "latex")
    rules = [line for line in text.splitlines() if line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"\textbf{0.612} (0.582 to 0.642)" in text
    assert r"\hline" not in text


NEAR = compared(
    record("best", 0.5, mean=0.7),
    record("near", 0.5, mean=0.69, difference_to_best=-0.01, p_to_best=0.4),
    record("far", 0.5, mean=0.4, difference_to_best=-0.3, p_to_best=0.001),
    record("unknown", 0.5, mean=0.3, difference_to_best=-0.4),
)


def test_only_cells_without_significant_difference_to_the_best_have_a_dagger() -> None:
    text = render(table(NEAR), "md")
    assert "| near | 0.690† (0.4" in text
    assert "| far | 0.400 (" in text
    assert "| best | **0.700** (" in text
    assert (
        "The sign † marks cells that do not differ significantly from the best of their column, which does not" in text
    )


def test_cells_that_were_not_tested_against_the_best_are_counted() -> None:
    assert "Cells not tested against the best of their column: 1." in render(table(NEAR), "md")


def test_no_cell_has_a_dagger_if_the_columns_are_not_the_sizes_of_the_test() -> None:
    assert "†" not in render(table(NEAR, columns="backbone", rows=["pathway"]), "md")


def provisional(*names: str, **changes: object) -> pa.Table:
    """Return the cells above, some of them provisional, with tests that must not be shown."""
    lines = [line | changes if line["pathway"] in names else line for line in NEAR.to_pylist()]
    return compared(*(line | {"provisional": line["pathway"] in names} for line in lines))


def test_a_column_with_a_provisional_cell_has_no_best_and_no_dagger() -> None:
    cells = [cell for (cell,) in table(provisional("far")).grid if cell]
    assert [cell.best for cell in cells] == [False] * 4
    assert [cell.close for cell in cells] == [None] * 4


def test_a_column_marks_its_best_while_another_is_provisional() -> None:
    render_with_two_baselines = [record("best", 1.0, mean=0.7, provisional=True), record("near", 1.0, mean=0.6)]
    text = render(table(compared(*NEAR.to_pylist(), *render_with_two_baselines)), "md")
    assert "| best | **0.700** (0.470 to 0.530) +0.041* p=0.03 | 0.700 (0.470 to 0.530) +0.041 provisional |" in text


def test_a_provisional_difference_has_no_star_no_p_no_probabilities_and_no_equivalence() -> None:
    text = render(table(provisional("far", p_better=0.01, p_equivalent=0.98, p_worse=0.01)), "md")
    assert "| far | 0.400 (0.470 to 0.530) +0.041 provisional |" in text
    assert "≈" not in text


def test_a_provisional_baseline_is_marked() -> None:
    assert "| none | 0.571 (0.541 to 0.601) baseline provisional |" in render(
        table(compared(record("none", 0.5, provisional=True), record("encode", 0.5))), "md"
    )


def test_a_provisional_cell_without_a_baseline_is_marked() -> None:
    cells = [record(name, 0.5, baseline="", difference=None, p_adjusted=None, provisional=True) for name in ("a", "b")]
    assert "| a | 0.500 (0.470 to 0.530) provisional |" in render(table(compared(*cells)), "md")


def test_the_footer_counts_provisional_cells_once_for_all_metrics() -> None:
    cells = [record("none", 0.5, provisional=True), record("encode", 0.5)]
    text = render(default_table(compared(*cells, *map(dice, cells))), "md")
    assert "Provisional: 1 of 2 cells, or their baselines, lack replicates." in text


def test_an_arm_with_failed_replicates_is_not_the_best_even_with_the_highest_mean() -> None:
    failed = record("failed", 0.5, mean=0.9, note="3 of 5 replicates; 2 of 5 replicates failed; not compared")
    text = render(table(compared(*NEAR.to_pylist(), failed)), "md")
    assert "| failed | 0.900 (0.470 to 0.530)" in text
    assert "| best | **0.700** (" in text


def test_an_arm_with_failed_replicates_is_not_the_best_at_the_same_mean() -> None:
    failed = record("failed", 0.5, mean=0.7, note="3 of 5 replicates; 2 of 5 replicates failed; not compared")
    assert "| failed | 0.700 (" in render(table(compared(*NEAR.to_pylist(), failed)), "md")


@pytest.mark.parametrize(
    "note", ["2 of 5 replicates failed; not compared", "not compared: replicates of the baseline failed"]
)
def test_the_reason_is_shown_for_a_cell_not_compared_because_of_failed_replicates(note: str) -> None:
    cell = record("encode", 0.5, difference=None, p=None, p_adjusted=None, note=note)
    assert "| encode | 0.612 (0.582 to 0.642) not compared |" in render(
        table(compared(record("none", 0.5), cell)), "md"
    ).replace("**", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"provisional": True, "note": "0 of 5 replicates"}, "not run"),
        ({"note": "0 of 5 replicates; 5 of 5 replicates failed; not compared"}, "failed"),
        ({"note": "undefined in 5 of 5"}, "undefined"),
        ({"provisional": True, "note": "2 of 5 replicates; undefined in 2 of 2"}, "undefined"),
    ],
)
def test_a_cell_without_a_mean_shows_the_reason(changes: dict[str, Any], expected: str) -> None:
    assert f"| b | {expected} |" in render(
        table(compared(record("none", 0.5), record("b", 0.5, mean=None, **changes))), "md"
    )


CHANCES = {"p_better": 0.028, "p_equivalent": 0.962, "p_worse": 0.01, "difference": 0.001, "p_adjusted": 0.59}


def test_probabilities_of_better_equivalent_and_worse_are_shown_in_percent_and_explained() -> None:
    text = render(table(compared(record("none", 0.5), record("encode", 0.5, **CHANCES | {"p_equivalent": 0.9}))), "md")
    assert "+0.001 p=0.59 [3/90/1] |" in text
    assert "[better/equivalent/worse]: probabilities, in percent, of how the cell compares with its baseline." in text
    assert "Equivalent means a difference of at most 0.01 in either direction." in text
    assert "≈" not in text


def test_an_equivalent_cell_has_an_explained_mark() -> None:
    text = render(table(compared(record("none", 0.5), record("encode", 0.5, **CHANCES))), "md")
    assert "+0.001≈ p=0.59 [3/96/1] |" in text
    assert "The sign ≈ marks cells that are equivalent with a probability of at least 0.95." in text


def test_only_marks_that_are_shown_are_explained() -> None:
    text = render(table(compared(record("none", 0.5), record("encode", 0.5, p_adjusted=0.4))), "md")
    assert not any(mark in text for mark in ("The sign", "[better", "Provisional", "Notes (number of cells): baseline"))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (design.TRAINING, "newly trained models on new patients"),
        (design.PATIENTS, "these trained networks on new patients, not for newly trained ones"),
        (design.ONE_RUN, "this one pretraining run only"),
    ],
)
def test_the_footer_states_what_the_numbers_generalise_to(claim: str, words: str) -> None:
    cells = (record("none", 0.5, generalises_to=claim), record("encode", 0.5, generalises_to=claim))
    assert f"\nTests and intervals hold for {words}.\n" in render(table(compared(*cells)), "md")


def test_the_footer_states_that_settings_come_from_a_search() -> None:
    claim = design.TRAINING + design.AT_SETTINGS
    cells = (record("none", 0.5, generalises_to=claim), record("encode", 0.5, generalises_to=claim))
    words = "newly trained models on new patients (at the settings that the search found)."
    assert words in render(table(compared(*cells)), "md")


def test_the_settings_of_a_search_are_named_before_missing_claims() -> None:
    claim = design.PATIENTS + design.AT_SETTINGS
    cells = (record("none", 0.5, generalises_to=claim), record("encode", 0.5, generalises_to=claim))
    words = "on new patients (at the settings that the search found), not for newly trained ones."
    assert words in render(table(compared(*cells)), "md")


def test_without_a_test_the_footer_refers_to_intervals_only() -> None:
    cells = [record(name, 0.5, p_adjusted=None, generalises_to=design.ONE_RUN) for name in ("none", "encode")]
    text = render(table(compared(*cells)), "md")
    assert "\nIntervals hold for this one pretraining run only.\n" in text
    assert "Tests" not in text


def test_a_stronger_claim_of_a_test_does_not_apply_to_its_interval() -> None:
    weak, strong = {"generalises_to": design.PATIENTS}, {"generalises_to": design.TRAINING, "test": design.STRONGER}
    cells = (record("none", 0.5, **weak), record("encode", 0.5, **weak), record("two_step", 0.5, **strong))
    text = render(table(compared(*cells)), "md")
    assert "Tests hold for newly trained models on new patients (two_step)." in text
    assert "Tests hold for these trained networks on new patients, not for newly trained ones (encode)." in text
    assert "Intervals hold for these trained networks on new patients, not for newly trained ones.\n" in text


def test_records_without_a_claim_have_no_sentence_on_it() -> None:
    cells = (record("none", 0.5, generalises_to=None), record("encode", 0.5, generalises_to=None))
    assert "hold for" not in render(table(compared(*cells)), "md")


def test_latex_writes_marks_as_symbols() -> None:
    text = render(table(compared(*NEAR.to_pylist(), record("encode", 0.5, **CHANCES))), "latex")
    assert r"0.690$^{\dagger}$" in text
    assert r"+0.001$\approx$ p=0.59" in text
    assert text.isascii()


def test_constant_factors_are_in_the_caption_and_not_in_the_rows() -> None:
    laid = table(SMALL)
    assert laid.rows == ("pathway",)
    assert "architecture unet" in laid.caption


def test_any_factor_can_be_the_columns() -> None:
    laid = table(SMALL, columns="pathway")
    assert laid.rows == ("labelled_fraction",)
    assert laid.column_labels == ("none", "encode")


def test_columns_of_sizes_are_in_numeric_order() -> None:
    cells = [record("none", size, labelled_images=int(size * 100)) for size in (1.0, 0.05, 0.5)]
    assert table(compared(*cells), columns="labelled_images").column_labels == ("5", "50", "100")


def test_the_smallest_value_is_best_where_lower_is_better() -> None:
    cells = [record("a", 0.5, metric="ece", mean=0.2), record("b", 0.5, metric="ece", mean=0.1)]
    best = [cell.best for (cell,) in table(compared(*cells), metric="ece").grid if cell]
    assert best == [False, True]


def test_one_of_several_baselines_is_shown_unless_all_are_requested() -> None:
    scratch = record("encode", 0.5, baseline="scratch", difference=0.2, p_adjusted=None)
    both = compared(record("none", 0.5), record("encode", 0.5), scratch)
    assert "+0.041" in render(table(both), "md")
    assert "+0.200" in render(table(both, baseline="scratch"), "md")
    assert len(table(both, rows=["pathway", "baseline"]).row_labels) == 3


OTHER = {"baseline": "scratch", "mean": 0.4, "ci_low": 0.3, "ci_high": 0.5}


def render_with_two_baselines(**changes: object) -> str:
    both = compared(record("encode", 0.5), record("boxes", 0.5, **OTHER | changes))
    return render(table(both, baseline="pathway: none"), "md")


def test_a_cell_keeps_its_mean_if_its_difference_belongs_to_another_baseline() -> None:
    assert "| boxes | 0.400 (0.300 to 0.500) |" in render_with_two_baselines(
        p_better=0.9, p_equivalent=0.1, p_worse=0.0
    )


def test_the_baseline_of_another_family_is_not_shown_as_the_baseline() -> None:
    assert "| boxes | 0.400 (0.300 to 0.500) |" in render_with_two_baselines(note="baseline itself")


def test_a_cell_is_not_provisional_because_of_another_baseline() -> None:
    text = render_with_two_baselines(provisional=True, note="provisional: replicates of the baseline are missing")
    assert "rovisional" not in text
    assert "| encode | **0.612** (" in text


def test_rows_without_a_varying_factor_are_refused_with_the_factor() -> None:
    with pytest.raises(ValueError, match="rows are architecture; allowed: all that vary; add pathway"):
        table(SMALL, rows=["architecture"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "iou"}, "metric is iou; allowed: mean_iou; choose"),
        ({"class_": "lung"}, "class is lung; allowed: macro; choose"),
        ({"split": "train"}, "split is train; allowed: test; choose"),
        ({"columns": "size"}, "columns is size; allowed: study, architecture"),
        ({"rows": ["loss"]}, "rows is loss; allowed: study, architecture"),
        ({"baseline": "scratch"}, "baseline is scratch; allowed: pathway: none; choose"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(SMALL, **options)


def test_a_table_without_comparisons_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing yet"):
        table(compared())


def test_comparisons_of_an_older_version_are_refused() -> None:
    message = "the comparisons of s were written by an older version; allowed: those of this version; run the study"
    with pytest.raises(ValueError, match=message):
        default_table(SMALL.drop_columns(["generalises_to", "provisional"]))


def test_a_metric_missing_in_comparisons_of_an_older_version_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="metric is auc; allowed: mean_iou"):
        table(SMALL.drop_columns(["generalises_to"]), metric="auc")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format is pdf; allowed: md, csv, json, latex, html"):
        render(table(SMALL), "pdf")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_ends_its_last_line(name: str) -> None:
    assert render(table(SMALL), name).endswith("\n")


def test_columns_are_the_size_varied_by_the_study() -> None:
    by_number = compared(
        *(record(name, share, labelled_images=16) for name, share in (("none", 0.51), ("encode", 0.49)))
    )
    assert table(by_number).columns == "labelled_images"
    assert table(SMALL).columns == "labelled_fraction"


def dice(line: dict[str, Any], **changes: object) -> dict[str, Any]:
    return line | {"metric": "dice", "aggregation": "case"} | changes


CELLS = [record("none", 0.5), record("none", 1.0), record("encode", 0.5), record("encode", 1.0)]


def both(*cells: dict[str, Any]) -> Table:
    return default_table(compared(*(cells or [*CELLS, *(dice(line, mean=0.9 - line["mean"]) for line in CELLS)])))


def test_the_default_table_has_mean_iou_and_dice_of_each_size_side_by_side() -> None:
    assert both().column_labels == (
        "0.5: mean IoU (pooled)", "0.5: Dice (per case)", "1: mean IoU (pooled)", "1: Dice (per case)"
    )  # fmt: skip
    first = [cell.record["mean"] for cell in both().grid[0] if cell]
    assert first == pytest.approx([0.571, 0.329, 0.65, 0.25])


def test_the_caption_of_the_default_table_names_both_metrics_the_baseline_and_what_is_constant() -> None:
    assert both().caption == (
        "mean IoU (pooled) and Dice (per case); macro, test; mean (95 % interval); difference to the baseline "
        "(pathway: none), p adjusted by Holm; study s, architecture unet, backbone vgg16, initial_weights random"
    )


def test_each_metric_of_the_default_table_marks_its_own_best() -> None:
    best = [[cell.best for cell in line if cell] for line in both().grid]
    assert best == [[False, True, True, False], [True, False, False, True]]


def test_each_metric_of_the_default_table_has_its_own_daggers() -> None:
    near = [
        dice(record(name, 0.5, mean=mean), p_to_best=p) for name, mean, p in (("none", 0.7, None), ("encode", 0.6, 0.3))
    ]
    far = [record("none", 0.5, p_to_best=0.01), record("encode", 0.5)]
    cells: list[list[Cell | None]] = [list(line) for line in both(*far, *near).grid]
    assert [[cell.close for cell in line if cell] for line in cells] == [[False, None], [None, True]]


def test_the_default_table_in_json_has_both_metrics() -> None:
    records = json.loads(render(both(), "json"))
    assert [(row["metric"], row["aggregation"]) for row in records[:2]] == [("mean_iou", "dataset"), ("dice", "case")]
    assert len(records) == 8


def test_without_dice_the_default_table_is_that_of_mean_iou() -> None:
    assert default_table(SMALL) == table(SMALL)


def test_the_default_table_shows_another_class_and_split() -> None:
    lines = [line | {"class": "lung", "split": "validation"} for line in (*CELLS, *map(dice, CELLS))]
    laid = default_table(compared(*lines), class_="lung", split="validation")
    assert laid.caption.startswith("mean IoU (pooled) and Dice (per case); lung, validation; mean")


def test_notes_of_a_cell_count_once_for_both_metrics() -> None:
    assert "Notes (number of cells): 3 folds are few (2)." in render(both(), "md")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_the_default_table(name: str) -> None:
    text = render(both(), name)
    assert "0.571" in text
    assert "0.329" in text


@pytest.mark.parametrize(("shares", "images"), [((0.5, 0.51), (16, 16)), ((0.5, 0.5), (7, 8))])
def test_columns_distinguish_levels_with_an_equal_other_size(
    shares: tuple[float, float], images: tuple[int, int]
) -> None:
    records = [
        record(name, share, labelled_images=count)
        for name in ("none", "encode")
        for share, count in zip(shares, images, strict=True)
    ]
    assert len(table(compared(*records)).column_labels) == 2


def test_the_best_is_selected_among_cells_defined_in_all_replicates() -> None:
    fewer = record("b", 0.5, mean=0.8, n=8, note="undefined in 2 of 10")
    text = render(table(compared(record("a", 0.5, mean=0.6), record("c", 0.5, mean=0.5), fewer)), "md")
    assert "| a | **0.600**" in text


def test_one_pretraining_run_is_the_first_line_below_the_table() -> None:
    note = "one pretraining run shared by all folds, so no test: use 3 or more seeds"
    cells = (record("none", 0.5), record("encode", 0.5, p=None, p_adjusted=None, note=note))
    (_, below) = render(table(compared(*cells)), "md").split("|\n\n")
    assert below.startswith(f"No difference is tested (1 cell): {note}.\n")
    assert below.count(note) == 1


def test_an_arm_with_several_claims_is_named_with_the_subject_of_each() -> None:
    weak, strong = {"generalises_to": design.PATIENTS}, {"generalises_to": design.TRAINING, "test": design.STRONGER}
    cells = (record("none", 0.5, **weak), record("encode", 0.5, **weak), record("encode", 1.0, **strong))
    text = render(table(compared(record("none", 1.0, **weak), *cells)), "md")
    assert "newly trained models on new patients (encode mean_iou with 32 masks)." in text
