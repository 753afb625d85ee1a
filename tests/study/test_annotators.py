"""A study of data with masks of two annotators."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from datasets.loading.truth import truth_entry
from results.figures import curves
from results.schema import HEADLINE
from study.analysis.agreement import read_agreements
from study.cli.main import main
from study.execution.study_folder import draw_learning_curve
from study.monitoring.forecast import forecast
from study.monitoring.plan_summary import summary, summary_text
from study.planning.graph import Plan
from tests.support.finished import CLASSES, IMAGES, Finished, finished, write_pictures
from tests.support.tiny import planned, tiny

Capture = pytest.CaptureFixture[str]


def masks_of(data: Path, folder: str, number: int) -> np.ndarray:
    return np.asarray(Image.open(data / folder / f"p{number}.png"))


@pytest.fixture(scope="module", params=[False, True], ids=["ids", "overlapping"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The second annotator shifts every mask down by two pixels and skips the last image."""
    root = tmp_path_factory.mktemp("annotators")
    write_pictures(root / "data", overlapping=request.param)
    for file in sorted((root / "data" / "masks").rglob("*.png")):
        if file.stem != f"p{IMAGES - 1}":
            second = root / "data" / "second" / file.relative_to(root / "data" / "masks")
            second.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.roll(np.asarray(Image.open(file)), 2, axis=0)).save(second)
    data = {"source": "folder", "root": str(root / "data"), "classes": CLASSES}
    data |= {"annotators": {"reader_1": "masks", "reader_2": "second"}}
    changes = {"data": {"hospital": data}, "evaluate": {"size": "native"}, "metrics": {"tolerance": 1.0}}
    return finished(root, overlapping=request.param, changes=changes)


def run(study: Finished, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--storage", str(study.store.root)])
    return int(ended.value.code or 0)


def test_the_agreement_is_that_of_the_masks(study: Finished) -> None:
    folder = study.store.study("tiny")
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    overlapping = study.plan.views[study.plan.target].index.overlapping
    for replicate in study.plan.replicates:
        numbers = [int(study.plan.views["hospital"].index.ids[row][1:]) for row in study.plan.split(replicate).test]
        dice = []
        for number, name in enumerate(CLASSES, start=1):
            intersection = total = 0
            for image in set(numbers) - {IMAGES - 1}:
                place = f"masks/{name}" if overlapping else "masks"
                first, second = (
                    masks_of(study.data, place.replace("masks", part), image) for part in ("masks", "second")
                )
                first, second = (part > 0 if overlapping else part == number for part in (first, second))
                intersection, total = (
                    intersection + int((first & second).sum()),
                    total + int(first.sum() + second.sum()),
                )
            dice.append(2 * intersection / total)
        (reported,) = (
            row for row in rows
            if (row["split"], row["metric"], row["class"]) == ("agreement@reader_1~reader_2", "dice", "macro")
            and (row["aggregation"], row["fold"]) == ("dataset", replicate.fold)
        )  # fmt: skip
        assert reported["value"] == pytest.approx(np.mean(dice))
        assert reported["images"] == len(set(numbers) - {IMAGES - 1})


def test_a_plan_states_the_test_images_of_other_annotators(study: Finished) -> None:
    text = summary_text(summary(study.plan, study.store, study.cache))
    assert f"annotators   trained on reader_1; also scored against reader_2 ({IMAGES - 1} test images)" in text


def test_the_forecast_of_the_cache_includes_the_masks_of_both_annotators(study: Finished, tmp_path: Path) -> None:
    stages = list(study.plan.nodes.values())
    prepared_cache, empty_cache = (
        forecast(study.plan, study.store, cache, [], stages)["cache"] for cache in (study.cache, tmp_path)
    )
    assert prepared_cache["bytes"] == prepared_cache["there"] == empty_cache["bytes"]
    folders = [folder for folder in (study.cache / "prepared").iterdir() if folder.is_dir()]
    assert prepared_cache["bytes"] <= sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    view = study.plan.views[study.plan.target]
    sizes = [
        sum(truth_entry(index, "native", tmp_path).values())
        for index in (view.index, view.annotators["reader_2"].index)
    ]
    assert empty_cache["bytes"] > sum(sizes) > sizes[0] > 0


def test_networks_are_scored_against_the_other_annotator(study: Finished) -> None:
    comparisons = pq.read_table(study.store.study("tiny") / "comparisons.parquet").to_pylist()
    splits = {row["split"] for row in comparisons}
    assert splits == {"test", "validation", "test@reader_2"}
    values = {
        row["split"]: row["mean"] for row in comparisons
        if (row["metric"], row["class"], row["aggregation"]) == ("dice", "macro", "case")
    }  # fmt: skip
    assert values["test"] != values["test@reader_2"]


def test_tables_figures_and_report_show_the_agreement(study: Finished, capsys: Capture) -> None:
    folder = study.store.study("tiny")
    sentence = "Agreement of the annotators reader_1 and reader_2 on the test images: "
    assert run(study, "table", "tiny") == 0
    assert f"{sentence}mean IoU 0." in capsys.readouterr().out
    assert run(study, "table", "tiny", "--split", "test@reader_2") == 0
    assert "Agreement of the annotators" in capsys.readouterr().out
    assert run(study, "table", "tiny", "--split", "validation") == 0
    assert "Agreement" not in capsys.readouterr().out
    assert run(study, "report", "tiny", "--cache", study.cache) == 0
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert f"{sentence}Dice 0." in page
    comparisons = pq.read_table(folder / "comparisons.parquet")
    draw_learning_curve(study.plan, study.store, comparisons)
    assert (folder / "report" / "learning_curve.png").stat().st_size
    (agreement,) = read_agreements(folder, HEADLINE)
    figure = curves(comparisons, agreements=[agreement])
    assert "Agreement of reader_1 and reader_2" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(set(line.get_ydata()) == {agreement.mean} for line in figure.axes[0].lines)


def plan_with(study: Finished, root: Path, **changes: object) -> Plan:
    document = tiny({
        "data": {"hospital": {"source": "folder", "root": str(study.data), "classes": CLASSES} | changes},
        "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 2}},
        "pathways": {"none": ["segment"]}, "validation": {"min_cases": 1},
    })  # fmt: skip
    return planned(document, root / "cache")


def test_annotators_change_the_scoring_and_no_stage(study: Finished, tmp_path: Path) -> None:
    annotators = {"reader_1": "masks", "reader_2": "second"}
    plain, annotated = plan_with(study, tmp_path), plan_with(study, tmp_path, annotators=annotators)
    assert plain.nodes.keys() == annotated.nodes.keys()
    assert {r.scoring.key for r in plain.replicates}.isdisjoint({r.scoring.key for r in annotated.replicates})
    retrained = plan_with(study, tmp_path, annotators=annotators, train="reader_2")
    assert plain.nodes.keys().isdisjoint(retrained.nodes.keys())


def test_the_data_check_counts_common_images(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    words = ["data", "check", "folder", study.data, "--set", "annotators={reader_1: masks, reader_2: second}"]
    with pytest.raises(SystemExit):
        main([*map(str, words), "--cache", str(tmp_path), "-o", str(tmp_path / "a.png")])
    line = f"annotator  reader_2: {IMAGES - 1} images in common with the one trained on"
    assert line in capsys.readouterr().out
