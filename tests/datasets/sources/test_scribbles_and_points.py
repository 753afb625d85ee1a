"""Scribbles and points of users' own data and of generated images: kinds of annotation other than masks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.checks.contact import COLOURS, draw_contact
from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import BACKGROUND, IGNORE, AnnotationKind, Index, Pixels, Point
from datasets.sources import PhantomSettings, open_source
from study.cli.main import main
from tests.support.folder import STEMS, opened, write_folder
from tests.support.pictures import picture, save
from tests.support.volumes import ct_volume, write_ct_folder, write_nifti, write_stack

HEIGHT, WIDTH = 48, 64


def scribble(*values: int, outside: int = IGNORE) -> Pixels:
    """Draw one line for each value."""
    pixels = np.full((HEIGHT, WIDTH), outside, np.uint8)
    for number, value in enumerate(values):
        pixels[5 + 8 * number, 10:40] = value
    return pixels


def exclusive(root: Path) -> Path:
    write_folder(root)
    save(scribble(0, 1, 2), root / "scribbles" / "ben.png")
    save(scribble(1), root / "scribbles" / "emil.png")
    return root


def overlapping(root: Path) -> Path:
    write_folder(root, overlapping=True)
    save(scribble(0, 1), root / "scribbles" / "disc" / "ben.png")
    save(scribble(1), root / "scribbles" / "cup" / "ben.png")
    save(scribble(1), root / "scribbles" / "cup" / "emil.png")
    return root


def test_scribbles_of_ids_are_masks_with_unannotated_pixels(tmp_path: Path) -> None:
    source, index = opened(exclusive(tmp_path / "data"))
    rows = {name: index.ids.index(name) for name in STEMS}
    assert [bool(digest) for digest in index.annotation_digests["scribbles"]] == [
        name in ("ben", "emil") for name in STEMS
    ]
    assert np.array_equal(source.scribbles(rows["ben"]), scribble(0, 1, 2))
    assert np.array_equal(source.scribbles(rows["emil"]), scribble(1))
    with pytest.raises(DataError, match="anna-1 has no scribbles; allowed: rows whose"):
        source.scribbles(rows["anna-1"])
    assert not check(index)


def test_an_image_with_scribbles_alone_is_not_labelled(tmp_path: Path) -> None:
    _, index = opened(exclusive(tmp_path / "data"))
    assert not index.annotation_digests["masks"][index.ids.index("emil")]


def test_scribbles_do_not_change_the_rest_of_the_index(tmp_path: Path) -> None:
    _, with_scribbles = opened(exclusive(tmp_path / "with" / "data"))
    _, without = opened(write_folder(tmp_path / "without" / "data"))
    for kind in ("masks", "boxes", "centres", "labels"):
        assert with_scribbles.annotation_digests[kind] == without.annotation_digests[kind]  # type: ignore[index]
    assert not any(without.annotation_digests["scribbles"] + without.annotation_digests["points"])  # type: ignore[operator]
    assert with_scribbles.content == without.content


def test_scribbles_of_one_class_do_not_annotate_other_classes(tmp_path: Path) -> None:
    source, index = opened(overlapping(tmp_path / "data"))
    unknown = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
    assert index.classes == ("disc", "cup")
    assert np.array_equal(source.scribbles(index.ids.index("ben")), np.stack([scribble(0, 1), scribble(1)]))
    assert np.array_equal(source.scribbles(index.ids.index("emil")), np.stack([unknown, scribble(1)]))
    part, index = opened(tmp_path / "data", classes=["disc"])
    assert [bool(digest) for digest in index.annotation_digests["scribbles"]] == [name == "ben" for name in STEMS]
    assert np.array_equal(part.scribbles(index.ids.index("ben")), scribble(0, 1)[None])
    with pytest.raises(DataError, match="emil has no scribbles"):
        part.scribbles(index.ids.index("emil"))


def test_chosen_classes_are_renumbered_and_others_become_background(tmp_path: Path) -> None:
    source, index = opened(exclusive(tmp_path / "data"), classes=["cup"])
    assert np.array_equal(source.scribbles(index.ids.index("ben")), scribble(0, 0, 1))


def test_the_value_outside_of_scribbles_is_that_of_ignore(tmp_path: Path) -> None:
    root = exclusive(tmp_path / "data")
    save(scribble(0, 1, outside=7), root / "scribbles" / "ben.png")
    save(scribble(1, outside=7), root / "scribbles" / "emil.png")
    source, index = opened(root, ignore=7)
    assert np.array_equal(source.scribbles(index.ids.index("ben")), scribble(0, 1))
    assert not any(index.fault(row) for row in range(len(index)))


def test_a_single_class_of_masks_of_0_and_255_is_1_in_scribbles(tmp_path: Path) -> None:
    root = tmp_path / "data"
    save(picture(0), root / "images" / "a.png")
    save((picture(0) > 128).astype(np.uint8) * 255, root / "masks" / "a.png")
    save(scribble(0, 1), root / "scribbles" / "a.png")
    source, index = opened(root)
    assert index.classes == ("class_255",)
    assert np.array_equal(source.scribbles(0), scribble(0, 1))
    assert not index.fault(0)


def write_one(root: Path, mask: Pixels, scribbles: Pixels) -> Path:
    """Write an image with a mask of ids and scribbles."""
    save(picture(0), root / "images" / "a.png")
    save(mask, root / "masks" / "a.png")
    save(scribbles, root / "scribbles" / "a.png")
    return root


@pytest.mark.parametrize("value", [1, 200])
def test_a_single_class_is_1_or_its_own_id_in_scribbles(tmp_path: Path, value: int) -> None:
    mask = (picture(0) > 128).astype(np.uint8) * 200
    source, index = opened(write_one(tmp_path / "data", mask, scribble(0, value)))
    assert index.classes == ("class_200",)
    assert np.array_equal(source.scribbles(0), scribble(0, 1))
    assert not index.fault(0)


def test_several_classes_with_id_255_need_another_value_outside_of_scribbles(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, value in enumerate((2, 3, 255)):
        mask[8 * number : 8 * number + 8] = value
    root = write_one(tmp_path / "data", mask, scribble(2, 3))
    with pytest.raises(DataError, match="the id 255 of the class 'class_255', which is outside of scribbles; allowed"):
        opened(root)
    source, index = opened(root, ignore=255)
    assert index.classes == ("class_2", "class_3")
    assert np.array_equal(source.scribbles(0), scribble(1, 2))
    save(scribble(2, 3, 255, outside=7), root / "scribbles" / "a.png")
    source, index = opened(root, ignore=7)
    assert np.array_equal(source.scribbles(0), scribble(1, 2, 3))


@pytest.mark.parametrize("by_class", [False, True])
def test_255_is_outside_of_scribbles_for_any_ignored_id(tmp_path: Path, by_class: bool) -> None:
    root = (overlapping if by_class else exclusive)(tmp_path / "data")
    source, index = opened(root, ignore=7)
    ids = np.stack([scribble(0, 1), scribble(1)]) if by_class else scribble(0, 1, 2)
    assert np.array_equal(source.scribbles(index.ids.index("ben")), ids)
    assert not any(index.fault(row) for row in range(len(index)))


def test_1_is_the_value_of_overlapping_scribbles_even_if_masks_ignore_it(tmp_path: Path) -> None:
    root = overlapping(tmp_path / "data")
    source, index = opened(root, ignore=1)
    assert np.array_equal(source.scribbles(index.ids.index("ben")), np.stack([scribble(0, 1), scribble(1)]))
    assert not any(index.fault(row) for row in range(len(index)))


def test_scribbles_of_a_class_without_masks_need_a_list_of_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", overlapping=True)
    (root / "classes.txt").write_text("disc\ncup\nrim\n")
    before = opened(root)[1]
    save(scribble(0, 1), root / "scribbles" / "rim" / "ben.png")
    source, index = opened(root)
    assert index.annotation_digests["masks"] == before.annotation_digests["masks"]
    row = index.ids.index("ben")
    assert np.array_equal(source.scribbles(row)[2], scribble(0, 1))
    assert (source.masks(row)[2] == IGNORE).all()
    assert not (source.masks(row)[:2] == IGNORE).any()
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"scribbles/rim is of a class without masks; allowed: cup, disc; list all"):
        opened(root)


@pytest.mark.parametrize("by_class", [False, True])
def test_data_may_have_scribbles_and_no_masks(tmp_path: Path, by_class: bool) -> None:
    root = tmp_path / "data"
    save(picture(0), root / "images" / "a.png")
    save(scribble(0, 1), root / "scribbles" / ("lesion/a.png" if by_class else "a.png"))
    source, index = opened(root)
    assert index.overlapping == by_class
    assert index.classes == (("lesion",) if by_class else ("class_1",))
    assert not any(index.annotation_digests["masks"])
    expected = scribble(0, 1)
    assert np.array_equal(source.scribbles(0), expected[None] if by_class else expected)


def test_slices_of_volumes_have_their_own_scribbles(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_stack(root / "images" / "ct.tif", np.stack([picture(number) for number in range(3)]))
    write_stack(root / "scribbles" / "ct.tif", np.stack([scribble(), scribble(0), scribble(0, 1)]))
    source, index = opened(root)
    for row, values in enumerate([(), (0,), (0, 1)]):
        assert np.array_equal(source.scribbles(row), scribble(*values))
    assert len(set(index.annotation_digests["scribbles"])) == 3


FAULTS = {
    "size": (
        scribble(0, 1)[:40],
        "scribbles/ben.png has 64 x 40 pixels; allowed: 64 x 48, the size of its image; restore the scribbles",
    ),
    "class": (scribble(0, 7), "scribbles/ben.png holds 7; allowed: 0, 1, 2, 255, of which 255 is outside of scribbles"),
    "no outside": (
        scribble(0, 1, outside=0),
        "ben.png has no pixel of 255, so that all of its pixels count as annotated",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_scribbles_are_reported_in_one_line(tmp_path: Path, name: str) -> None:
    pixels, message = FAULTS[name]
    root = exclusive(tmp_path / "data")
    save(pixels, root / "scribbles" / "ben.png")
    errors = [finding for finding in check(opened(root)[1]) if finding.severity == "error"]
    assert [finding.ids for finding in errors] == [("ben",)]
    assert message in errors[0].message
    assert not [finding for finding in check(opened(root)[1], ["masks"]) if finding.severity == "error"]


def test_scribbles_of_a_class_contain_0_and_1(tmp_path: Path) -> None:
    root = overlapping(tmp_path / "data")
    save(scribble(0, 2), root / "scribbles" / "disc" / "ben.png")
    (error,) = [finding for finding in check(opened(root)[1]) if finding.severity == "error"]
    assert "scribbles/disc/ben.png holds 2; allowed: 0, 1, 255, of which 255 is outside" in error.message


LAYOUTS = {
    "unknown image": ("scribbles/fritz.png", r"scribbles/fritz.png belongs to no image \(1 such files\)"),
    "by class beside masks of ids": (
        "scribbles/disc/ben.png",
        "scribbles/disc/ben.png is no file of scribbles; allowed: scribbles/",
    ),
    "lossy": ("scribbles/carl.jpg", "scribbles/carl.jpg is no file of scribbles; allowed: scribbles/<image>.png"),
    "twice": ("scribbles/ben.tif", "ben has two files in scribbles"),
    "misspelled": ("Scribble/ben.png", "Scribble is not read; allowed: scribbles, spelled like this"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_misplaced_scribbles_are_refused(tmp_path: Path, name: str) -> None:
    path, message = LAYOUTS[name]
    root = write_folder(tmp_path / "data") if name == "misspelled" else exclusive(tmp_path / "data")
    save(scribble(1), root / path)
    with pytest.raises(DataError, match=message):
        opened(root)


POINTS = "image,x,y,class\nben,4.5,5,disc\nben,10,11,disc\nben,2,3,cup\nben,40,40,background\nemil.jpeg,1,2,cup\n"


def test_points_are_read_with_their_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    stem = next(path.name for path in (root / "images").iterdir() if path.stem == "emil")
    (root / "points.csv").write_text(POINTS.replace("emil.jpeg", stem))
    source, index = opened(root)
    assert source.points(index.ids.index("ben")) == (
        Point(name="disc", x=4.5, y=5), Point(name="disc", x=10, y=11), Point(name="cup", x=2, y=3),
        Point(name=BACKGROUND, x=40, y=40),
    )  # fmt: skip
    assert source.points(index.ids.index("emil")) == (Point(name="cup", x=1, y=2),)
    assert source.points(index.ids.index("anna-1")) == ()
    assert [bool(digest) for digest in index.annotation_digests["points"]] == [
        name in ("ben", "emil") for name in STEMS
    ]
    assert not index.annotation_digests["masks"][index.ids.index("emil")]
    assert "background" not in index.structures
    chosen, index = opened(root, classes=["cup"])
    assert [point.name for point in chosen.points(index.ids.index("ben"))] == ["cup", BACKGROUND]


REFUSED = {
    "unknown class": ("ben,4,5,liver", "ben has a point of 'liver'; allowed: background, disc, cup; correct its class"),
    "no class": ("ben,4,5,", "line 2: class is ''; allowed: a name"),
    "unknown image": ("fritz,4,5,disc", "line 2: there is no image 'fritz'"),
    "no number": ("ben,4,left,disc", "line 2: y is 'left'; allowed: a number"),
    "twice": ("ben,4,5,disc\nben,4.0,5,disc", "line 3: the point is listed twice; allowed: each point once"),
    "two classes": ("ben,4,5,disc\nben,4,5,cup", "line 3: the point is in 'cup' and in 'disc'; allowed: one class"),
    "shares": ("ben,0.4,0.5,disc\ncarl,0.1,0.9,cup", "all 2 points lie within 0..1, like shares of the image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_faults_of_the_table_are_reported_in_one_line(tmp_path: Path, name: str) -> None:
    lines, message = REFUSED[name]
    root = write_folder(tmp_path / "data")
    (root / "points.csv").write_text(f"image,x,y,class\n{lines}\n")
    with pytest.raises(DataError) as refused:
        opened(root)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_without_a_header_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "points.csv").write_text("ben,5,5,disc\n")
    with pytest.raises(DataError, match=r"points\.csv lacks the header \['image', 'x', 'y', 'class'\]; allowed: names"):
        opened(root)


def test_a_point_may_be_in_two_overlapping_classes_but_not_in_the_background_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", overlapping=True)
    (root / "points.csv").write_text("image,x,y,class\nben,4,5,disc\nben,4,5,cup\n")
    assert len(opened(root)[0].points(2)) == 2
    (root / "points.csv").write_text("image,x,y,class\nben,4,5,disc\nben,4,5,background\n")
    with pytest.raises(DataError, match="the point is in 'background' and in 'disc'"):
        opened(root)


def test_points_outside_of_the_image_and_points_of_volumes_are_faults(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "points.csv").write_text("image,x,y,class\nben,70,5,disc\n")
    (error,) = [finding for finding in check(opened(root)[1]) if finding.severity == "error"]
    assert error.ids == ("ben",)
    assert "ben: point disc (70, 5) is outside; allowed: inside 64 x 48" in error.message
    write_stack(root / "images" / "ct.tif", np.stack([picture(number) for number in range(3)]))
    (root / "cases.csv").unlink()
    (root / "points.csv").write_text("image,x,y,class\nct,7,5,disc\n")
    (error,) = [finding for finding in check(opened(root)[1]) if finding.severity == "error"]
    assert "ct is a volume and has points, which name no slice" in error.message


def test_scribbles_and_points_of_phantoms_are_inside_their_masks(tmp_path: Path) -> None:
    settings = PhantomSettings(images=6, patients=3, size=64, classes=("heart", "opacity", "right_lung"))
    source, again = open_source(settings), open_source(settings)
    index = source.index(tmp_path)
    assert all(index.annotation_digests["scribbles"])
    assert all(index.annotation_digests["points"])
    for row in range(len(index)):
        masks, scribbles = source.masks(row), source.scribbles(row)
        assert scribbles.shape == masks.shape
        assert np.array_equal(scribbles[scribbles != IGNORE], masks[scribbles != IGNORE])
        assert ((scribbles == 1).any(axis=(1, 2)) == masks.any(axis=(1, 2))).all()
        assert (scribbles == 0).any()
        for point in source.points(row):
            covered = masks[:, int(point.y), int(point.x)]
            assert covered[index.classes.index(point.name)] if point.name != BACKGROUND else not covered.any()
        assert np.array_equal(scribbles, again.scribbles(row))
        assert source.points(row) == again.points(row)


def test_scribbles_and_points_are_drawn_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = exclusive(tmp_path / "data")
    (root / "points.csv").write_text("image,x,y,class\nben,4,5,disc\nben,40,40,background\n")
    source, index = opened(root)
    draw_contact(source, index, [index.ids.index("emil")], tmp_path / "sheet.png")
    colour = [int(COLOURS[0][at : at + 2], 16) for at in (1, 3, 5)]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (np.asarray(sheet.convert("RGB")) == colour).all(axis=2).sum() > 100
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "folder", "data"])
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert "scribbles  of 2 images: disc 2; background 1; cup 1" in lines
    assert "points     points in 1 images: background 1; disc 1" in lines


def test_the_background_of_overlapping_classes_is_outside_of_all_scribbled_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "data", overlapping=True)
    save(scribble(0, 1), root / "scribbles" / "disc" / "ben.png")
    save(scribble(1), root / "scribbles" / "cup" / "ben.png")  # where the disc is 0
    save(scribble(0, 1), root / "scribbles" / "cup" / "emil.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "folder", "data"])
    assert not ended.value.code
    assert "scribbles  of 2 images: cup 2; background 1; disc 1" in capsys.readouterr().out.splitlines()
    source, index = opened(root)
    background = COLOURS[len({*index.classes, *index.structures})]
    for image, drawn in (("ben", False), ("emil", True)):
        draw_contact(source, index, [index.ids.index(image)], tmp_path / "sheet.png")
        colour = [int(background[at : at + 2], 16) for at in (1, 3, 5)]
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert (np.asarray(sheet.convert("RGB")) == colour).all(axis=2).any() == drawn


@pytest.mark.parametrize("write", [exclusive, overlapping])
def test_annotation_is_complete_for_the_classes_that_it_names(write: Callable[[Path], Path], tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    rows = "image,x,y,class\nben,5,5,disc\nben,6,6,background\nemil,5,5,background\n"
    (root / "points.csv").write_text(rows)
    (root / "boxes.csv").write_text("image,x,y,width,height,label\nben,1,1,5,5,cup\nben,8,8,5,5,other\n")
    (root / "labels.csv").write_text("image,disc,cup\nben,1,\nemil,0,1\n")
    _, index = opened(root)
    found = {
        kind: [set(index.completes(index.ids.index(name), kind)) for name in ("ben", "emil", "anna-1")]
        for kind in ("labels", "boxes", "scribbles", "points")
    }
    drawn = {"disc"} if write is exclusive else {"cup"}
    assert found == {
        "labels": [{"disc"}, {"disc", "cup"}, set()],
        "boxes": [{"cup"}, set(), set()],
        "scribbles": [{"disc", "cup"}, drawn, set()],
        "points": [{"disc"}, set(), set()],
    }
    again, _ = opened(root)
    assert again.index(root / "cache").complete == index.complete


@pytest.mark.parametrize(("write", "drawn"), [(exclusive, ["ben"]), (overlapping, [])])
def test_scribbles_and_points_of_the_background_are_known(
    write: Callable[[Path], Path], drawn: list[str], tmp_path: Path
) -> None:
    """Of overlapping classes, the scribbles of each class have to mark pixels beside it: those of ben's cup do not."""
    root = write(tmp_path / "data")
    (root / "points.csv").write_text("image,x,y,class\nben,5,5,disc\nben,6,6,background\nemil,5,5,disc\n")
    _, index = opened(root)
    assert background_of(index, "points") == ["ben"]
    assert background_of(index, "scribbles") == drawn
    assert background_of(index, "masks") == []


