import csv
import html.parser
import io
import json
from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.render import FORMATS, render
from results.tables import table

MEANS = {("none", 0.5): 0.571, ("none", 1.0): 0.65, ("encode", 0.5): 0.612}


def record(pathway: str, fraction: float, **given: object) -> dict[str, Any]:
    itself = pathway == "none"
    mean = MEANS.get((pathway, fraction), 0.5)
    test: dict[str, Any] = {} if itself else {"difference": 0.041, "p": 0.015, "p_adjusted": 0.03}
    place = {"study": "s", "architecture": "unet", "backbone": "vgg16", "initial_weights": "random"}
    series = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "mean_iou"}
    return {
        **place,
        **series,
        **test,
        "pathway": pathway,
        "labelled_fraction": fraction,
        "labelled_images": int(32 * fraction),
        "mean": mean,
        "ci_low": mean - 0.03,
        "ci_high": mean + 0.03,
        "n": 10,
        "baseline": "pathway: none",
        "test": "",
        "note": "baseline itself" if itself else "9 of 10 replicates",
        **given,
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
        "* adjusted p below 0.05.\n"
        "Notes (cells): 9 of 10 replicates (1).\n"
    )


def test_json_is_a_list_of_records_with_the_keys_of_the_contract() -> None:
    records = json.loads(render(table(SMALL), "json"))
    assert len(records) == 3
    keys = {"pathway", "labelled_fraction", "metric", "mean", "ci_low", "ci_high", "n"}
    assert keys | {"difference", "p", "p_adjusted", "note"} <= set(records[0])
    encode = next(row for row in records if row["pathway"] == "encode")
    assert (encode["mean"], encode["p"], encode["p_adjusted"]) == (0.612, 0.015, 0.03)


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


def test_what_cannot_be_told_from_the_best_is_marked_and_what_can_is_not() -> None:
    text = render(table(NEAR), "md")
    assert "| near | 0.690† (0.4" in text
    assert "| far | 0.400 (" in text
    assert "| best | **0.700** (" in text
    assert "† not distinguishable from the best with the same labelled data (bold)" in text


def test_cells_that_could_not_be_held_against_the_best_are_counted() -> None:
    assert "Not tested against the best: 1 cells." in render(table(NEAR), "md")


def test_nothing_is_marked_where_the_columns_are_not_the_sizes_of_the_test() -> None:
    assert "†" not in render(table(NEAR, columns="backbone", rows=["pathway"]), "md")


def test_latex_writes_the_mark_as_a_symbol() -> None:
    text = render(table(NEAR), "latex")
    assert r"0.690$^{\dagger}$" in text
    assert "†" not in text


def test_factors_that_do_not_vary_are_in_the_caption_and_not_in_the_rows() -> None:
    laid = table(SMALL)
    assert laid.rows == ("pathway",)
    assert "architecture unet" in laid.caption


def test_any_factor_can_stand_across() -> None:
    laid = table(SMALL, columns="pathway")
    assert laid.rows == ("labelled_fraction",)
    assert laid.column_labels == ("none", "encode")


def test_columns_of_sizes_are_in_numeric_order() -> None:
    cells = [record("none", size, labelled_images=int(size * 100)) for size in (1.0, 0.05, 0.5)]
    assert table(compared(*cells), columns="labelled_images").column_labels == ("5", "50", "100")


def test_the_least_is_best_where_lower_is_better() -> None:
    cells = [record("a", 0.5, metric="ece", mean=0.2), record("b", 0.5, metric="ece", mean=0.1)]
    best = [cell.best for (cell,) in table(compared(*cells), metric="ece").grid if cell]
    assert best == [False, True]


def test_one_of_several_baselines_is_shown_unless_all_are_asked_for() -> None:
    scratch = record("encode", 0.5, baseline="scratch", difference=0.2, p_adjusted=None)
    both = compared(record("none", 0.5), record("encode", 0.5), scratch)
    assert "+0.041" in render(table(both), "md")
    assert "+0.200" in render(table(both, baseline="scratch"), "md")
    assert len(table(both, rows=["pathway", "baseline"]).row_labels) == 3


def test_a_cell_keeps_its_mean_but_not_its_difference_under_a_baseline_it_has_not() -> None:
    other = record("boxes", 0.5, baseline="scratch", mean=0.4, ci_low=0.3, ci_high=0.5)
    text = render(table(compared(record("encode", 0.5), other), baseline="pathway: none"), "md")
    assert "| boxes | 0.400 (0.300 to 0.500) |" in text


def test_undefined_means_are_said_to_be_undefined() -> None:
    text = render(table(compared(record("none", 0.5, mean=None), record("b", 0.5))), "md")
    assert "| none | undefined |" in text


def test_rows_that_leave_out_what_varies_are_refused_with_what_to_add() -> None:
    with pytest.raises(ValueError, match="rows are architecture; allowed: all that vary; add pathway"):
        table(SMALL, rows=["architecture"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "iou"}, "metric is iou; allowed: mean_iou; choose"),
        ({"class_": "lung"}, "class is lung; allowed: macro; choose"),
        ({"split": "train"}, "split is train; allowed: test; choose"),
        ({"columns": "size"}, "columns is size; allowed: study, architecture"),
        ({"rows": ["loss"]}, "rows is loss; allowed: study, architecture"),
        ({"baseline": "scratch"}, "baseline is scratch; allowed: pathway: none; choose"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(SMALL, **asked)


def test_no_comparisons_yet_is_said() -> None:
    with pytest.raises(ValueError, match="nothing yet"):
        table(compared())


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format is pdf; allowed: md, csv, json, latex, html"):
        render(table(SMALL), "pdf")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_ends_its_last_line(name: str) -> None:
    assert render(table(SMALL), name).endswith("\n")


def test_columns_are_the_size_that_the_study_sets() -> None:
    by_number = compared(
        *(record(name, share, labelled_images=16) for name, share in (("none", 0.51), ("encode", 0.49)))
    )
    assert table(by_number).columns == "labelled_images"
    assert table(SMALL).columns == "labelled_fraction"
