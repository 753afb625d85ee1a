"""A study of patches: prediction, export and report of images of several shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.cli.main import main
from study.inference.predictor import Predictor
from study.training.load_model import open_model
from tests.support.finished import Finished, finished

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    changes = {
        "image.fit": "patch",
        "image.scale": 0.75,
        "stages.segment.patch": {"per_image": 2},
        "evaluate": {"size": "native", "threshold": 0.4},
    }
    return finished(tmp_path_factory.mktemp("patches"), overlapping=False, changes=changes)


def run(study: Finished, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--storage", str(study.store.root), "--cache", str(study.cache)])
    return int(ended.value.code or 0)


def test_an_image_of_any_size_gets_probabilities_of_its_size(study: Finished) -> None:
    predictor = Predictor([open_model(study.store, digest) for digest in study.stages])
    for size in ((70, 50), (9, 200), (1, 1)):
        probabilities = predictor.probabilities(np.full(size, 100, np.uint8))
        assert probabilities.shape == (3, *size)
        torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(size), atol=1e-5, rtol=0)


def test_predicted_masks_of_images_of_the_study_have_the_scored_dice(
    study: Finished, tmp_path: Path, capsys: Capture
) -> None:
    assert run(study, "predict", "tiny", study.data / "images", "-o", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("p")]
    assert len(lines) == 10
    for line in lines:
        scored, full = (float(text) for text in line.partition("Dice ")[2].replace(" as scored,", "").split()[:2])
        assert scored == pytest.approx(full, abs=1e-4)


def test_onnx_is_checked_on_patches(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnxruntime")
    assert run(study, "export", "tiny", "-o", tmp_path / "a.onnx") == 0
    assert "checked on" in capsys.readouterr().out


def test_images_below_the_working_folder_are_recognised(
    study: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "own").mkdir()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "own" / "a.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(study, "export", "tiny", "-o", "a.onnx", "--images", "own") == 0
    assert run(study, "export", "tiny", "-o", "b.onnx", "--images", "empty") == 2
    assert capsys.readouterr().err.startswith("study export: empty: no images found; allowed: ")
    assert run(study, "predict", "tiny", "own", "-o", "own") == 2
    assert "own: no images found outside the output folder own; allowed: " in capsys.readouterr().err


def test_the_model_card_describes_the_sliding_window(study: Finished, tmp_path: Path) -> None:
    assert run(study, "export", "tiny", "-o", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert (
        "Inputs are windows of 32 x 32 pixels, cut out of an image in its own resolution, after both sides are" in card
    )
    assert json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))


def test_the_report_outlines_images_of_several_shapes(study: Finished, capsys: Capture) -> None:
    assert run(study, "report", "tiny") == 0
    page = (study.store.study("tiny") / "report" / "report.html").read_text(encoding="utf-8")
    assert "Test images with the outlines of truth and prediction of " in page
