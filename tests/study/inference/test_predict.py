"""`study predict`: masks agree with the scores and have the size of their image; unreadable images are skipped."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from datasets.settings import ImageSettings
from datasets.sources import FolderSettings, open_source
from datasets.targets import fit_masks
from study.cli.main import main
from study.inference.predictor import Predictor
from study.training.load_model import open_model
from tests.support.dicom import write_dicom
from tests.support.finished import CLASSES, Finished
from tests.support.volumes import write_nifti, write_stack

Capture = pytest.CaptureFixture[str]
SIZE, THRESHOLD = 40, 0.4


def predict(study: Finished, *words: str | Path) -> int:
    """Run the command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["predict", *map(str, words), "--storage", str(study.store.root)])
    return int(ended.value.code or 0)


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def predicted(output: Path, stem: str, *, overlapping: bool) -> list[NDArray[np.bool_]]:
    """Return the masks by class."""
    if overlapping:
        return [pixels_of(output / f"{stem}_{name.replace(' ', '_')}.png") > 0 for name in CLASSES]
    return [pixels_of(output / f"{stem}.png") == number for number in (1, 2)]


@pytest.mark.parametrize("kind", ["exclusive", "overlapping"])
def test_masks_at_the_evaluated_size_have_the_stored_counts(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    study: Finished = request.getfixturevalue(kind)
    overlapping = kind == "overlapping"
    assert predict(study, "tiny", study.data / "images", "-o", tmp_path, "--size", str(SIZE)) == 0
    source = open_source(FolderSettings(root=study.data, classes=tuple(CLASSES)))
    index = source.index(study.cache)
    counts, stored = {}, {}
    for digest in study.stages:  # every image is a test image of one fold, whose network writes its mask
        (file,) = study.store.stage(digest).glob("scores-*.parquet")
        chosen = [("split", "=", "test"), ("class", "in", CLASSES)]
        for row in pq.read_table(file, filters=chosen).to_pylist():
            truth = fit_masks(source.masks(index.ids.index(row["image"])), ImageSettings(size=SIZE))
            number = CLASSES.index(row["class"])
            true = truth[number] > 0 if overlapping else truth == number + 1
            mask = predicted(tmp_path, row["image"], overlapping=overlapping)[number]
            key = row["image"], row["class"]
            counts[key] = (int((mask & true).sum()), int((mask & ~true).sum()), int((true & ~mask).sum()))
            stored[key] = (row["tp"], row["fp"], row["fn"])
    assert counts == stored
    assert any(tp and fp and fn for tp, fp, fn in counts.values())  # masks neither empty nor full


def test_masks_have_the_size_of_their_image(exclusive: Finished, tmp_path: Path) -> None:
    assert predict(exclusive, "tiny", exclusive.data / "images", "-o", tmp_path) == 0
    sizes = {path.stem: pixels_of(path).shape for path in tmp_path.glob("p*.png")}
    assert sizes == {path.stem: pixels_of(path).shape for path in (exclusive.data / "images").iterdir()}


@pytest.mark.parametrize(("text", "shape", "recorded"), [("45x31", (45, 31), [45, 31]), ("[33, 33]", (33, 33), 33)])
def test_a_size_has_one_or_two_sides_of_any_length(
    exclusive: Finished, tmp_path: Path, text: str, shape: tuple[int, int], recorded: object
) -> None:
    image = exclusive.data / "images" / "p0.png"
    options = ["--size", text, "--overlay", "--probabilities", "float16"]
    assert predict(exclusive, "tiny", image, "-o", tmp_path, *options) == 0
    assert pixels_of(tmp_path / "p0.png").shape == shape
    assert pixels_of(tmp_path / "p0_overlay.png").shape == (*shape, 3)
    assert np.load(tmp_path / "p0.npz")["probabilities"].shape == (3, *shape)
    assert json.loads((tmp_path / "predictions.json").read_text())["size"] == recorded


def test_the_ensemble_predicts_the_mean_probability_of_its_folds(overlapping: Finished, tmp_path: Path) -> None:
    image = overlapping.data / "images" / "p0.png"
    stored = []
    for name, words in {"both": ["tiny", "--ensemble"], **{digest: [digest] for digest in overlapping.stages}}.items():
        assert predict(overlapping, *words, image, "-o", tmp_path / name, "--probabilities", "float32") == 0
        with np.load(tmp_path / name / "p0.npz") as arrays:
            assert list(arrays["names"]) == CLASSES
            stored.append(arrays["probabilities"])
    np.testing.assert_allclose(stored[0], (stored[1] + stored[2]) / 2, atol=1e-6)
    masks = predicted(tmp_path / "both", "p0", overlapping=True)
    np.testing.assert_array_equal(masks, stored[0] >= THRESHOLD)


def test_new_images_are_predicted_by_the_mean_probability_of_all_networks(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    pixels = np.random.default_rng(0).integers(
        0, 255, (32, 32), np.uint8
    )  # of the input size of the networks: nothing is resized
    Image.fromarray(pixels).save(tmp_path / "p0.png")
    output = tmp_path / "out"
    assert predict(exclusive, "tiny", tmp_path / "p0.png", "-o", output, "--probabilities", "float32") == 0
    probabilities = [
        Predictor([open_model(exclusive.store, digest)]).predict_input(pixels) for digest in exclusive.stages
    ]
    mean = torch.stack(probabilities).mean(dim=0).numpy()
    with np.load(output / "p0.npz") as arrays:
        np.testing.assert_array_equal(arrays["probabilities"], mean)
    np.testing.assert_array_equal(pixels_of(output / "p0.png"), mean.argmax(axis=0))
    assert "Dice" not in capsys.readouterr().out
    assert not {"dice", "networks"} & json.loads((output / "predictions.json").read_text()).keys()


def test_a_description_is_written_beside_the_predictions(exclusive: Finished, tmp_path: Path) -> None:
    assert predict(exclusive, exclusive.stages[0][:8], exclusive.data / "images", "-o", tmp_path, "--overlay") == 0
    about = json.loads((tmp_path / "predictions.json").read_text())
    assert about["ids"] == {"0": "background", "1": "blob", "2": "left half"}
    assert (about["stages"], about["threshold"]) == ([exclusive.stages[0]], THRESHOLD)
    assert list(about["colours"]) == CLASSES
    assert pixels_of(tmp_path / "p0_overlay.png").shape == (70, 50, 3)


def test_an_unreadable_image_is_reported_and_the_others_are_predicted(
    exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "broken.png").write_bytes(b"no image")
    (images / "whole.png").write_bytes((exclusive.data / "images" / "p0.png").read_bytes())
    assert predict(exclusive, "tiny", images, "-o", tmp_path / "out") == 1
    output = capsys.readouterr()
    assert output.err.startswith("left out: broken.png cannot be decoded")
    assert output.out.endswith("1 of 2 images could not be read\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"whole.png", "predictions.json"}


def test_input_without_any_readable_image_is_refused(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    assert predict(exclusive, "tiny", tmp_path / "none.png", "-o", tmp_path / "out") == 2
    assert "none of 1 images can be read; allowed: PNG, JPEG, TIFF, NIfTI and DICOM" in capsys.readouterr().err


def test_a_dicom_file_is_predicted_like_its_pixels(exclusive: Finished, tmp_path: Path) -> None:
    pixels = pixels_of(exclusive.data / "images" / "p1.png")
    write_dicom(tmp_path / "p1.dcm", pixels)
    for image in (tmp_path / "p1.dcm", exclusive.data / "images" / "p1.png"):
        assert predict(exclusive, "tiny", image, "-o", tmp_path / image.suffix, "--ensemble") == 0
    np.testing.assert_array_equal(pixels_of(tmp_path / ".dcm/p1.png"), pixels_of(tmp_path / ".png/p1.png"))


def test_folders_are_kept_and_names_that_differ_in_their_suffix_keep_it(exclusive: Finished, tmp_path: Path) -> None:
    data = (exclusive.data / "images" / "p0.png").read_bytes()
    for name in ("a/x.png", "b/x.png", "b/x.tif"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    assert predict(exclusive, "tiny", tmp_path / "in", "-o", tmp_path / "in" / "out") == 0
    assert (
        predict(exclusive, "tiny", tmp_path / "in", "-o", tmp_path / "in" / "out") == 0
    )  # predictions are not input images
    written = {str(path.relative_to(tmp_path / "in" / "out")) for path in (tmp_path / "in" / "out").rglob("*.png")}
    assert written == {"a/x.png", "b/x.png.png", "b/x.tif.png"}


def test_an_image_is_never_replaced(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    before = (exclusive.data / "images" / "p0.png").read_bytes()
    (tmp_path / "p0.png").write_bytes(before)
    assert predict(exclusive, "tiny", tmp_path / "p0.png", "-o", tmp_path) == 2
    assert "would replace the image" in capsys.readouterr().err
    assert (tmp_path / "p0.png").read_bytes() == before


def test_files_other_than_predictions_are_never_replaced(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    images, masks = exclusive.data / "images", tmp_path / "masks"
    shutil.copytree(exclusive.data / "masks", masks)
    before = (masks / "p3.png").read_bytes()
    assert predict(exclusive, "tiny", images, "-o", masks) == 2
    message = capsys.readouterr().err
    assert f"would replace {masks}/p0.png (10 such files), and its folder has no predictions; allowed: " in message
    assert (masks / "p3.png").read_bytes() == before
    for _ in range(2):  # predictions may be overwritten
        assert predict(exclusive, "tiny", images, "-o", tmp_path / "out") == 0


def test_two_images_with_the_same_output_name_are_refused(exclusive: Finished, tmp_path: Path, capsys: Capture) -> None:
    for name in ("p0.png", "p0_overlay.png"):
        (tmp_path / name).write_bytes((exclusive.data / "images" / "p0.png").read_bytes())
    images = sorted(tmp_path.glob("*.png"))
    assert predict(exclusive, "tiny", *images, "-o", tmp_path / "out", "--overlay") == 2
    assert "p0.png and " in (message := capsys.readouterr().err)
    assert "would both be written as p0_overlay.png; allowed: different names" in message
    assert predict(exclusive, "tiny", *images, "-o", tmp_path / "out") == 0


def test_files_of_overlapping_classes_are_the_documented_ones(overlapping: Finished, tmp_path: Path) -> None:
    data = (overlapping.data / "images" / "p0.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data)
    assert predict(overlapping, "tiny", tmp_path / "a.png", "-o", tmp_path / "one") == 0
    about = json.loads((tmp_path / "one" / "predictions.json").read_text())
    assert about["files"] == {"blob": "_blob.png", "left half": "_left_half.png"}
    write_stack(tmp_path / "b.tif", np.stack([pixels_of(tmp_path / "a.png")] * 2))
    write_nifti(tmp_path / "c.nii.gz", pixels_of(tmp_path / "a.png")[:, :, None])
    images = [tmp_path / name for name in ("a.png", "b.tif", "c.nii.gz")]
    assert predict(overlapping, "tiny", *images, "-o", tmp_path / "all") == 0
    about = json.loads((tmp_path / "all" / "predictions.json").read_text())
    assert about["files"]["blob"] == ["_blob.nii.gz", "_blob.png", "_blob.tif"]
    written = {path.name for path in (tmp_path / "all").iterdir()}
    assert {"a_blob.png", "b_blob.tif", "c_left_half.nii.gz", "predictions.json"} <= written
    assert predict(overlapping, "tiny", tmp_path / "c.nii.gz", "-o", tmp_path / "volume") == 0
    about = json.loads((tmp_path / "volume" / "predictions.json").read_text())
    assert about["files"] == {"blob": "_blob.nii.gz", "left half": "_left_half.nii.gz"}


def test_a_tile_as_large_as_the_image_changes_nothing(exclusive: Finished) -> None:
    predictor = Predictor([open_model(exclusive.store, exclusive.stages[0])])
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    np.testing.assert_allclose(predictor.probabilities(pixels, tile=64), predictor.probabilities(pixels), atol=1e-6)


def test_tiles_are_predicted_at_their_own_scale_without_seams(exclusive: Finished) -> None:
    predictor = Predictor([open_model(exclusive.store, exclusive.stages[0])])
    pattern = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    blended = predictor.probabilities(np.tile(pattern, (3, 4)), tile=64)
    assert blended.shape == (3, 96, 128)
    period = blended[:, 32:64, 32:64]  # every tile has the same content, wherever it starts
    np.testing.assert_allclose(blended[:, 32:64, 64:96], period, atol=1e-5)
    assert (blended.sum(dim=0) - 1).abs().max() < 1e-5


def test_an_image_smaller_than_a_tile_keeps_its_scale(exclusive: Finished) -> None:
    predictor = Predictor([open_model(exclusive.store, exclusive.stages[0])])
    pixels = np.random.default_rng(0).integers(0, 255, (20, 64), dtype=np.uint8)
    padded = np.zeros((64, 64), np.uint8)
    padded[:20] = pixels
    np.testing.assert_allclose(
        predictor.probabilities(pixels, tile=64), predictor.probabilities(padded)[:, :20], atol=1e-6
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tini"], "unknown study 'tini'; allowed: tiny; did you mean tiny?"),
        (["tiny", "--arm", "pathwy=none"], "unknown factor 'pathwy'; allowed: architecture, "),
        (["tiny", "--arm", "pathway=one"], "unknown pathway 'one'; allowed: none"),
        (["tiny", "--fold", "7"], "no replicate has fold 7; allowed: fold 0 seed 0, "),
        (["tiny", "--tile", "big"], "--tile: is big; allowed: auto, or 16 to 16384 pixels"),
        (["tiny", "--size", "40x"], "--size: is 40x; allowed: a side or HEIGHTxWIDTH, 16 to 16384 pixels each"),
        (["tiny", "--size", "x40"], "--size: is x40; allowed: a side or HEIGHTxWIDTH"),
        (["tiny", "--size", "40x40x40"], "--size: is 40x40x40; allowed: a side or HEIGHTxWIDTH"),
        (["tiny", "--size", "15x40"], "--size: is 15x40; allowed: a side or HEIGHTxWIDTH"),
        (["tiny", "--size", "40x16385"], "--size: is 40x16385; allowed: a side or HEIGHTxWIDTH"),
        (["tiny", "--size", "-4"], "--size: is -4; allowed: a side or HEIGHTxWIDTH"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    words: list[str], message: str, exclusive: Finished, tmp_path: Path, capsys: Capture
) -> None:
    name, *options = words
    assert predict(exclusive, name, exclusive.data / "images" / "p0.png", "-o", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_arm_is_selected_by_its_factors(exclusive: Finished, tmp_path: Path) -> None:
    words = ["--arm", "pathway=none", "--arm", "labelled_fraction=1"]
    assert predict(exclusive, "tiny", exclusive.data / "images" / "p0.png", "-o", tmp_path, *words) == 0
