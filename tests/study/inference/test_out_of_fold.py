"""`study predict` on a study's own images: out-of-fold masks, and the reported Dice is that of the written mask."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from results.metrics.background import BACKGROUND
from results.metrics.compute import MetricSettings
from study.cli.main import main
from study.inference import out_of_fold
from study.inference.out_of_fold import ImageDice, OutOfFoldSummary, Selection, StudyImage, mean_dice, networks_for
from study.inference.predictor import Predictor
from study.training.load_model import open_model
from tests.support.finished import CLASSES, IMAGES, Finished, finished

Capture = pytest.CaptureFixture[str]
Masks = list[NDArray[np.bool_]]
ALL = [f"p{number}" for number in range(IMAGES)]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two folds and two seeds: every image has one out-of-fold network of each seed."""
    return finished(tmp_path_factory.mktemp("seeds"), overlapping=False, changes={"compare.seeds": [0, 1]})


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A fixed test set of three images and two seeds."""
    root = tmp_path_factory.mktemp("fixed")
    data = {"source": "folder", "root": str(root / "data"), "classes": CLASSES, "split": {"test": {"images": 3}}}
    changes = {"data": {"hospital": data}, "compare.folds": 1, "compare.seeds": [0, 1]}
    return finished(root, overlapping=False, changes=changes)


def predict(study: Finished, output: Path, *options: str, images: Path | None = None, name: str = "tiny") -> None:
    """Run the command on all images of the study, or the named ones."""
    words = ["predict", name, images or study.data / "images", "-o", output, *options, "--cache", study.cache]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--storage", str(study.store.root)])
    assert not ended.value.code


def description(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "predictions.json").read_text()))


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def written_masks(output: Path, name: str, *, overlapping: bool = False) -> Masks:
    if overlapping:
        return [pixels_of(output / f"{name}_{class_.replace(' ', '_')}.png") > 0 for class_ in CLASSES]
    return [pixels_of(output / f"{name}.png") == number for number in (1, 2)]


def true_masks(study: Finished, name: str, *, overlapping: bool = False) -> Masks:
    if overlapping:
        return [pixels_of(study.data / "masks" / class_ / f"{name}.png") > 0 for class_ in CLASSES]
    return written_masks(study.data / "masks", name)


def dice(predicted: Masks, truth: Masks) -> float:
    """The mean over the classes in the true masks."""
    pairs = [(mask, true) for mask, true in zip(predicted, truth, strict=True) if true.any()]
    return float(np.mean([2 * (mask & true).sum() / (mask.sum() + true.sum()) for mask, true in pairs]))


def networks_by_part(study: Finished, name: str) -> tuple[set[str], set[str]]:
    """The networks that tested an image, and those that used it for training or validation, by the plan's splits."""
    row = list(study.plan.views[study.plan.target].index.ids).index(name)
    tested, trained = set(), set()
    for replicate in study.plan.replicates:
        split = study.plan.split(replicate)
        if row in split.test:
            tested.add(replicate.chain[-1])
        if row in {*split.labelled, *split.validation, *split.unlabelled}:
            trained.add(replicate.chain[-1])
    return tested, trained


def masks_by(
    study: Finished, digests: list[str], name: str, *, tile: int | None = None, threshold: float | None = None
) -> Masks:
    """The masks predicted by the mean of some networks; of overlapping classes with a threshold."""
    predictor = Predictor([open_model(study.store, digest) for digest in digests])
    pixels = pixels_of(study.data / "images" / f"{name}.png")
    probabilities = predictor.probabilities(pixels) if tile is None else predictor.probabilities(pixels, tile=tile)
    return list(
        (
            probabilities >= threshold
            if threshold
            else probabilities.argmax(dim=0) == torch.arange(1, 3)[:, None, None]
        ).numpy()
    )


def stored_dice(study: Finished, digest: str) -> dict[str, float]:
    """The mean Dice of the test images of a network, from its stored pixel counts."""
    (file,) = study.store.stage(digest).glob("scores-*.parquet")
    by_image: dict[str, list[float]] = {}
    for row in pq.read_table(file, filters=[("split", "=", "test")]).to_pylist():
        if row["class"] in CLASSES and row["tp"] + row["fn"]:
            by_image.setdefault(row["image"], []).append(2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]))
    return {image: float(np.mean(values)) for image, values in by_image.items()}


