"""`study export`: other programs read its files and give the outputs of the stage."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from datasets.settings import ImageSettings
from datasets.sources import FolderSettings, open_source
from datasets.targets import fit_masks
from models.encoders.vision import smp
from models.export import Ensemble
from study.cli.main import main
from study.training.load_model import open_model
from tests.support.bare_environment import link_distributions
from tests.support.finished import CLASSES, Finished, finished

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory.mktemp("study"), overlapping=False)


@pytest.fixture(scope="module")
def own_network(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    changes = {"compare.architecture": ["segnet_basic"], "compare.backbone": ["own"], "stages.segment.steps": 2}
    return finished(tmp_path_factory.mktemp("own"), overlapping=False, changes=changes)


def export(study: Finished, *words: str | Path) -> int:
    """Run the command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, words), "--storage", str(study.store.root), "--cache", str(study.cache)])
    return int(ended.value.code or 0)


def test_onnx_is_checked_on_images_of_the_study_and_returns_probabilities(
    study: Finished, tmp_path: Path, capsys: Capture
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export(study, study.stages[0][:6], "-o", tmp_path / "a.onnx") == 0
    assert "checked on 4 images of hospital: probabilities are at most" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    images = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    (output,) = session.run(None, {"images": images})
    model = open_model(study.store, study.stages[0])
    with torch.no_grad():
        expected = model.task.probabilities(model.network(torch.from_numpy(images)))
    np.testing.assert_allclose(output, expected.numpy(), atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    assert json.loads(about["prepare"])["normalise"] is True
    assert (about["size"], about["channels"], about["threshold"]) == ("32", "1", "0.4")
    assert about["digest"] == study.stages[0]


def test_onnx_of_an_ensemble_returns_the_mean_over_folds(study: Finished, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ["--ensemble", "--images", study.data / "images" / "p0.png"]
    assert export(study, "tiny", "-o", tmp_path / "a.onnx", *words) == 0
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    images = torch.rand(1, 1, 32, 32)
    ensemble = Ensemble([open_model(study.store, digest).network for digest in study.stages], exclusive=True).eval()
    with torch.no_grad():
        np.testing.assert_allclose(
            session.run(None, {"images": images.numpy()})[0], ensemble(images).numpy(), atol=1e-4
        )


def test_an_exported_folder_is_loaded_by_the_library_with_equal_logits(study: Finished, tmp_path: Path) -> None:
    assert export(study, "tiny", "-o", tmp_path / "model", "--fold", "1") == 0
    loaded = smp.from_pretrained(tmp_path / "model").eval()
    network = open_model(study.store, study.stages[1]).network
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded((images - network.mean) / network.std), network(images), rtol=1e-3, atol=1e-4)


def test_the_model_card_states_data_scores_limits_and_origin(study: Finished, tmp_path: Path) -> None:
    assert export(study, study.stages[1], "-o", tmp_path / "model") == 0
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    record = study.store.record(study.stages[1])
    for expected in (
        "not for diagnosis",
        f"Data set hospital (source folder): {record['data']['train']} images with labels",
        "| macro | ",
        "| left half | ",
        " networks of the same cell",
        study.stages[1],
        f"torch {version('torch')}",
        'with 1 channel, after these changes: {"normalise": true',
        "It started from random weights",
    ):
        assert expected in card


def test_the_network_with_the_best_validation_score_is_exported(study: Finished, tmp_path: Path) -> None:
    assert export(study, "tiny", "-o", tmp_path / "a.safetensors") == 0
    best = max(study.stages, key=lambda digest: study.store.record(digest)["best_score"])
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        about = file.metadata()
    assert (about["digest"], json.loads(about["classes"])) == (best, CLASSES)
    written, stored = load_file(tmp_path / "a.safetensors"), load_file(study.store.weights(best))
    assert written.keys() == stored.keys()
    assert all(torch.equal(written[name], stored[name]) for name in stored)


def test_a_network_unknown_to_the_library_is_refused_as_a_folder(
    own_network: Finished, tmp_path: Path, capsys: Capture
) -> None:
    assert export(own_network, "tiny", "-o", tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert "segnet_basic is none of segmentation-models-pytorch; allowed: .onnx or .safetensors" in error
    assert not (tmp_path / "model").exists()
    assert export(own_network, "tiny", "-o", tmp_path / "a.safetensors") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "a.pt"], "a.pt ends in .pt; allowed: .onnx, .safetensors, or a folder; rename it"),
        (["-o", "a.safetensors", "--ensemble"], "--ensemble is for .onnx"),
        (["-o", "."], ". exists; allowed: a new path"),
        (["-o", "a.onnx", "--images", "none.png"], "none.png cannot be read"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    words: list[str], message: str, study: Finished, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    assert export(study, "tiny", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_dropped_weights_are_reported_with_a_remedy(tmp_path: Path, capsys: Capture) -> None:
    study = finished(tmp_path / "study", overlapping=True, changes={"stages.segment.steps": 1, "compare.folds": 2})
    study.store.drop_weights(study.stages)
    assert export(study, "tiny", "-o", tmp_path / "a.safetensors") == 2
    error = capsys.readouterr().err
    assert "its weights were not kept; allowed: a stage with its weights" in error
    assert "keep: {weights: all}" in error


ALONE = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import numpy as np
import torch
"""
"""The start of a program whose packages and modules are in two folders."""
SCORES = """
from pathlib import Path
model = load(sys.argv[3])
scores = {}
for file in sorted(Path(sys.argv[4]).iterdir()):
    masks = model.predict(read(file), size=(40, 40)).masks
    truth = np.load(Path(sys.argv[5]) / (file.stem + ".npy"))
    both, sizes = (masks & truth).sum(axis=(1, 2)), masks.sum(axis=(1, 2)) + truth.sum(axis=(1, 2))
    scores[file.stem] = (2 * both / sizes).tolist()
print(json.dumps(scores))
"""


def alone(code: str, packages: Path, folder: Path, *arguments: str | Path) -> str:
    """Run a program in a folder with some packages and without the platform; return what it prints."""
    words = map(str, (packages, folder, *arguments))
    command = [sys.executable, "-I", "-S", "-W", "ignore::DeprecationWarning", "-c", ALONE + code, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def card_code(folder: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    return str(code)


def write_truth(study: Finished, folder: Path) -> None:
    """Write the true masks (classes, 40, 40) of every image."""
    folder.mkdir()
    overlapping = not (study.data / "classes.txt").exists()
    source = open_source(FolderSettings(root=study.data, classes=tuple(CLASSES)))
    for row, name in enumerate(source.index(study.cache).ids):
        masks = fit_masks(source.masks(row), ImageSettings(size=40))
        np.save(folder / f"{name}.npy", masks > 0 if overlapping else masks == np.arange(1, 3)[:, None, None])


def stored_dice(study: Finished, digest: str) -> dict[str, list[float]]:
    """Return the Dice of each class on the test images of a network."""
    (file,) = study.store.stage(digest).glob("scores-*.parquet")
    rows = pq.read_table(file, filters=[("split", "=", "test"), ("class", "in", CLASSES)]).to_pylist()
    dice = {(row["image"], row["class"]): 2 * row["tp"] / (2 * row["tp"] + row["fp"] + row["fn"]) for row in rows}
    return {image: [dice[image, name] for name in CLASSES] for image, _ in dice}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install torch segmentation-models-pytorch safetensors` installs."""
    folder = tmp_path_factory.mktemp("bare") / "packages"
    link_distributions(["torch", "segmentation-models-pytorch", "safetensors"], folder)
    assert not {"study", "models", "datasets", "ray", "cv2", "pandas"} & {path.name for path in folder.iterdir()}
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image.fit": "stretch", "image.channels": 3, "evaluate.tta": ["flip"]},
        {"image.fit": "patch", "image.scale": 0.75, "image.prepare": {"gamma": 1.5}, "overlapping": True},
    ],
    ids=["letterbox", "stretch", "patch"],
)
def test_the_code_of_the_model_card_gives_the_scored_dice_without_the_platform(
    changes: dict[str, Any], packages: Path, tmp_path: Path
) -> None:
    overlapping = changes.pop("overlapping", False)
    if changes.get("image.channels") == 3:
        changes["image.prepare"] = {}
    study = finished(tmp_path / "study", overlapping=overlapping, changes=changes)
    digest = study.stages[1]
    folder = tmp_path / "model"
    assert export(study, digest, "-o", folder) == 0
    assert export(study, digest, "-o", tmp_path / "a.safetensors") == 0
    write_truth(study, tmp_path / "truth")
    shutil.copy(study.data / "images" / "p0.png", folder / "image.png")
    stored = stored_dice(study, digest)
    assert len(stored) == 5
    for place in (folder, tmp_path / "a.safetensors"):
        arguments = (folder, place, study.data / "images", tmp_path / "truth")
        *shown, scores = alone(card_code(folder) + SCORES, packages, *arguments).splitlines()
        assert all(name in "\n".join(shown) for name in CLASSES), shown
        predicted = json.loads(scores)
        for image, dice in stored.items():
            assert predicted[image] == pytest.approx(dice, abs=0.02), (image, predicted[image], dice)
