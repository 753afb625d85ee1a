"""`study data check`: its output, its figure, and its errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from study.cli.main import main
from tests.support.chexpert import write_chexpert
from tests.support.folder import STEMS, write_folder
from tests.support.idrid import write_idrid
from tests.support.pictures import picture, save, truncate
from tests.support.volumes import write_ct_folder, write_stack

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def data_check(*words: str) -> int:
    """Run the command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", *words])
    return int(ended.value.code or 0)


def lines_of(text: str) -> dict[str, str]:
    """Return the rest of each line by its first word."""
    return {line.split()[0]: line.partition(" ")[2].strip() for line in text.splitlines()}


def test_sound_data_are_counted_and_drawn(capsys: Capture) -> None:
    write_folder(Path("mine"))
    assert data_check("folder", "mine") == 0
    out, err = capsys.readouterr()
    assert lines_of(out) == {
        "images": "6, of 5 patients",
        "category": "healthy 3; ill 3",
        "labels": "of 4 images: ill 2; old 1",
        "boxes": "of 2 images: disc 2; cup 1",
        "centres": "of 2 images: disc 2; fovea 1",
        "masks": "of 5 images: cup 5; disc 5",
        "size": "64 x 48 pixels, of the 6 images drawn",
        "wrote": "folder-contact.png: 6 images with their annotations",
        "no": "errors",
    }
    assert "Traceback" not in err
    with Image.open("folder-contact.png") as sheet:
        assert min(sheet.size) > 200


def test_volumes_are_counted_with_slices_and_spacing(capsys: Capture) -> None:
    write_ct_folder(Path("ct"), 2)
    write_stack(Path("ct/images/em.tif"), np.stack([picture(number) for number in range(3)]))
    assert data_check("folder", "ct", "--set", "window=[-160, 240]") == 0
    lines = lines_of(capsys.readouterr().out)
    assert lines["images"] == "19, of 3 patients"
    assert lines["volumes"] == "3 volumes of 3 to 8 slices, some of unknown spacing"
    Path("ct/images/em.tif").unlink()
    assert data_check("folder", "ct") == 0
    assert lines_of(capsys.readouterr().out)["volumes"] == "2 volumes of 8 slices, voxels of 5 x 1.5 x 1.5 mm"


def test_options_of_the_source_and_the_path_of_the_figure_are_used(capsys: Capture) -> None:
    write_idrid(Path("idrid"))
    assert (
        data_check("idrid", "idrid", "--set", "part=segmentation", "--set", "classes=[Optic Disc]", "-o", "a/b.png")
        == 0
    )
    lines = lines_of(capsys.readouterr().out)
    assert lines["masks"] == "of 8 images: Optic Disc 8"
    assert lines["split"] == "train 6; test 2"
    assert Path("a/b.png").is_file()


def test_generated_data_need_no_root(capsys: Capture) -> None:
    assert data_check("phantom", "--set", "images=6", "--set", "patients=3", "--set", "size=64") == 0
    assert lines_of(capsys.readouterr().out)["images"] == "6, of 3 patients"


def test_unusual_data_are_reported_without_an_error(capsys: Capture) -> None:
    write_folder(Path("mine"))
    save(np.zeros((48, 64), np.uint8), Path("mine/masks/dora.png"))
    save(np.full((48, 64), 9, np.uint8), Path("mine/images/anna-1.png"))
    assert data_check("folder", "mine") == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "anna-1: its image is constant" in warnings[0]
    assert "dora: its masks are empty" in warnings[1]


def write_broken(root: Path, fault: str) -> None:
    write_folder(root)
    images = sorted((root / "images").iterdir())
    if fault == "truncated":
        truncate(root / "images" / "dora.png")
    if fault == "unreadable":
        (root / "images" / "dora.png").write_text("not a picture")
    if fault == "class id":
        save(np.full((48, 64), 7, np.uint8), root / "masks" / "dora.png")
    if fault == "identical images":
        for path in images:
            path.write_bytes(images[0].read_bytes())
    if fault == "masks that never change":
        for stem in STEMS[:3]:
            (root / "masks" / f"{stem}.png").write_bytes((root / "masks" / "dora.png").read_bytes())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "images/dora.png cannot be decoded"),
        ("unreadable", "no image format is recognised"),
        ("class id", "masks/dora.png holds the class id 7; allowed: 0 (background) to 2"),
        ("identical images", "6 of 6 images are the same file"),
        ("masks that never change", "4 of 5 masks are equal (anna-1, anna-2, ...)"),
    ],
)
def test_errors_are_one_line_each_on_stderr_with_status_2(fault: str, message: str, capsys: Capture) -> None:
    write_broken(Path("mine"), fault)
    assert data_check("folder", "mine") == 2
    out, err = capsys.readouterr()
    errors = err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("study data check: folder: ")
    assert message in errors[0]
    assert "no errors" not in out
    assert Path("folder-contact.png").is_file()


def test_no_figure_is_drawn_if_no_image_can_be_read(capsys: Capture) -> None:
    save(picture(1), Path("mine/images/one.png"))
    truncate(Path("mine/images/one.png"))
    assert data_check("folder", "mine") == 2
    assert lines_of(capsys.readouterr().out) == {"images": "1, of 1 patients, 1 with a fault"}
    assert not Path("folder-contact.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("foldr", "mine"), "source: unknown source 'foldr'; allowed: phantom, folder, "),
        (("folder",), "root: is missing; allowed: a path; add it"),
        (("folder", "nowhere"), "nowhere is no folder; allowed: the folder of the data set"),
        (("idrid", "mine"), "part: is missing; allowed: segmentation, grading, localisation; add it"),
        (("chexpert", "mine", "--set", "vews=all"), "vews: unknown key 'vews'; allowed: annotation_minutes, blank, "),
        (("chexpert", "mine", "--set", "views=front"), "views: is front; allowed: 'frontal', 'lateral' or 'all'"),
        (("chexpert", "mine", "--set", "views"), "views: --set 'views' cannot be read (it has no key or no value)"),
        (("chexpert", "mine", "--set", "views=[a"), "views: --set 'views=[a' cannot be read ("),
        (("folder", "mine", "-o", "mine/classes.txt/a.png"), "--output: mine/classes.txt/a.png cannot be written ("),
    ],
)
def test_invalid_input_is_refused_in_one_line(words: tuple[str, ...], message: str, capsys: Capture) -> None:
    if words[1:2] == ("mine",):
        write_folder(Path("mine"))
    assert data_check(*words) == 2
    (line, *further_lines) = capsys.readouterr().err.splitlines()
    assert line.startswith("study data check: ")
    assert message in line
    assert not further_lines


def test_labels_are_counted_with_the_settings_of_the_source(capsys: Capture) -> None:
    write_chexpert(Path("chexpert"))
    counts = []
    for uncertain in ("zeros", "ones"):
        assert data_check("chexpert", "chexpert", "--set", f"uncertain={uncertain}") == 0
        counts.append(lines_of(capsys.readouterr().out)["labels"])
    assert ["Lung Opacity 10" in line for line in counts] == [False, True]
