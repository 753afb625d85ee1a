"""A study whose images are annotated for different classes, from the files to tables, plan, report and predictions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.cli.main import main
from study.monitoring.plan_summary import summary, summary_text
from study.report.cases import predict_cases, select_extremes
from study.report.facts import facts_of
from tests.support.finished import CLASSES, IMAGES, Finished, finished, write_pictures
from tests.support.page import Page

Capture = pytest.CaptureFixture[str]
HALF = "left half"
UNKNOWN = frozenset({"p1", "p4", "p7"})
"""Images without a mask of the left half."""
SIZE = 40


def write(root: Path) -> None:
    write_pictures(root, overlapping=True)
    for name in UNKNOWN:
        (root / "masks" / HALF / f"{name}.png").unlink()


def study_of(root: Path, missing: str) -> Finished:
    changes: dict[str, Any] = {
        "data.hospital": {"source": "folder", "root": str(root / "data"), "classes": CLASSES, "missing": missing},
        "evaluate": {"size": SIZE, "threshold": 0.05},  # some pixels are predicted after a few steps
        "metrics": {"tolerance": 1.0},
        "stages.segment.steps": 8,
        "stages.segment.augment": {"rotate": 10, "copy_paste": 0.5},
        "stages.segment.class_weights": "balanced",
    }
    return finished(root, changes=changes, write=write)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    return {kind: study_of(tmp_path_factory.mktemp(kind), kind) for kind in ("absent", "not_annotated")}


def scores(study: Finished) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of the test images by image and class."""
    rows = {}
    for digest in study.stages:
        (file,) = study.store.stage(digest).glob("scores-*.parquet")
        rows |= {(row["image"], row["class"]): row for row in pq.read_table(file).to_pylist() if row["split"] == "test"}
    return rows


def test_a_class_not_annotated_in_an_image_is_not_scored_there(studies: dict[str, Finished]) -> None:
    absent, unknown = (scores(studies[kind]) for kind in ("absent", "not_annotated"))
    assert absent.keys() == unknown.keys()
    assert len(unknown) == 2 * IMAGES
    for (image, class_), row in unknown.items():
        pixels = row["tp"] + row["fp"] + row["fn"] + row["tn"]
        is_unknown = class_ == HALF and image in UNKNOWN
        assert pixels == sum(row["positives"]) + sum(row["negatives"]) == (0 if is_unknown else SIZE**2)
        assert (row["lesion_tp"] is None) == is_unknown
    assert all(sum(row["negatives"]) for row in absent.values())


def test_absent_and_unannotated_classes_train_different_networks(studies: dict[str, Finished]) -> None:
    absent, unknown = studies.values()
    # In a fold whose training images all have masks of both classes, the networks are equal.
    others = [pair for pair in zip(absent.stages, unknown.stages, strict=True) if pair[0] != pair[1]]
    assert others
    for first, second in others:
        assert absent.store.weights(first).read_bytes() != unknown.store.weights(second).read_bytes()


def test_results_count_the_images_that_annotate_a_class(studies: dict[str, Finished]) -> None:
    for kind, study in studies.items():
        rows = pq.read_table(study.store.study("tiny") / "results.parquet").to_pylist()
        selected = [row for row in rows if row["split"] == "test" and row["metric"] == "dice_empty_is_one"]
        images = {
            name: sum(row["images"] for row in selected if row["class"] == name and row["aggregation"] == "case")
            for name in CLASSES
        }
        assert images == {"blob": IMAGES, HALF: IMAGES - (len(UNKNOWN) if kind == "not_annotated" else 0)}


def test_plan_and_report_count_the_images_of_each_class(studies: dict[str, Finished], tmp_path: Path) -> None:
    line = f"annotated    hospital, images by class: blob 10 (present in 10); {HALF} 7 (present in 7)"
    for kind, study in studies.items():
        text = summary_text(summary(study.plan, study.store, study.cache))
        assert (line in text.splitlines()) == (kind == "not_annotated")
        file = tmp_path / f"{kind}.html"
        with pytest.raises(SystemExit) as ended:
            main(["report", "tiny", "--storage", str(study.store.root), "--cache", str(study.cache), "-o", str(file)])
        assert not ended.value.code
        page = Page(file.read_text(encoding="utf-8"))
        assert ("Images of hospital in which each class is annotated" in page.text("data")) == (kind == "not_annotated")


def test_the_report_outlines_no_unannotated_class(studies: dict[str, Finished]) -> None:
    study = studies["not_annotated"]
    facts = facts_of(study.plan, study.store)
    (_, image), *_ = select_extremes(facts, facts.chains)
    images = [(name, replace(image, name=name, image=name)) for name in ("p1", "p2")]
    unknown, known = predict_cases(facts, images, study.cache)[0]
    assert not unknown.truth[1].any()
    assert not unknown.predicted[1].any()
    assert unknown.truth[0].any()
    assert known.truth[1].any()
    assert known.predicted[1].any()


def test_the_dice_of_own_images_is_over_the_annotated_classes(
    studies: dict[str, Finished], tmp_path: Path, capsys: Capture
) -> None:
    study = studies["not_annotated"]
    with pytest.raises(SystemExit) as ended:
        main([
            "predict", "tiny", str(study.data / "images"), "-o", str(tmp_path), "--cache", str(study.cache),
            "--storage", str(study.store.root),
        ])  # fmt: skip
    assert not ended.value.code
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("p")}
    for name in UNKNOWN:
        predicted = np.asarray(Image.open(tmp_path / f"{name}_blob.png")) > 0
        truth = np.asarray(Image.open(study.data / "masks" / "blob" / f"{name}.png")) > 0
        dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
        assert f"{dice:.4f} at its own" in lines[name]


def test_data_check_counts_annotated_and_present_images(
    studies: dict[str, Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = str(studies["not_annotated"].data)
    for settings, expected in (([], 0), (["--set", "missing=not_annotated"], 1)):
        with pytest.raises(SystemExit) as ended:
            main(["data", "check", "folder", root, *settings])
        assert not ended.value.code
        lines = capsys.readouterr().out.splitlines()
        assert f"masks      of 10 images: blob 10; {HALF} 7" in lines
        assert lines.count(f"annotated  images by class: blob 10 (present in 10); {HALF} 7 (present in 7)") == expected
