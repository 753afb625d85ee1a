"""Prediction with networks trained on several files per image, as in raw data sets of nnU-Net."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from datasets.decoding.decode import read
from datasets.settings import FileChannels, VolumeSettings
from study import Study
from study.cli.main import main
from study.errors import ConfigError
from study.inference.inputs import InputImage, group_channels
from study.training.load_model import open_model
from tests.support.finished import Finished, finished
from tests.support.nnunet import write_decathlon, write_nnunet

Capture = pytest.CaptureFixture[str]
SHAPE = (32, 28, 4)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("channels")
    source = {"source": "nnunet", "root": str(root / "data"), "channels": ["T2w", "FLAIR", "T1w"]}
    changes = {"data": {"hospital": source}, "image.channels": 3, "evaluate": {"size": 32}}
    return finished(root, write=lambda data: write_nnunet(data, cases=4, tests=0, shape=SHAPE), changes=changes)


def run(study: Finished, *words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--storage", str(study.store.root), "--cache", str(study.cache)])
    return int(ended.value.code or 0)


def test_channels_of_a_case_are_read_together(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    assert open_model(study.store, study.stages[0]).channel_files == (3, 0, 1)
    assert run(study, "predict", "tiny", study.data / "imagesTr", "-o", tmp_path) == 0
    assert "mean of 4 test images: Dice" in capsys.readouterr().out
    masks = sorted(path.name for path in tmp_path.glob("*.nii.gz"))
    assert masks == [f"brain_{number:03d}.nii.gz" for number in range(4)]
    mask = read(tmp_path / masks[0], "ids", VolumeSettings())
    assert mask.shape == (4, 28, 32)
    assert np.isin(mask, (0, 1, 2)).all()


def test_a_case_with_missing_channels_is_skipped(study: Finished, tmp_path: Path, capsys: Capture) -> None:
    files = [study.data / "imagesTr" / f"brain_000_{number:04d}.nii.gz" for number in (0, 3)]
    assert run(study, "predict", "tiny", *files, "-o", tmp_path) == 2
    message = "there is no brain_000_0001; allowed: a file for each channel (_0003, _0000, _0001); add it"
    assert message in capsys.readouterr().err


def test_python_predicts_the_files_of_a_case_together(study: Finished, tmp_path: Path) -> None:
    opened = Study.open(study.store.root, "tiny", cache=study.cache)
    files = [
        study.data / "imagesTr" / f"brain_{case}_{number:04d}.nii.gz" for case in ("000", "001") for number in (0, 1, 3)
    ]
    assert run(study, "predict", "tiny", study.data / "imagesTr", "-o", tmp_path, "--overlay") == 0
    predictions = opened.predict(files)
    assert len(predictions) == 2
    for number, prediction in enumerate(predictions):
        assert prediction.pixels.shape[-1] == 3
        with Image.open(tmp_path / f"brain_00{number}_overlay.png") as overlay:
            np.testing.assert_array_equal(prediction.overlay(), np.asarray(overlay))
    with pytest.raises(
        ConfigError, match=r"is one of the files of an image.*\(_0003, _0000, _0001\); .*; write a list"
    ):
        opened.predict(files[0])


def test_modalities_in_one_file_are_predicted_together(tmp_path: Path, capsys: Capture) -> None:
    source = {"source": "nnunet", "root": str(tmp_path / "data"), "channels": ["T2w", "FLAIR", "T1w"]}
    changes = {"data": {"hospital": source}, "image.channels": 3, "evaluate": {"size": "native", "threshold": 0.5}}
    study = finished(tmp_path, write=lambda data: write_decathlon(data, cases=4, shape=SHAPE), changes=changes)
    model = open_model(study.store, study.stages[0])
    assert model.file_channels == FileChannels(count=4, selected=(3, 0, 1))
    image = study.data / "imagesTr" / "BRATS_001.nii.gz"
    assert run(study, "predict", "tiny", image, "-o", tmp_path / "masks", "--overlay") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("BRATS_001"))
    scored, full_size = (float(text) for text in line.partition("Dice ")[2].replace(" as scored,", "").split()[:2])
    assert scored == pytest.approx(full_size, abs=1e-3)
    mask, stored = (nib.load(path) for path in (tmp_path / "masks" / image.name, image))
    assert mask.shape == SHAPE  # type: ignore[attr-defined]
    assert np.array_equal(mask.affine, stored.affine)  # type: ignore[attr-defined]
    assert mask.header.get_zooms() == stored.header.get_zooms()[:3]  # type: ignore[attr-defined]


def test_channels_are_grouped_by_name_and_folder() -> None:
    images = [
        InputImage(file=Path(folder) / f"{name}.nii.gz", output=Path("out") / folder / name)
        for folder in ("x", "y")
        for name in ("a_0000", "a_0001", "a_0002", "b_0000", "c")
    ]
    grouped = group_channels(images, (2, 0))
    assert [(image.output, bool(image.fault)) for image in grouped[:3]] == [
        (Path("out/x/a"), False), (Path("out/x/b"), True), (Path("out/x/c"), True),
    ]  # fmt: skip
    assert grouped[3].files == (Path("y/a_0002.nii.gz"), Path("y/a_0000.nii.gz"))