@pytest.mark.parametrize(
    ("kind", "options", "prediction"),
    [
        ("exclusive", [], {}),
        ("exclusive", ["--tile", "32"], {"tile": 32}),
        ("seeds", [], {}),
        ("overlapping", [], {"threshold": 0.4}),
        ("overlapping", ["--threshold", "0.5"], {"threshold": 0.5}),
    ],
)
def test_the_reported_dice_is_that_of_the_written_mask_by_networks_without_the_image(
    kind: str, options: list[str], prediction: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    study: Finished = request.getfixturevalue(kind)
    overlapping = kind == "overlapping"
    predict(study, tmp_path, *options)
    record, text = description(tmp_path), capsys.readouterr().out
    assert sorted(record["dice"]) == sorted(record["networks"]) == ALL
    stored, of_ensemble = {digest: stored_dice(study, digest) for digest in study.stages}, []
    for name, networks in record["networks"].items():
        tested, trained = networks_by_part(study, name)
        assert set(networks["stages"]) == tested
        assert len(tested) == (2 if kind == "seeds" else 1)
        assert not trained & set(networks["stages"])
        assert networks["out_of_fold"] is True
        masks, values = written_masks(tmp_path, name, overlapping=overlapping), record["dice"][name]
        np.testing.assert_array_equal(masks, masks_by(study, networks["stages"], name, **prediction))
        of_ensemble.append(np.array_equal(masks, masks_by(study, study.stages, name, **prediction)))
        assert values["original"] == pytest.approx(dice(masks, true_masks(study, name, overlapping=overlapping)))
        assert values["scored"] == pytest.approx(np.mean([stored[digest][name] for digest in tested]))
        height, width = masks[0].shape
        scored, original = f"{values['scored']:.4f} as scored at 40 x 40", f"{values['original']:.4f} at its own"
        assert f"{name}: Dice {scored}, {original} {width} x {height}" in text.splitlines()
    assert not all(of_ensemble)
    means = [np.mean([value[key] for value in record["dice"].values()]) for key in ("scored", "original")]
    assert f"mean of 10 test images: Dice {means[0]:.4f} as scored, {means[1]:.4f} at own size; out-of-fold" in text


@pytest.mark.parametrize("options", [["--fold", "0"], []], ids=["fold", "digest"])
def test_one_fold_reports_no_dice_of_its_training_or_validation_images(
    options: list[str], exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    digest = exclusive.stages[0]
    predict(exclusive, tmp_path, *options, name="tiny" if options else digest)
    record, text = description(tmp_path), capsys.readouterr().out
    tested = [name for name in ALL if digest in networks_by_part(exclusive, name)[0]]
    assert 0 < len(tested) < IMAGES
    assert sorted(record["dice"]) == tested
    assert text.count(" at its own ") == len(tested)
    assert record["networks"] == {name: {"stages": [digest], "out_of_fold": name in tested} for name in ALL}
    assert f"{IMAGES - len(tested)} images of the study's data: trained on, validated on or left out by every" in text


def test_training_images_of_a_fixed_test_set_get_ensemble_masks_without_dice(
    fixed: Finished, tmp_path: Path, capsys: Capture
) -> None:
    predict(fixed, tmp_path)
    record, text = description(tmp_path), capsys.readouterr().out
    tested = [name for name in ALL if networks_by_part(fixed, name)[0]]
    assert len(tested) == 3
    assert sorted(record["dice"]) == tested
    assert text.count(" at its own ") == len(tested)
    for name in ALL:
        assert record["networks"][name] == {"stages": fixed.stages, "out_of_fold": name in tested}
        np.testing.assert_array_equal(written_masks(tmp_path, name), masks_by(fixed, fixed.stages, name))
    line = "7 images of the study's data: trained on, validated on or left out by every network; ensemble mask, no Dice"
    assert line in text.splitlines()


def test_ensemble_predicts_own_images_with_all_networks_without_dice(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    predict(exclusive, tmp_path, "--ensemble")
    record, text = description(tmp_path), capsys.readouterr().out
    assert "dice" not in record
    assert "as scored" not in text
    for name in ALL:
        assert record["networks"][name] == {"stages": exclusive.stages, "out_of_fold": False}
        np.testing.assert_array_equal(written_masks(tmp_path, name), masks_by(exclusive, exclusive.stages, name))
    assert f"{IMAGES} images of the study's data: predicted by all networks (--ensemble), which may have" in text


def test_masks_of_another_size_report_the_dice_at_the_size_of_the_image(exclusive: Finished, tmp_path: Path) -> None:
    predict(exclusive, tmp_path / "own")
    predict(exclusive, tmp_path / "square", "--size", "40")
    assert pixels_of(tmp_path / "square" / "p0.png").shape == (40, 40)
    assert description(tmp_path / "square")["dice"] == description(tmp_path / "own")["dice"]


def test_an_image_is_recognised_by_its_content(exclusive: Finished, tmp_path: Path) -> None:
    shutil.copy(exclusive.data / "images" / "p3.png", tmp_path / "elsewhere.png")
    predict(exclusive, tmp_path / "out", images=tmp_path / "elsewhere.png")
    assert list(description(tmp_path / "out")["dice"]) == ["p3"]


@contextmanager
def added(study: Finished, files: dict[str, Path]) -> Iterator[None]:
    """Copy files to places in the study's data while a block lasts."""
    for place, file in files.items():
        shutil.copy(file, study.data / place)
    try:
        yield
    finally:
        for place in files:
            (study.data / place).unlink()


def test_an_image_without_a_mask_gets_an_ensemble_mask_without_dice(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    Image.fromarray(np.full((50, 60), 90, np.uint8)).save(tmp_path / "new.png")
    with added(exclusive, {"images/new.png": tmp_path / "new.png"}):
        predict(exclusive, tmp_path / "out")
    text, record = capsys.readouterr().out, description(tmp_path / "out")
    assert "1 image of the study's data: without a mask; ensemble mask, no Dice" in text.splitlines()
    assert record["networks"]["new"] == {"stages": exclusive.stages, "out_of_fold": False}
    assert sorted(record["dice"]) == ALL


def test_a_network_that_did_not_test_every_copy_of_an_image_is_not_out_of_fold(
    exclusive: Finished, tmp_path: Path
) -> None:
    with added(exclusive, {f"{name}/copy.png": exclusive.data / name / "p3.png" for name in ("images", "masks")}):
        predict(exclusive, tmp_path, images=exclusive.data / "images" / "p3.png")
    record = description(tmp_path)
    assert "dice" not in record
    assert [networks["out_of_fold"] for networks in record["networks"].values()] == [False]


def test_without_the_data_ensemble_masks_are_written_with_a_message(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(exclusive.data / "images" / "p3.png", tmp_path / "p3.png")
    exclusive.data.rename(exclusive.data.with_name("away"))
    try:
        predict(exclusive, tmp_path / "out", images=tmp_path / "p3.png")
    finally:
        exclusive.data.with_name("away").rename(exclusive.data)
    text = capsys.readouterr().out
    assert "the study's own images cannot be recognised and get ensemble masks: " in text
    assert "Dice" not in text
    np.testing.assert_array_equal(written_masks(tmp_path / "out", "p3"), masks_by(exclusive, exclusive.stages, "p3"))


@pytest.mark.parametrize(
    ("tested", "has_mask", "ensemble", "digests", "all_tested", "reason"),
    [
        ("b", True, False, "b", True, None),
        ("cb", True, False, "bc", True, None),
        ("abc", True, False, "abc", True, None),
        ("d", True, False, "abc", False, out_of_fold.NOT_TESTED),
        ("", True, False, "abc", False, out_of_fold.NOT_TESTED),
        ("", False, False, "abc", False, out_of_fold.UNLABELLED),
        ("b", True, True, "abc", False, out_of_fold.ENSEMBLE),
    ],
)
def test_the_networks_of_an_image_are_those_that_tested_it(
    tested: str, has_mask: bool, ensemble: bool, digests: str, all_tested: bool, reason: str | None
) -> None:
    image = StudyImage(id="p", rows=(0,), has_mask=has_mask, test_dice=dict.fromkeys(tested, 0.5))
    expected = Selection(digests=tuple(digests), out_of_fold=all_tested, no_dice=reason)
    assert networks_for(image, "abc", ensemble=ensemble) == expected


def test_an_undefined_dice_is_not_recorded() -> None:
    image, summary = StudyImage(id="p", rows=(0,), has_mask=True, test_dice={"a": float("nan")}), OutOfFoldSummary()
    dice = ImageDice(image="p", scored=float("nan"), original=0.5, evaluated_size=40, image_size=(8, 8))
    summary.add(image, networks_for(image, "a"), dice)
    assert summary.record() == {"networks": {"p": {"stages": ["a"], "out_of_fold": True}}}
    assert list(summary.lines()) == [f"1 image of the study's data: {out_of_fold.NO_CLASS}; out-of-fold mask, no Dice"]


def test_mean_dice_is_over_the_scored_classes_in_the_true_masks() -> None:
    full, half, empty = np.ones((2, 2), bool), np.array([[True, True], [False, False]]), np.zeros((2, 2), bool)
    masks = {"a": (full, half), "b": (full, empty), "c": (empty, full), BACKGROUND: (~half, ~half)}
    pixels = {
        name: np.array([(predicted & truth).sum(), predicted.sum(), truth.sum()])
        for name, (predicted, truth) in masks.items()
    }
    assert mean_dice(pixels, MetricSettings()) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_dice(pixels, MetricSettings(classes=("a", "b"))) == pytest.approx(2 / 3)
    assert mean_dice(pixels, MetricSettings(classes=("a",), background=True)) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(mean_dice(pixels, MetricSettings(classes=("b",))))


def test_a_custom_threshold_is_reported_beside_the_scores(seeds: Finished, tmp_path: Path, capsys: Capture) -> None:
    predict(seeds, tmp_path, "--threshold", "0.7", images=seeds.data / "images" / "p0.png")
    assert "Dice as scored is at threshold 0.4, at own size at 0.7" in capsys.readouterr().out


def test_allowed_leaks_are_reported_beside_the_dice(seeds: Finished, tmp_path: Path, capsys: Capture) -> None:
    file = seeds.store.study("tiny") / "spec.yaml"
    original = file.read_text()
    file.write_text(f"{original}leaks: report\n")
    try:
        predict(seeds, tmp_path, images=seeds.data / "images" / "p0.png")
    finally:
        file.write_text(original)
    assert "pretraining may have read these images" in capsys.readouterr().out
