"""`study figures`: the files it writes, their sizes, and what it refuses."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.support.finished import Finished
from tests.support.importing import study, write_sheet

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def words(exclusive: Finished, tmp_path: Path) -> list[str]:
    """The command for a finished study, with files for the folder `out`."""
    shutil.copytree(exclusive.store.root, tmp_path / "runs")
    places = ["--storage", str(tmp_path / "runs"), "--cache", str(exclusive.cache), "-o", str(tmp_path / "out")]
    return ["figures", "tiny", *places]


def test_every_figure_is_written_and_listed_with_its_size(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    options = ["--format", "png", "--width", "12cm", "--dpi", "254"]
    status, out, _ = study(capsys, *words, *options)
    assert status == 0
    listed = dict(re.findall(r"^wrote (.+) \(([\d.]+) x [\d.]+ mm\)$", out, flags=re.MULTILINE))
    assert sorted(map(Path, listed)) == sorted((tmp_path / "out").iterdir())
    assert {"learning_curve_mean_iou", "roc", "training", "cases"} <= {Path(name).stem for name in listed}
    assert set(listed.values()) == {"120"}
    for path in listed:
        with Image.open(path) as image:
            assert image.width == pytest.approx(1200, abs=1)


def test_by_default_figures_are_pdf_files_of_a_column_in_the_folder_of_the_study(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    status, out, _ = study(capsys, *words[:-2], "--no-images")
    assert status == 0
    folder = tmp_path / "runs/studies/tiny/figures"
    assert {path.suffix for path in folder.iterdir()} == {".pdf"}
    assert out.count(" (88 x ") == len(list(folder.iterdir()))
    assert not (folder / "cases.pdf").exists()


def test_figures_that_cannot_be_drawn_have_a_reason(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    for weights in (tmp_path / "runs").glob("stages/*/weights.safetensors"):
        weights.unlink()
    status, out, _ = study(capsys, *words)
    assert status == 0
    assert "Test images are not shown: the weights of the best cell were not kept" in out
    assert not (tmp_path / "out/cases.pdf").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width", "88"], "--width: is 88; allowed: 40mm to 1000mm, also in cm or in; write it as 88mm"),
        (["--width", "5mm"], "--width: is 5mm; allowed: 40mm to 1000mm, also in cm or in; write it as 88mm"),
        (["--width", "-88mm"], "--width: is -88mm; allowed: 40mm to 1000mm, also in cm or in; write it as 88mm"),
        (["--dpi", "5"], "--dpi: is 5; allowed: 50 to 1200 dots per inch; choose one of these"),
        (["--style", "poster"], "'poster' is not one of 'paper', 'slides'"),
        (["--format", "tiff"], "'tiff' is not one of 'svg', 'pdf', 'png'"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    options: list[str], message: str, words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    status, out, err = study(capsys, *words, *options)
    assert (status, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").touch()
    status, _, err = study(capsys, *words)
    assert status == 2
    assert "is a file; allowed: a folder; -o names another place" in err


def test_imported_results_have_no_figures(tmp_path: Path, capsys: Capture) -> None:
    rows = [(arm, seed, "dice", 0.5 + 0.01 * seed) for arm in ("a", "b") for seed in range(3)]
    sheet = write_sheet(tmp_path / "sheet.csv", ["backbone", "seed", "metric", "value"], rows)
    storage = ["--storage", tmp_path / "runs"]
    assert study(capsys, "import", sheet, "--name", "sheet", *storage)[0] == 0
    status, _, err = study(capsys, "figures", "sheet", *storage)
    assert status == 2
    assert "has imported results, which have no figures; allowed: a study that was run" in err