def background_of(index: Index, kind: AnnotationKind) -> list[str]:
    return [name for row, name in enumerate(index.ids) if index.has_background(row, kind)]


def test_each_slice_of_a_volume_has_its_own_scribbles(tmp_path: Path) -> None:
    root = write_ct_folder(tmp_path / "data", volumes=1)
    _, ids = ct_volume(0)
    drawn = np.full(ids.shape, IGNORE, np.uint8)
    drawn[4, 4, 1], drawn[4, 4, 2], drawn[8, 8, 2] = 0, 1, 0
    write_nifti(root / "scribbles" / "ct0.nii.gz", drawn, orientation="RAS")
    _, index = opened(root)
    found = [(index.has_background(row, "scribbles"), set(index.completes(row, "scribbles"))) for row in range(4)]
    assert found == [(False, set()), (True, set()), (True, {"organ"}), (False, set())]


def test_labels_of_a_volume_are_complete_for_its_slices_where_they_are_0(tmp_path: Path) -> None:
    root = write_ct_folder(tmp_path / "data", volumes=2)
    (root / "labels.csv").write_text("image,organ,lesion\nct0.nii.gz,1,0\nct1.nii.gz,1,\n")
    _, index = opened(root)
    complete = {name: {index.completes(row, "labels") for row in rows_of(index, name)} for name in ("ct0", "ct1")}
    assert complete == {"ct0": {frozenset({"lesion"})}, "ct1": {frozenset()}}


def rows_of(index: Index, volume: str) -> list[int]:
    return [row for row in range(len(index)) if index.volume(row) == volume]
