"""`study predict` on a study's own test images tells their Dice as scored and at their own size."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from results.background import BACKGROUND
from results.metrics import MetricSettings
from study.cli import main
from study.own_test import mean_dice
from tests.data.finished import CLASSES, IMAGES, Finished

Capture = pytest.CaptureFixture[str]
SIZE = 40
LINE = re.compile(r"(\S+): Dice ([\d.]+) as scored at 40 x 40, ([\d.]+) at its own (\d+) x (\d+)")


def predict(study: Finished, output: Path, *words: str | Path) -> None:
    """Predict all images of the study, or those named."""
    images = words[:1] if words and isinstance(words[0], Path) else (study.data / "images",)
    options = words[1:] if words and isinstance(words[0], Path) else words
    arguments = ["predict", "tiny", *images, "-o", output, *options, "--cache", study.cache]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--storage", str(study.store.root)])
    assert not ended.value.code


def told(text: str) -> dict[str, tuple[float, float, int, int]]:
    return {name: (float(a), float(b), int(w), int(h)) for name, a, b, w, h in LINE.findall(text)}


def dice(mask: NDArray[np.bool_], goal: NDArray[np.bool_]) -> float:
    return float(2 * (mask & goal).sum() / (mask.sum() + goal.sum()))


def masks(folder: Path, stem: str, *, overlapping: bool) -> list[NDArray[np.bool_]]:
    if overlapping:
        names = [folder / name / f"{stem}.png" for name in CLASSES]
        places = names if names[0].exists() else [folder / f"{stem}_{name.replace(' ', '_')}.png" for name in CLASSES]
        return [np.asarray(Image.open(place)) > 0 for place in places]
    ids = np.asarray(Image.open(folder / f"{stem}.png"))
    return [ids == number for number in (1, 2)]


def stored(study: Finished, fold: int) -> dict[str, list[float]]:
    """The Dice of each class that a test image shows, from the counts of a fold's network."""
    (file,) = study.store.stage(study.stages[fold]).glob("scores-*.parquet")
    found: dict[str, list[float]] = {}
    for row in pq.read_table(file, filters=[("split", "=", "test")]).to_pylist():
        if row["tp"] + row["fn"]:
            found.setdefault(row["image"], []).append(2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]))
    return found


@pytest.mark.parametrize("kind", ["exclusive", "overlapping"])
def test_dice_of_a_fold_is_that_of_the_counts_and_of_the_written_masks(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: Capture
) -> None:
    study: Finished = request.getfixturevalue(kind)
    predict(study, tmp_path, "--fold", "0")
    found, expected = told(capsys.readouterr().out), stored(study, 0)
    assert found.keys() == expected.keys()
    for name, (scored, original, width, height) in found.items():
        assert scored == pytest.approx(np.mean(expected[name]), abs=6e-5)
        pairs = zip(
            masks(tmp_path, name, overlapping=kind == "overlapping"),
            masks(study.data / "masks", name, overlapping=kind == "overlapping"),
            strict=True,
        )
        assert original == pytest.approx(np.mean([dice(mask, goal) for mask, goal in pairs if goal.any()]), abs=6e-5)
        with Image.open(study.data / "images" / f"{name}.png") as image:
            assert image.size == (width, height)


def test_networks_that_learned_from_an_image_do_not_answer_for_it(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    predict(exclusive, tmp_path)
    both = capsys.readouterr().out
    folds = {}
    for fold in ("0", "1"):
        predict(exclusive, tmp_path / fold, "--fold", fold)
        folds |= told(capsys.readouterr().out)
    assert told(both) == folds
    assert len(folds) == IMAGES
    mean = np.mean([original for _, original, _, _ in folds.values()])
    (line,) = [line for line in both.splitlines() if line.startswith(f"mean of {IMAGES} test images")]
    assert float(line.split(", ")[1].split()[0]) == pytest.approx(mean, abs=1e-4)


def test_images_that_test_no_chosen_network_are_counted(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    predict(exclusive, tmp_path, "--fold", "0")
    text = capsys.readouterr().out
    assert f"no Dice of {IMAGES - len(told(text))} images of the study's data: they test none of these" in text


def test_both_numbers_are_in_the_file_beside_the_masks(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    predict(exclusive, tmp_path)
    kept = json.loads((tmp_path / "predictions.json").read_text())["dice"]
    shown = told(capsys.readouterr().out)
    assert {name: tuple(round(one[key], 4) for key in ("scored", "original")) for name, one in kept.items()} == {
        name: values[:2] for name, values in shown.items()
    }


def test_other_images_have_no_dice(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    Image.fromarray(np.full((50, 60), 90, np.uint8)).save(tmp_path / "p0.png")
    predict(exclusive, tmp_path / "out", tmp_path / "p0.png")
    assert "Dice" not in capsys.readouterr().out
    assert "dice" not in json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_an_image_is_known_by_its_content_wherever_it_lies(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(exclusive.data / "images" / "p3.png", tmp_path / "elsewhere.png")
    predict(exclusive, tmp_path / "out", tmp_path / "elsewhere.png")
    assert list(told(capsys.readouterr().out)) == ["p3"]


def test_without_the_data_masks_are_written_and_no_dice_is_told(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(exclusive.data / "images" / "p3.png", tmp_path / "p3.png")
    exclusive.data.rename(exclusive.data.with_name("away"))
    try:
        predict(exclusive, tmp_path / "out", tmp_path / "p3.png")
    finally:
        exclusive.data.with_name("away").rename(exclusive.data)
    assert "Dice" not in capsys.readouterr().out
    assert (tmp_path / "out" / "p3.png").is_file()


def test_mean_dice_runs_over_the_scored_classes_that_the_truth_shows() -> None:
    whole, half, none = np.ones((2, 2), bool), np.array([[True, True], [False, False]]), np.zeros((2, 2), bool)
    truth = {"a": half, "b": none, "c": whole, BACKGROUND: ~half}
    found = {"a": whole, "b": whole, "c": none, BACKGROUND: ~half}
    assert mean_dice(found, truth, MetricSettings()) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_dice(found, truth, MetricSettings(classes=("a", "b"))) == pytest.approx(2 / 3)
    assert mean_dice(found, truth, MetricSettings(classes=("a",), background=True)) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(mean_dice(found, truth, MetricSettings(classes=("b",))))
