"""A study of images with five bands and a rectangular input: scores, prediction, export, report, refusals."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image

from study.cli.main import main
from study.inference.predictor import Predictor
from study.training.load_model import open_model
from tests.fuzz.running import run_command
from tests.support.documents import write_study
from tests.support.finished import CLASSES, IMAGES, Finished, finished
from tests.support.tiny import tiny

BANDS = 5
Capture = pytest.CaptureFixture[str]


def write_bands(root: Path) -> None:
    """Write images whose first four bands are noise; the fifth one shows the masks."""
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        bands = random.integers(0, 120, (48, 96, BANDS), dtype=np.uint8)
        mask = np.zeros((48, 96), np.uint8)
        top, left = int(random.integers(4, 24)), int(random.integers(4, 60))
        mask[top : top + 20, left : left + 16], mask[top : top + 20, left + 16 : left + 30] = 1, 2
        bands[..., 4] += np.array([0, 60, 130], np.uint8)[mask]
        tifffile.imwrite(root / "images" / f"p{number}.tif", bands, photometric="minisblack", planarconfig="contig")
        Image.fromarray(mask).save(root / "masks" / f"p{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")


CHANGES = {
    "image.channels": BANDS, "image.size": [32, 64], "evaluate": {"size": [40, 80], "threshold": 0.4},
    "stages.segment.augment": {"flip": 0.5, "rotate": 5, "crop": 0.1, "elastic": 0.02},
}  # fmt: skip


@pytest.fixture(scope="module", params=["letterbox", "patch"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("bands")
    return finished(root, overlapping=False, changes=CHANGES | {"image.fit": request.param}, write=write_bands)


def run(study: Finished, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*map(str, words), "--storage", str(study.store.root), "--cache", str(study.cache)])
    return int(exit_.value.code or 0)


def test_the_network_uses_all_bands_and_learns_from_the_last_one(study: Finished) -> None:
    model = open_model(study.store, study.stages[0])
    assert model.network.mean.shape == (1, BANDS, 1, 1)
    results = pq.read_table(study.store.study("tiny") / "results.parquet").to_pylist()
    dice = [row["value"] for row in results if (row["metric"], row["class"], row["aggregation"], row["split"])
            == ("dice", "macro", "dataset", "test")]  # fmt: skip
    assert np.mean(dice) > 0.15


def test_every_pixel_of_a_scored_image_is_counted_once(study: Finished) -> None:
    replicate = study.plan.replicates[0]
    rows = pq.read_table(study.store.scores(replicate.chain[-1], replicate.scoring.key)).to_pylist()
    assert {row["tp"] + row["fp"] + row["fn"] + row["tn"] for row in rows} == {40 * 80}


def test_images_of_any_shape_are_predicted(study: Finished) -> None:
    predictor = Predictor([open_model(study.store, digest) for digest in study.stages])
    for height, width in ((48, 96), (100, 30), (9, 200)):
        probabilities = predictor.probabilities(np.full((height, width, BANDS), 100, np.uint8))
        assert probabilities.shape == (3, height, width)
        torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(height, width), atol=1e-5, rtol=0)


def test_masks_overlays_and_onnx_are_written(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnxruntime")
    assert run(study, "predict", "tiny", study.data / "images", "-o", tmp_path / "out", "--overlay") == 0
    assert np.asarray(Image.open(tmp_path / "out" / "p0.png")).shape == (48, 96)
    assert "80 x 40" in capsys.readouterr().out
    assert run(study, "export", "tiny", "-o", tmp_path / "a.onnx") == 0
    assert f"images (N, {BANDS}, 32, 64) of 0 to 1" in capsys.readouterr().out


def test_the_report_shows_the_first_band(study: Finished) -> None:
    assert run(study, "report", "tiny") == 0
    page = (study.store.study("tiny") / "report" / "report.html").read_text()
    assert "cannot be shown" not in page


def test_images_with_other_channels_are_skipped_in_predictions(
    study: Finished, tmp_path: Path, capsys: Capture
) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "colour.png")
    run(study, "predict", "tiny", tmp_path / "colour.png", study.data / "images" / "p1.tif", "-o", tmp_path / "out")
    expected = "left out: colour.png has 3 channels; allowed: 5, as image.channels is 5; use other images"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image.channels": 1}, "image.channels: is 1, but 10 images of hospital have 5 (p0, p1, p2, p3, p4, 5 more); "
                                "allowed: 5; set image.channels to 5"),
        ({"stages.segment.image": {"channels": 3}}, "stages.segment.image.channels: is 3, but 10 images"),
        ({"image.channels": 0}, "image.channels: is 0; allowed: greater than or equal to 1"),
        ({"image.size": [32, 50]}, "image.size: image size is [32, 50]; allowed: multiples of 32 from 32 on; "
                                   "set image.size to [32, 64]"),
        ({"image.size": [32]}, "image.size[1]: is missing; allowed: a whole number"),
        ({"image.size": "large"}, "image.size: is large; allowed: a whole number or a list"),
        ({"evaluate": {"size": [8, 64]}}, "evaluate.size[0]: is 8; allowed: greater than or equal to 16"),
    ],
)  # fmt: skip
def test_unsuitable_images_are_refused_in_one_line(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    write_bands(tmp_path / "data")
    data = {"hospital": {"source": "folder", "root": str(tmp_path / "data")}}
    document = tiny({"data": data, "pathways": {"none": ["segment"]}, "validation.min_cases": 1} | CHANGES | changes)
    document["stages"].pop("classify")
    write_study(document, tmp_path / "study.yaml")
    command = run_command("plan", str(tmp_path / "study.yaml"), "--cache", str(tmp_path / "cache"))
    assert command.status == 2
    (line,) = command.error.splitlines()
    assert expected in line


def test_an_autoencoder_reconstructs_every_band(tmp_path: Path) -> None:
    changes = CHANGES | {
        "stages.encode": {"task": "reconstruction", "data": "hospital", "epochs": 1, "batch_size": 4},
        "pathways": {"own": ["encode", {"stage": "segment", "carry": "encoder+decoder"}]},
        "compare.baseline": [],
    }
    study = finished(tmp_path, overlapping=False, changes=changes, write=write_bands)
    (parent,) = {study.store.record(digest)["parent"] for digest in study.stages[:1]}
    assert study.store.record(parent)["outputs"]["names"] == [f"channel {number}" for number in range(1, BANDS + 1)]


def test_data_check_counts_the_channels(study: Finished, tmp_path: Path) -> None:
    command = run_command(
        "data", "check", "folder", str(study.data), "--cache", str(study.cache), "-o", str(tmp_path / "s.png")
    )
    assert command.status == 0
    assert "channels   5 10" in command.out
