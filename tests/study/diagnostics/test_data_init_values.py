"""`study data init`: values, tables and names that can be misread."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.cli.main import main
from study.config.document import read_document
from tests.study.diagnostics.test_data_init import command
from tests.support.layouts import cvat
from tests.support.layouts_values import binary, colours, folders, levels, nested

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("working_directory")


def init(place: str | Path, *options: str) -> int:
    """Run `study data init`; return its exit status."""
    return command("data", "init", str(place), *options)


def settings_of(place: Path, capsys: Capture) -> tuple[dict[str, Any], str]:
    """Return the settings that are written for a folder, and the lines that are printed."""
    code = init(place)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    (settings,) = read_document(Path(f"{place.name}.yaml"))["data"].values()
    return settings, printed.out


def refusal(place: Path, capsys: Capture, *options: str) -> str:
    """Return the single line with which a folder is refused."""
    assert init(place, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def checks(output: str) -> str:
    """Return the lines of what a user should check."""
    return "\n".join(line for line in output.splitlines() if line.startswith("check"))


def test_a_contact_sheet_replaces_no_other_picture(capsys: Capture) -> None:
    place = folders(Path("eyes"), binary)
    Path("eyes-contact.png").write_bytes(b"mine")
    assert "eyes-contact.png exists; allowed: a new file" in refusal(place, capsys)
    assert Path("eyes-contact.png").read_bytes() == b"mine"
    assert not Path("eyes.yaml").exists()
    assert init(place, "--force") == 0
    assert Path("eyes-contact.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_written_inside_the_data_set(capsys: Capture) -> None:
    place = folders(Path("eyes"), binary)
    before = sorted(place.rglob("*"))
    assert "is inside the data set" in refusal(place, capsys, "-o", "eyes/images/00.yaml")
    assert sorted(place.rglob("*")) == before


def test_what_was_assumed_is_a_comment_too(capsys: Capture) -> None:
    place = folders(Path("eyes"), binary)
    _, output = settings_of(place, capsys)
    assumed = [line.split(maxsplit=1)[1] for line in output.splitlines() if line.startswith("assumed")]
    text = Path("eyes.yaml").read_text()
    assert assumed
    assert all(f"    # assumed: {sentence}\n" in text for sentence in assumed)


def test_empty_masks_are_refused(capsys: Capture) -> None:
    place = folders(Path("eyes"), lambda number: np.zeros((48, 64), np.uint8))
    assert "all 12 masks that were read are empty; allowed" in refusal(place, capsys)


def test_published_parts_that_share_patients_are_not_used(capsys: Capture) -> None:
    names = [f"patient{number // 2:02d}_{number % 2}" for number in range(12)]
    place = folders(Path("eyes"), binary, names)
    (place / "train.txt").write_text("\n".join(names[:7]) + "\n")
    (place / "test.txt").write_text("\n".join(names[7:]) + "\n")
    settings, output = settings_of(place, capsys)
    assert "split" not in settings
    assert "published parts share 1 patients, so folds are used" in checks(output)


def test_a_table_of_classes_shows_that_ids_are_no_objects(capsys: Capture) -> None:
    place = folders(Path("heart"), nested)
    settings, output = settings_of(place, capsys)
    assert settings["mask_threshold"] == 0
    assert "whether ids number objects or are classes" in checks(output)
    Path("heart.yaml").unlink()
    Path("heart-contact.png").unlink()
    (place / "classes.txt").write_text("background\nrv\nmyo\nlv\nla\n")
    settings, _ = settings_of(place, capsys)
    assert settings["mask_values"] == {"rv": 1, "myo": 2, "lv": 3, "la": 4}


def test_a_threshold_does_not_hide_listed_classes(capsys: Capture) -> None:
    place = folders(Path("heart"), nested)
    settings, _ = settings_of(place, capsys)
    (place / "classes.txt").write_text("rv\nmyo\n")
    with pytest.raises(SystemExit):
        main(["plan", "heart.yaml"])
    assert settings["mask_threshold"] == 0
    assert "mask_threshold makes one class, and classes.txt lists 2; allowed" in capsys.readouterr().err


def test_255_is_unlabelled_only_as_a_small_share_beside_other_ids(capsys: Capture) -> None:
    settings, output = settings_of(folders(Path("cup"), lambda number: levels(number, (128, 0), 255)), capsys)
    assert settings["mask_values"] == {"background": 255, "class_0": 0, "class_128": 128}
    assert "whether 255 is the background" in checks(output)
    settings, output = settings_of(folders(Path("greys"), lambda number: levels(number, (85, 170, 255))), capsys)
    assert "ignore" not in settings
    assert "is a class, the background or unlabelled" in checks(output)
    mixed = folders(Path("mixed"), lambda number: binary(number) // (255 if number == 3 else 1))
    settings, output = settings_of(mixed, capsys)
    assert settings["mask_values"] == {"foreground": [1, 255]}
    assert "whether 1 and 255" in checks(output)


def test_three_values_are_no_soft_edges(capsys: Capture) -> None:
    settings, output = settings_of(folders(Path("eyes"), lambda number: levels(number, (128, 255))), capsys)
    assert "mask_threshold" not in settings
    assert "255" in checks(output)


def test_a_further_class_in_compressed_masks_is_refused(capsys: Capture) -> None:
    def mask(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        pixels = levels(number, (255,))
        pixels[36:46, 20:26] = 128
        return pixels

    place = folders(Path("eyes"), mask, suffix="jpg")
    assert "masks are JPEG files with more than two values" in refusal(place, capsys)


def test_compressed_masks_in_colours_are_refused(capsys: Capture) -> None:
    place = folders(Path("eyes"), colours, suffix="jpg")
    assert "masks are JPEG files in colours, which compression has changed" in refusal(place, capsys)


def test_ids_without_0_raise_the_question_of_the_background(capsys: Capture) -> None:
    place = folders(
        Path("pets"),
        lambda number: np.asarray(np.where(np.arange(64) < 20 + number, 1, 2)[None].repeat(48, 0), np.uint8),
    )
    _, output = settings_of(place, capsys)
    assert "which id is the background: no mask that was read holds 0" in checks(output)
    assert "hold the ids 1, 2" in output


def test_void_of_a_table_of_colours_is_unlabelled(capsys: Capture) -> None:
    place = folders(Path("road"), colours)
    (place / "class_dict.csv").write_text("name,r,g,b\nVoid,0,0,0\nsky,255,0,0\nroad,0,0,255\nlane,0,0,255\n")
    settings, output = settings_of(place, capsys)
    assert settings["mask_values"] == {"sky": [255, 0, 0], "road": [0, 0, 255], "ignore": [0, 0, 0]}
    assert "several names for the colours [0, 0, 255]" in checks(output)


def test_lines_of_a_table_of_colours_are_counted_as_ids(capsys: Capture) -> None:
    place = folders(Path("road"), lambda number: levels(number, (1, 2, 3)))
    (place / "class_dict.csv").write_text("name,r,g,b\nanimal,1,1,1\nsky,255,0,0\nroad,255,0,0\nlane,0,0,255\n")
    settings, output = settings_of(place, capsys)
    assert settings["mask_values"] == {"animal": 0, "sky": 1, "road": 2, "lane": 3}
    assert "whether 0 is the class animal" in checks(output)
    assert "are the numbers of the lines of class_dict.csv" in checks(output)


def test_counted_names_of_few_kinds_are_no_patients(capsys: Capture) -> None:
    names = [f"{kind}_{number}" for kind in ("benign", "malignant", "normal") for number in range(1, 5)]
    settings, _ = settings_of(folders(Path("breast"), binary, names), capsys)
    assert "patients" not in settings


def test_tables_of_other_data_are_not_taken_for_a_published_data_set(capsys: Capture) -> None:
    place = folders(Path("eyes/train"), binary).parent
    for part in ("train", "valid"):
        (place / f"{part}.csv").write_text("image,mask\n")
    settings, _ = settings_of(place, capsys)
    assert settings["source"] == "folder"


def test_tables_and_lists_that_are_not_used_are_named(capsys: Capture) -> None:
    place = folders(Path("eyes"), binary)
    rows = [(f"{number:02d}", number // 2) for number in range(11)]
    (place / "meta.csv").write_text("image, patient_id\n" + "".join(f"{name}.png, {who}\n" for name, who in rows))
    (place / "other.csv").write_text("image;patient\n" + "".join(f"{name};{who}\n" for name, who in rows))
    (place / "test.csv").write_text("image\n" + "".join(f"{name}.png\n" for name, _ in rows[:4]))
    (place / "train.txt").write_text("".join(f"{name}\n" for name, _ in rows[4:]) + "99\n")
    settings, output = settings_of(place, capsys)
    assert not {"patients", "lists", "split"} & settings.keys()
    assert "meta.csv has the column patient_id for 11 of 12 images; not used" in output
    assert "other.csv has the column patient for 11 of 12 images; not used, as `patients` needs a table sep" in output
    assert "test.csv may list a published part, and 4 of its 5 lines name an image" in output
    assert "train.txt may list a published part, and 7 of its 8 lines name an image" in output


def test_grades_in_a_table_of_labels_are_not_read(capsys: Capture) -> None:
    place = folders(Path("eyes"), binary)
    (place / "labels.csv").write_text("image,grade,ill\n00.png,severe,1\n01.png,mild,0\n")
    settings, _ = settings_of(place, capsys)
    assert settings["mask_values"] == {"foreground": 255}


def test_further_files_and_shapes_of_cvat_that_are_not_read_are_named(capsys: Capture) -> None:
    Path("task").mkdir()
    place = cvat(Path("task"), boxes=True)
    (place / "second.xml").write_text((place / "annotations.xml").read_text())
    _, output = settings_of(place, capsys)
    assert "second.xml: one XML file of CVAT is read" in output
    assert "in 1 images: has shapes that are no masks (box)" in checks(output)
