"""Imported results: the statistics of the platform on values of other software, through the command line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from tests.support.importing import null_sheet, sheet_of_data_sets, study, summaries, write_nnunet, write_sheet
from tests.support.tiny import tiny, written

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(name: str, file: str = "comparisons") -> pd.DataFrame:
    return pq.read_table(Path("runs", "studies", name, f"{file}.parquet")).to_pandas()


def test_means_over_data_sets_equal_pandas(capsys: Capture) -> None:
    sheet = sheet_of_data_sets(Path("sheet.csv"))
    code, out, err = study(capsys, "import", sheet, "--name", "sheet", "--lower-is-better", "hd95")
    assert (code, err) == (0, "")
    assert "imported 3,150 values as sheet" in out
    expected = pd.read_csv(sheet).groupby(["metric", "backbone"])["value"].mean()
    means = table("sheet").set_index(["metric", "backbone"])["mean"]
    assert len(means) == 30
    assert (means - expected).abs().max() < 1e-9


def test_comparison_over_data_sets_has_data_sets_as_units(capsys: Capture) -> None:
    sheet = sheet_of_data_sets(Path("sheet.csv"))
    rule = ("--baseline", "backbone=encoder 0", "--lower-is-better", "hd95")
    assert study(capsys, "import", sheet, "--name", "sheet", *rule)[0] == 0
    means = pd.read_csv(sheet).groupby(["metric", "dataset", "backbone"])["value"].mean().unstack()
    tests = table("sheet", "tests").query("unit == 'data set'")
    for metric in ("mean_iou", "hd95"):
        grid, rows = means.loc[metric], tests[tests["metric"] == metric]
        friedman = rows[rows["test"].str.startswith("Friedman")].iloc[0]
        expected = stats.friedmanchisquare(*grid.to_numpy().T)
        assert (friedman["statistic"], friedman["p"]) == pytest.approx((expected.statistic, expected.pvalue))
        signed = rows[rows["test"].str.startswith("Wilcoxon")].set_index("backbone")
        p = {name: stats.wilcoxon(grid[name], grid["encoder 0"], method="exact").pvalue for name in grid.columns[1:]}
        assert signed["p"].to_dict() == pytest.approx(p)
        assert (signed["pairs"] == 35).all(), "never data sets x seeds"
    code, out, _ = study(capsys, "table", "sheet", "--metric", "hd95")
    assert code == 0
    assert "Mean ranks over 35 data sets (1 is best): encoder 5" in out, "a small distance has the best rank"
    assert "| encoder 5 | **" in out


def test_equal_arms_are_rarely_significant(capsys: Capture) -> None:
    stars = 0
    for seed in range(40):
        sheet = null_sheet(Path("null.csv"), seed)
        rule = ("--baseline", "pathway=none", "--design", "fixed")
        assert study(capsys, "import", sheet, "--name", f"null{seed}", *rule)[0] == 0
        stars += bool((table(f"null{seed}")["p_adjusted"] < 0.05).any())
    assert stars <= 5


def test_fixed_test_set_is_tested_over_images(capsys: Capture) -> None:
    sheet = null_sheet(Path("null.csv"), 0)
    assert study(capsys, "import", sheet, "--name", "null", "--baseline", "pathway=none", "--design", "fixed")[0] == 0
    row = table("null").query("pathway == 'pretrained'").iloc[0]
    values = pd.read_csv(sheet).groupby(["pathway", "image"])["value"].mean().unstack("pathway")
    differences = (values["pretrained"] - values["none"]).to_numpy()
    signs = 1 - 2 * (np.arange(2**10)[:, None] >> np.arange(10) & 1)
    p = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert row["p"] == pytest.approx(p, abs=1e-9)
    assert (row["unit"], row["generalises_to"]) == ("patient", "these models, new patients")


def test_cross_validation_has_the_corrected_test(capsys: Capture) -> None:
    random = np.random.default_rng(3)
    values = {arm: random.normal(0.7, 0.05, 5).clip(0, 1) for arm in ("none", "pretrained")}
    rows = [(arm, fold, "mean_iou", value) for arm, scores in values.items() for fold, value in enumerate(scores)]
    sheet = write_sheet(Path("cv.csv"), ["pathway", "fold", "metric", "value"], rows)
    assert study(capsys, "import", sheet, "--name", "cv", "--baseline", "pathway=none")[0] == 0
    row = table("cv").query("pathway == 'pretrained'").iloc[0]
    differences = values["pretrained"] - values["none"]
    t = differences.mean() / np.sqrt(differences.var(ddof=1) * (1 / 5 + 1 / 4))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert row["generalises_to"] == "new training sets"


def test_percent_and_parquet_are_read(capsys: Capture) -> None:
    frame = pd.DataFrame({"architecture": ["a", "a", "b", "b"], "fold": [0, 1, 0, 1], "metric": "dice",
                          "value": [80.0, 82.0, 84.0, np.nan]})  # fmt: skip
    frame.to_parquet("percent.parquet")
    code, _, err = study(capsys, "import", "percent.parquet", "--name", "percent")
    assert code == 2
    assert "dice is 80 (3 such lines); allowed: 0 to 1; divide percent with --scale 100" in err
    assert study(capsys, "import", "percent.parquet", "--name", "percent", "--scale", 100)[0] == 0
    assert table("percent")["mean"].round(3).tolist() == [0.81, 0.84]


def test_repeated_import_replaces_the_results(capsys: Capture) -> None:
    for value in (0.5, 0.6):
        sheet = write_sheet(Path("sheet.csv"), ["metric", "value"], [("dice", value)])
        assert study(capsys, "import", sheet, "--name", "one")[0] == 0
    assert table("one")["mean"].tolist() == [0.6]


def test_nnunet_results_become_arms_with_metrics_per_case(capsys: Capture) -> None:
    folder = write_nnunet(Path("nnUNet_results"))
    code, out, err = study(
        capsys, "import", "--from-nnunet", folder, "--name", "nnunet", "--baseline", "configuration=2d"
    )
    assert (code, err) == (0, ""), out
    rows = table("nnunet", "results").query("configuration == '2d' and fold == 3")
    (cases,) = [cases for path, cases in summaries(folder).items() if "__2d" in str(path) and "fold_3" in str(path)]
    dice = [case["metrics"]["1"]["Dice"] for case in cases]
    lung_dice = rows.query("`class` == 'lung' and metric == 'dice' and aggregation == 'case'")["value"].item()
    assert lung_dice == pytest.approx(np.mean(dice))
    counts = {name: sum(case["metrics"]["2"][name] for case in cases) for name in ("TP", "FP", "FN")}
    pooled = rows.query("`class` == 'heart' and metric == 'mean_iou' and aggregation == 'dataset'")["value"].item()
    assert pooled == pytest.approx(counts["TP"] / sum(counts.values()))
    compared = table("nnunet").query("configuration == '3d_fullres' and metric == 'mean_iou' and `class` == 'macro'")
    assert compared["p"].notna().all()
    assert set(compared["generalises_to"]) == {"new training sets"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("not json", "is not JSON"),
        ("[]", "is no JSON object"),
        ("{}", "has no metrics of cases"),
        ('{"metric_per_case": [{"metrics": {"1": {"Dice": 0.5}}, "prediction_file": "a"}]}', "lacks counts"),
    ],
)
def test_malformed_summary_is_refused_in_one_line(content: str, line: str, capsys: Capture) -> None:
    folder = write_nnunet(Path("results"), ["2d"])
    next(folder.rglob("summary.json")).write_text(content)
    code, out, err = study(capsys, "import", "--from-nnunet", folder, "--name", "nnunet")
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.splitlines()) == 1


HEADER = "pathway,fold,metric,value\n"
GOOD = "none,0,dice,0.5\nnone,1,dice,0.6\npre,0,dice,0.7\npre,1,dice,0.8\n"
IMAGES = "pathway,fold,image,metric,value\n"
PER_CASE = "".join(f"{arm},{fold},i{fold}{n},dice,0.5\n" for arm in ("a", "b") for fold in (0, 1) for n in range(3))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("pathway,metric\nnone,dice\n", "lacks the columns ['value']"),
        ("metric;value\ndice;0,5\n", "separate its values with commas"),
        (HEADER, "has no lines"),
        (HEADER + GOOD + "pre,2,dice,good\n", "line 6: value is 'good'"),
        (HEADER + GOOD + "pre,x,dice,0.5\n", "line 6: fold is 'x'"),
        (HEADER + GOOD + "pre,-1,dice,0.5\n", "line 6: fold is '-1'"),
        (HEADER + GOOD + "pre,1,dice,0.5\n", "lines 5 and 6 give the same value twice"),
        (HEADER + GOOD.rpartition("pre")[0], "pre has no dice for fold 1, seed 0 (1 of 2 missing)"),
        (HEADER + GOOD.replace("0.5", "50"), "dice is 50 (1 such lines); allowed: 0 to 1"),
        (HEADER + GOOD.replace("none", ""), "line 2: pathway is ''"),
        (HEADER + GOOD.replace("0.5", "inf"), "line 2: value is 'inf'"),
        (HEADER + GOOD + "pre,1,dice,0.5,7\n", "has 5 fields; allowed: 4"),
        (HEADER.replace("value", "value,p") + GOOD.replace("\n", ",0\n"), "has the column p"),
        (HEADER.replace("value", "value,patient") + GOOD.replace("\n", ",0\n"), "has patients without images"),
        (HEADER.replace("fold", "Fold") + GOOD, "which is not read; allowed:"),
        (IMAGES + PER_CASE.replace("b,1,i12,dice,0.5\n", ""), "fold 1, seed 0 differ between arms"),
        (IMAGES + PER_CASE.replace("i1", "i0"), "are in several folds of seed 0"),
        ("a\0b", "lacks the columns"),
    ],
)
def test_invalid_file_is_refused_in_one_line(content: str, line: str, capsys: Capture) -> None:
    Path("bad.csv").write_text(content)
    code, out, err = study(capsys, "import", "bad.csv", "--name", "bad", "--baseline", "pathway=none"
                           if content.startswith(HEADER) else "pathway=a")  # fmt: skip
    assert (code, out) == (2, ""), err
    assert line in err
    assert "allowed" in err
    assert "Traceback" not in err
    assert not Path("runs", "studies", "bad", "comparisons.parquet").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--baseline", "pathway=unknown"], "--baseline pathway=unknown: unknown value 'unknown'"),
        (["--baseline", "path=none"], "--baseline path=none: unknown factor 'path'"),
        (["--baseline", "none"], "--baseline is 'none'; allowed: FACTOR=VALUE"),
        (["--design", "loo"], "--design is 'loo'; allowed: cv, fixed"),
        (["--lower-is-better", "hd95"], "--lower-is-better hd95: unknown metric 'hd95'"),
        (["--scale", "0"], "--scale is 0; allowed: a number above 0"),
        (["--from-nnunet", "."], "takes one source"),
        (["--name", "a/b"], "--name is 'a/b'; allowed: up to 64 letters"),
    ],
)
def test_invalid_option_is_refused_in_one_line(options: list[str], line: str, capsys: Capture) -> None:
    Path("good.csv").write_text(HEADER + GOOD)
    code, out, err = study(capsys, "import", "good.csv", "--name", "good", *options)
    assert (code, out) == (2, "")
    assert line in err


def test_other_commands_accept_imported_results(capsys: Capture) -> None:
    sheet = null_sheet(Path("null.csv"), 0)
    for name in ("first", "second"):
        assert study(capsys, "import", sheet, "--name", name, "--design", "fixed")[0] == 0
    assert "first: imported results" in study(capsys, "status", "first")[1]
    assert json.loads(study(capsys, "status", "first", "--json")[1])["state"] == "imported"
    for command in (
        ("resume", "first"),
        ("predict", "first", "x.png", "-o", "out"),
        ("export", "first", "-o", "x.onnx"),
    ):
        code, out, err = study(capsys, *command)
        assert (code, out) == (2, ""), command
        assert "there is nothing to run; allowed: study table, compare and report" in err
        assert len(err.splitlines()) == 1
    file = written(tiny({"name": "first"}), Path())
    code, _, err = study(capsys, "run", file, "--cache", "cache")
    assert code == 2
    assert "choose another name for a study that runs" in err
    before = {path: path.read_bytes() for path in Path("runs").rglob("*.parquet")}
    assert study(capsys, "gc", "--yes")[0] == 0
    assert {path: path.read_bytes() for path in Path("runs").rglob("*.parquet")} == before
    code, out, _ = study(capsys, "compare", "first", "second", "--metric", "dice", "--aggregation", "case")
    assert code == 0
    assert "+0.000" in out
    for option in ("--published", "--search"):
        code, _, err = study(capsys, "table", "first", option)
        assert (code, len(err.splitlines())) == (2, 1)


def test_report_shows_every_metric_and_the_data_sets(capsys: Capture) -> None:
    sheet = sheet_of_data_sets(Path("sheet.csv"), sets=8, encoders=3)
    assert study(capsys, "import", sheet, "--name", "sheet", "--lower-is-better", "hd95")[0] == 0
    assert study(capsys, "report", "sheet")[0] == 0
    page = Path("runs/studies/sheet/report/report.html").read_text()
    for text in (
        "Mean IoU (pooled): encoder 2 is best",
        "95th percentile Hausdorff distance (pooled)",
        "Mean ranks over 8 data sets",
        "Friedman test",
    ):
        assert text in page
    Path("runs/studies/sheet/comparisons.parquet").unlink()
    assert study(capsys, "report", "sheet")[0] == 0, "tables are derived again from the values"


def test_altered_values_are_refused(capsys: Capture) -> None:
    sheet = null_sheet(Path("null.csv"), 0)
    assert study(capsys, "import", sheet, "--name", "null", "--design", "fixed")[0] == 0
    file = Path("runs/studies/null/values.parquet")
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    Path("runs/studies/null/comparisons.parquet").unlink()
    code, _, err = study(capsys, "report", "null")
    assert code == 2
    assert "values.parquet" in err


def test_trained_study_is_not_replaced(capsys: Capture) -> None:
    Path("runs/studies/demo").mkdir(parents=True)
    Path("runs/studies/demo/spec.yaml").write_text("name: demo\n")
    Path("good.csv").write_text(HEADER + GOOD)
    code, _, err = study(capsys, "import", "good.csv", "--name", "demo")
    assert code == 2
    assert "has a study demo that was run; allowed: a new name" in err


def test_nnunet_folds_of_unequal_size_and_regions_are_imported(capsys: Capture) -> None:
    folder = write_nnunet(
        Path("results"), sizes=(11, 11, 10, 10, 10), labels={"background": 0, "lung": [1, 2], "heart": 2}
    )
    assert (
        study(capsys, "import", "--from-nnunet", folder, "--name", "nnunet", "--baseline", "configuration=2d")[0] == 0
    )
    comparison = table("nnunet")
    assert set(comparison["labelled_images"]) == {42}
    assert {"lung", "heart"} <= set(comparison["class"])


def test_several_nnunet_data_sets_are_compared_over_data_sets(capsys: Capture) -> None:
    for number in range(7):
        write_nnunet(Path("results"), data_set=f"Dataset{number:03}_Organ", seed=number)
    code, _, err = study(
        capsys, "import", "--from-nnunet", "results", "--name", "all", "--baseline", "configuration=2d"
    )
    assert code == 0, err
    out = study(capsys, "table", "all")[1]
    assert "Mean ranks over 7 data sets (1 is best)" in out


def test_unknown_folds_leave_the_number_of_training_cases_undefined(capsys: Capture) -> None:
    folder = write_nnunet(Path("results"), ["2d"], sizes=(4, 4))
    assert study(capsys, "import", "--from-nnunet", folder, "--name", "nnunet")[0] == 0
    assert set(table("nnunet")["labelled_images"]) == {0}
    assert "labelled_images" not in study(capsys, "table", "nnunet")[1]


def test_folds_are_averaged_before_data_sets_are_compared(capsys: Capture) -> None:
    rows = []
    for number in range(7):
        for fold, (value, images) in enumerate([(0.9, 4), (0.5, 8)]):
            for image in range(images):
                rows += [(f"set {number}", "x", fold, f"{fold}-{image}", "dice", value),
                         (f"set {number}", "y", fold, f"{fold}-{image}", "dice", 0.65)]  # fmt: skip
    sheet = write_sheet(Path("folds.csv"), ["dataset", "backbone", "fold", "image", "metric", "value"], rows)
    assert study(capsys, "import", sheet, "--name", "folds", "--design", "cv", "--baseline", "backbone=y")[0] == 0
    assert table("folds").set_index("backbone")["mean"].round(3).to_dict() == {"x": 0.7, "y": 0.65}
    assert "x 1.00, y 2.00" in study(capsys, "table", "folds")[1]


def test_equal_patient_names_in_two_data_sets_are_two_patients(capsys: Capture) -> None:
    random = np.random.default_rng(0)
    header, entries = ["dataset", "backbone", "image", "metric", "value"], []
    values = random.uniform(0.5, 0.9, (2, 2, 12))
    for names in ("{image}", "{dataset}-{image}"):
        rows = [
            (f"set {dataset}", f"b{arm}", names.format(dataset=dataset, image=image), "dice", value)
            for (dataset, arm, image), value in np.ndenumerate(values)
        ]
        sheet = write_sheet(Path("names.csv"), header, rows)
        assert study(capsys, "import", sheet, "--name", "names", "--baseline", "backbone=b0")[0] == 0
        entries.append(table("names").query("backbone == 'b1'")[["p", "ci_low", "ci_high"]].to_numpy().tolist())
    assert entries[0] == entries[1]


@pytest.mark.parametrize("name", ["arm", "cell", "direction", "line", "digest", "difference", "pairs", "series"])
def test_names_of_working_columns_are_refused_as_factors(name: str, capsys: Capture) -> None:
    Path("sheet.csv").write_text(f"{name},metric,value\nx,dice,0.5\ny,dice,0.6\n")
    code, _, err = study(capsys, "import", "sheet.csv", "--name", "sheet")
    assert code == 2
    assert f"has the column {name}, a name that results tables use" in err


def test_metric_of_some_arms_is_compared_among_them(capsys: Capture) -> None:
    rows = [(f"set {number}", arm, metric, 0.5 + 0.01 * number + 0.02 * len(arm))
            for number in range(7) for arm in ("a", "bb", "ccc") for metric in ("dice", "recall")
            if (arm, metric) != ("bb", "recall")]  # fmt: skip
    sheet = write_sheet(Path("part.csv"), ["dataset", "backbone", "metric", "value"], rows)
    assert study(capsys, "import", sheet, "--name", "part", "--baseline", "backbone=a")[0] == 0
    out = study(capsys, "table", "part", "--metric", "recall")[1]
    assert "ccc 1.00, a 2.00" in out


def test_each_baseline_has_its_own_p(capsys: Capture) -> None:
    rules = ("--baseline", "backbone=encoder 0", "--baseline", "backbone=encoder 1")
    sheet = sheet_of_data_sets(Path("sheet.csv"), sets=8, encoders=3)
    assert study(capsys, "import", sheet, "--name", "sheet", *rules)[0] == 0
    out = study(capsys, "table", "sheet")[1]
    assert "p against backbone=encoder 0, Nemenyi: encoder 1" in out
    assert "p against backbone=encoder 1, Nemenyi: encoder 0" in out


def test_folds_of_very_different_size_are_accepted_when_confirmed(capsys: Capture) -> None:
    rows = [(arm, fold, f"{fold}-{image}", "dice", 0.5 + 0.01 * image)
            for arm in "ab" for fold, images in enumerate((4, 20)) for image in range(images)]  # fmt: skip
    sheet = write_sheet(Path("centres.csv"), ["backbone", "fold", "image", "metric", "value"], rows)
    code, _, err = study(capsys, "import", sheet, "--name", "centres")
    assert code == 2
    assert "confirm such folds with --design cv" in err
    assert study(capsys, "import", sheet, "--name", "centres", "--design", "cv")[0] == 0


def test_failed_import_keeps_the_earlier_study(capsys: Capture) -> None:
    Path("good.csv").write_text(HEADER + GOOD)
    assert study(capsys, "import", "good.csv", "--name", "good")[0] == 0
    before = {path.name: path.read_bytes() for path in Path("runs/studies/good").iterdir()}
    Path("good.csv").write_text(HEADER + GOOD.rpartition("pre")[0])
    assert study(capsys, "import", "good.csv", "--name", "good")[0] == 2
    assert {path.name: path.read_bytes() for path in Path("runs/studies/good").iterdir()} == before
