"""`study data init`: downloads in public shapes become studies that can be planned, without edits."""

import json
import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from datasets.source import Index, Source
from datasets.sources import DataSettings, open_source
from study.cli.main import main
from study.config.document import read_document
from study.diagnostics.data_init import data_init
from tests.support.layouts import LAYOUTS, blob, coco, colour_picture, paired_folders
from tests.support.pictures import picture, save, truncate

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("working_directory")


def command(*words: str) -> int:
    """Run a command; return its exit status."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def read_data(path: Path) -> tuple[dict[str, Any], Source, Index]:
    """Return settings, source and index of the data set of a study file."""
    (settings,) = read_document(path)["data"].values()
    adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
    source = open_source(adapter.validate_python(settings))
    return settings, source, source.index(path.parent / "cache")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must be read from a layout; `masks` are images with masks, `parts` the images of each published part."""

    images: int
    classes: tuple[str, ...]
    patients: int
    masks: int
    parts: tuple[int, int, int] = (0, 0, 0)
    official: bool = False


EXPECTED = {
    "paired_folders": Expected(images=12, classes=("class_1",), patients=12, masks=12),
    "list_files": Expected(images=14, classes=("foreground",), patients=14, masks=13, parts=(8, 2, 3), official=True),
    "two_annotators": Expected(images=14, classes=("foreground",), patients=7, masks=14),
    "em_slices": Expected(images=10, classes=("mitochondria",), patients=10, masks=10),
    "coco": Expected(images=10, classes=("polyp", "tool"), patients=10, masks=10),
    "nnunet": Expected(images=8, classes=("nerve", "vessel"), patients=8, masks=8, parts=(8, 0, 0)),
    "colour_masks": Expected(
        images=12, classes=("lesion", "hair"), patients=12, masks=12, parts=(8, 0, 4), official=True
    ),
    "voc": Expected(images=10, classes=("class_1", "class_2"), patients=10, masks=10, parts=(6, 0, 4), official=True),
    "instance_ids": Expected(images=10, classes=("class_1",), patients=10, masks=10),
    "class_folders": Expected(images=10, classes=("leftMask", "rightMask"), patients=10, masks=10),
    "labelme": Expected(images=10, classes=("cyst", "kidney"), patients=10, masks=9),
    "cvat": Expected(images=8, classes=("nerve", "vessel"), patients=8, masks=8),
    "patient_folders": Expected(images=15, classes=("foreground",), patients=6, masks=15),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_download_becomes_a_study_that_can_be_planned_and_checked(name: str, capsys: Capture) -> None:
    Path(name).mkdir()
    LAYOUTS[name](Path(name))
    assert command("data", "init", name) == 0, capsys.readouterr().err
    assert Path(f"{name}-contact.png").read_bytes()[:4] == b"\x89PNG"
    assert command("plan", f"{name}.yaml") == 0, capsys.readouterr().err
    settings, _, index = read_data(Path(f"{name}.yaml"))
    expected = EXPECTED[name]
    assert len(index) == expected.images
    assert index.classes == expected.classes
    assert len(set(index.patients)) == expected.patients
    assert sum(map(bool, index.annotation_digests["masks"])) == expected.masks
    counts = tuple(index.official.count(part) for part in ("train", "validation", "test"))
    assert counts == expected.parts
    assert (settings.get("split", {}).get("test") == "official") == expected.official
    assert not any(map(index.fault, range(len(index))))
    overrides = [f"--set={key}={json.dumps(value)}" for key, value in settings.items() if key not in ("source", "root")]
    assert command("data", "check", settings["source"], settings["root"], *overrides) == 0, capsys.readouterr().err


def test_the_masks_that_are_read_are_those_that_were_drawn() -> None:
    for name in ("paired_folders", "em_slices", "two_annotators", "instance_ids"):
        Path(name).mkdir()
        LAYOUTS[name](Path(name))
        assert command("data", "init", name) == 0
    settings, source, _ = read_data(Path("paired_folders.yaml"))
    assert settings["mask_threshold"] == 127
    assert (source.masks(3) != blob(3)).mean() < 0.01
    assert np.array_equal(read_data(Path("em_slices.yaml"))[1].masks(4), blob(4))
    settings, source, _ = read_data(Path("two_annotators.yaml"))
    assert list(settings["annotators"]) == ["1stHO", "2ndHO"]
    assert np.array_equal(source.masks(5), blob(5))
    settings, source, _ = read_data(Path("instance_ids.yaml"))
    assert settings["mask_threshold"] == 0
    assert source.masks(0).sum() == 3 * 6 * 12


def test_what_was_assumed_is_said_and_what_to_check_is_a_comment(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    assert command("data", "init", "eyes", "-o", "new/mine.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "eyes: images and masks in folders, 12 images read, 12 with masks, 12 patients"
    assert any(line.startswith("assumed") and "values above 127 are foreground" in line for line in lines)
    check = next(line.split(maxsplit=1)[1] for line in lines if line.startswith("check"))
    assert check.startswith("whether several images are of one patient")
    text = Path("new/mine.yaml").read_text()
    assert f"# check: {check}" in text
    assert yaml.safe_load(text)["name"] == "mine"
    assert Path("new/mine-contact.png").exists()


def test_an_existing_file_is_replaced_with_force_only(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    Path("eyes.yaml").write_text("mine")
    assert command("data", "init", "eyes") == 2
    assert (
        "eyes.yaml exists; allowed: a new file; choose another name with -o, or replace it" in capsys.readouterr().err
    )
    assert Path("eyes.yaml").read_text() == "mine"
    assert command("data", "init", "eyes", "--force") == 0
    assert "name: eyes" in Path("eyes.yaml").read_text()


def test_a_table_beside_the_images_names_the_patients() -> None:
    paired_folders(Path("eyes"))
    rows = "".join(f"IMG_{number:04d},{number // 3},x\n" for number in range(12))
    Path("eyes/metadata.csv").write_text(f"image_id,Patient ID,diagnosis\n{rows}")
    assert command("data", "init", "eyes") == 0
    settings, _, index = read_data(Path("eyes.yaml"))
    assert settings["patients"] == {"table": "metadata.csv", "image": "image_id", "patient": "Patient ID"}
    assert len(set(index.patients)) == 4


def test_numbers_that_begin_anew_for_each_patient_are_evidence_and_others_are_not() -> None:
    for place, names in (
        ("counted", [f"s{patient}x_{number}" for patient in "abcdefgh" for number in (1, 2, 3)]),
        ("plain", [f"scan_{number}" for number in range(9)]),
    ):
        for number, name in enumerate(names):
            save(picture(number), Path(place, "images", f"{name}.png"))
            save(blob(number), Path(place, "masks", f"{name}.png"))
        assert command("data", "init", place) == 0
    assert len(set(read_data(Path("counted.yaml"))[2].patients)) == 8
    assert "patients" not in read_data(Path("plain.yaml"))[0]


def test_images_without_masks_are_read_as_unlabelled(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    for number in range(20, 26):
        save(colour_picture(number), Path("eyes/images", f"IMG_{number:04d}.jpg"))
    assert command("data", "init", "eyes") == 0
    assert "12 of 18 images have a mask, 6 have none" in capsys.readouterr().out
    index = read_data(Path("eyes.yaml"))[2]
    assert (len(index), sum(map(bool, index.annotation_digests["masks"]))) == (18, 12)


def test_a_second_mask_that_is_read_as_an_image_is_named(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    save(blob(77, value=255), Path("eyes/images/IMG_0004_2.jpg"))
    assert command("data", "init", "eyes") == 0
    assert "images/IMG_0004_2.jpg: images without a mask that look like masks" in capsys.readouterr().out


def test_names_with_spaces_brackets_and_other_scripts_are_read() -> None:
    place = Path("Bilder (neu) [2024]")
    for number in range(8):
        save(picture(number), place / "Scans A" / f"größe {number} (é) [x].png")
        save(blob(number, value=255), place / "Masks A" / f"größe {number} (é) [x]_mask.png")
    assert command("data", "init", str(place)) == 0
    settings, _, index = read_data(Path("bilder-neu-2024.yaml"))
    assert settings["masks"] == "Masks A/{name}_mask.png"
    assert len(index) == 8


def test_a_coco_file_may_be_named(capsys: Capture) -> None:
    coco(Path("coco"))
    assert command("data", "init", "coco/annotations/instances_train2017.json", "-o", "a.yaml") == 0
    assert read_data(Path("a.yaml"))[2].classes == ("polyp", "tool")
    content = json.loads(Path("coco/annotations/instances_train2017.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    Path("coco/annotations/instances_train2017.json").write_text(json.dumps(content))
    assert command("data", "init", "coco", "-o", "b.yaml") == 2
    assert "is a COCO file without segmentations; allowed: polygons" in capsys.readouterr().err


def refusal(place: str, capsys: Capture) -> str:
    """Return the single line with which a place is refused."""
    assert command("data", "init", place, "-o", "refused.yaml") == 2
    assert not Path("refused.yaml").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "allowed: " in line
    return line


def test_places_without_a_data_set_are_refused_in_one_line(capsys: Capture) -> None:
    Path("empty").mkdir()
    assert "empty has no files" in refusal("empty", capsys)
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("a")
    assert "texts has 1 files, and no image" in refusal("texts", capsys)
    assert "nothing is not there" in refusal("nothing", capsys)
    assert "is no file that is recognised" in refusal("texts/a.txt", capsys)


def test_images_alone_and_masks_alone_are_refused_in_one_line(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    shutil.copytree("eyes/images", "images/photos")
    shutil.copytree("eyes/masks", "masks/x")
    assert "images has 12 images, and no masks; allowed" in refusal("images", capsys)
    assert "masks has 12 files with the few values of masks, and no images" in refusal("masks", capsys)


def test_an_archive_has_to_be_unpacked(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    with zipfile.ZipFile("eyes.zip", "w") as archive:
        for path in Path("eyes").rglob("*.jpg"):
            archive.write(path)
    with tarfile.open("eyes.tar.gz", "w:gz") as packed:
        packed.add("eyes")
    for name in ("eyes.zip", "eyes.tar.gz"):
        assert f"{name} is an archive of 24 files; allowed: a folder" in refusal(name, capsys)
    truncate(Path("eyes.tar.gz"))
    assert "eyes.tar.gz cannot be read" in refusal("eyes.tar.gz", capsys)


def test_faults_of_the_data_are_lines_of_the_loader(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    truncate(Path("eyes/images/IMG_0003.jpg"))
    assert "images/IMG_0003.jpg cannot be decoded" in refusal("eyes", capsys)
    save(colour_picture(3), Path("eyes/images/IMG_0003.jpg"))
    save(np.zeros((9, 9), np.uint8), Path("eyes/masks/IMG_0004_mask.jpg"))
    assert "IMG_0004" in refusal("eyes", capsys)
    save(blob(4, value=255), Path("eyes/masks/IMG_0004_mask.jpg"))
    Path("eyes/images/IMG_0005.jpg").unlink()
    assert "masks/IMG_0005_mask.jpg belongs to no image (1 such masks); allowed" in refusal("eyes", capsys)


def test_folder_names_with_braces_are_refused_in_one_line(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    Path("eyes/masks").rename("eyes/masks{1}")
    assert "eyes/masks{1} has one of the characters { } * in its name" in refusal("eyes", capsys)


def test_pipes_and_unreadable_images_are_one_line(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    os.mkfifo("eyes/images/pipe.jpg")
    assert "eyes/images/pipe.jpg is no regular file; allowed" in refusal("eyes", capsys)
    Path("eyes/images/pipe.jpg").unlink()
    for path in Path("eyes/masks").iterdir():
        path.write_bytes(b"no image")
    assert "allowed: " in refusal("eyes", capsys)


def test_names_that_do_not_pair_are_refused_in_one_line(capsys: Capture) -> None:
    for number in range(8):
        save(picture(number), Path(f"data/images/{'abcdefgh'[number]}.png"))
        save(blob(number), Path(f"data/masks/{number}.png"))
    assert "whose names do not fit together ('a' against '0'); allowed" in refusal("data", capsys)


def test_links_to_parent_folders_are_left_out(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    Path("eyes/images/loop").symlink_to(Path("eyes").absolute())
    Path("eyes/broken.png").symlink_to("nowhere.png")
    assert command("data", "init", "eyes") == 0
    assert "images/loop is a link to one of its parent folders" in capsys.readouterr().out
    assert len(read_data(Path("eyes.yaml"))[2]) == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_write_permission_is_one_line(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    Path("closed").mkdir(mode=0o500)
    assert command("data", "init", "eyes", "-o", "closed/a.yaml") == 2
    assert "closed/a.yaml cannot be written" in capsys.readouterr().err


def test_a_file_in_place_of_the_output_folder_is_one_line(capsys: Capture) -> None:
    paired_folders(Path("eyes"))
    Path("file").write_text("")
    assert command("data", "init", "eyes", "-o", "file/a.yaml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "file" in line


@pytest.mark.parametrize(
    ("name", "content", "tool"),
    [
        ("export.json", '[{"data": {"image": "1.png"}, "annotations": []}]', "Label Studio"),
        ("ann/1.png.json", '{"objects": [], "size": {"height": 1, "width": 1}}', "Supervisely"),
    ],
)
def test_exports_of_labelling_tools_are_named(name: str, content: str, tool: str, capsys: Capture) -> None:
    save(picture(0), Path("data/1.png"))
    Path("data", name).parent.mkdir(exist_ok=True)
    Path("data", name).write_text(content)
    assert f"is an export of {tool}" in refusal("data", capsys)


def test_of_many_images_a_part_is_read_before_the_file_is_written() -> None:
    paired_folders(Path("eyes"))
    lines = list(data_init(Path("eyes"), None, cache=Path("cache"), checked=6))
    assert "6 images read" in lines[0]
    settings, _, index = read_data(Path("eyes.yaml"))
    assert "limit" not in settings
    assert len(index) == 12
