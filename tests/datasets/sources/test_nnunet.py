"""Raw data sets of nnU-Net, with the faults that users report."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.settings import ImageSettings, SplitSettings
from datasets.source import IGNORE, Index, Source, file_contents
from datasets.sources import NnunetSettings, open_source
from datasets.splits.assignment import target_split
from datasets.targets import fit_image
from tests.support.nnunet import (
    CHANNELS,
    REGIONS,
    description,
    write_decathlon,
    write_description,
    write_nnunet,
    write_nnunet_2d,
    write_nnunet_tiff,
)
from tests.support.volumes import SHAPE, ct_volume, write_nifti

SLICES = SHAPE[2]


def open_data(root: Path, **settings: object) -> tuple[Source, Index]:
    source = open_source(NnunetSettings.model_validate({"root": root} | settings))
    return source, source.index(root.parent / "cache")


def test_a_case_is_a_patient_with_the_slices_of_all_channels(tmp_path: Path) -> None:
    source, index = open_data(write_nnunet(tmp_path / "data", cases=2, tests=1))
    assert len(index) == 3 * SLICES
    assert index.ids[0] == "brain_000/000"
    assert len(set(index.patients)) == 3
    assert index.classes == ("organ", "lesion")
    assert not index.overlapping
    assert set(index.channels) == {4}
    assert source.image(4).shape == (SHAPE[1], SHAPE[0], 4)
    assert np.array_equal(source.masks(4), ct_volume(0)[1][:, :, 4].T)
    assert not check(index)


def test_channels_are_selected_and_ordered_by_name(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0)
    everything, index = open_data(root)
    two, chosen = open_data(root, channels=["T2w", "FLAIR"])
    selected, _ = open_data(root, channels=["T1w"])
    assert np.array_equal(two.image(3), everything.image(3)[..., [3, 0]])
    assert np.array_equal(selected.image(3), everything.image(3)[..., 1])
    assert not set(index.content) & set(chosen.content)
    with pytest.raises(DataError, match=r"channels: \['T3'\] not in .*; allowed: \['FLAIR', 'T1w', 't1gd', 'T2w'\]"):
        open_data(root, channels=["T3"])


def test_labelled_test_cases_are_the_official_test_set(tmp_path: Path) -> None:
    _, index = open_data(write_nnunet(tmp_path / "data", cases=3, tests=1))
    split = target_split(
        index, SplitSettings(test="official"), annotation_kind="masks", folds=1, fold=0, seed=0, labelled=1.0,
        min_cases=100,
    )  # fmt: skip
    assert {index.volumes[row] for row in split.test} == {"brain_003"}


def test_test_cases_without_labels_have_no_masks(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=1)
    (root / "labelsTs" / "brain_002.nii.gz").unlink()
    _, index = open_data(root)
    assert [bool(text) for text in index.annotation_digests["masks"]] == [True] * 2 * SLICES + [False] * SLICES
    assert not check(index)


def test_regions_are_overlapping_classes(tmp_path: Path) -> None:
    source, index = open_data(write_nnunet(tmp_path / "data", cases=2, tests=0, labels=REGIONS))
    assert (index.classes, index.overlapping) == (("whole", "core"), True)
    ids = ct_volume(0)[1][:, :, 4].T
    assert np.array_equal(source.masks(4), np.stack([ids > 0, ids == 2]))
    assert index.shows(4) == {"whole", "core"}
    assert not index.shows(0)
    assert not check(index)
    core, _ = open_data(tmp_path / "data", classes=["core"])
    assert np.array_equal(core.masks(4), [ids == 2])


def test_the_label_ignore_marks_pixels_without_a_label(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0, labels={"background": 0, "organ": 1, "ignore": 2})
    source, index = open_data(root)
    assert index.classes == ("organ",)
    ids = ct_volume(0)[1][:, :, 4].T
    assert np.array_equal(source.masks(4) == IGNORE, ids == 2)


def test_the_label_ignore_marks_pixels_without_a_label_in_all_regions(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1], "again": [1], "ignore": 2}
    source, index = open_data(write_nnunet(tmp_path / "data", cases=2, tests=0, labels=labels | {"again": [1, 1]}))
    assert (index.classes, index.overlapping) == (("whole", "again"), True)
    ids = ct_volume(0)[1][:, :, 4].T
    plane = np.where(ids == 2, IGNORE, ids)
    assert np.array_equal(source.masks(4), [plane, plane])
    assert index.shows(4) == index.annotates(4) == {"whole", "again"}
    assert not index.annotated
    assert not check(index)


def test_a_slice_of_ignored_pixels_alone_annotates_no_region(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    root = write_nnunet(tmp_path / "data", cases=1, tests=0, labels=labels)
    ids = ct_volume(0)[1]
    ids[:, :, 3] = 3
    write_nifti(root / "labelsTr" / "brain_000.nii.gz", ids, orientation="RAS")
    source, index = open_data(root)
    assert [len(index.annotates(row)) for row in range(len(index))] == [0 if row == 3 else 2 for row in range(8)]
    assert (source.masks(3) == IGNORE).all()
    assert not index.shows(3)


def test_version_1_is_read_with_its_own_keys(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0)
    document = {"modality": {"0": "CT"}, "labels": {"0": "Background", "1": "liver", "2": "cancer"}, "numTraining": 2}
    write_description(root, document)
    for path in list((root / "imagesTr").iterdir()):
        if path.name.endswith("_0000.nii.gz"):
            path.rename(path.with_name(path.name.replace("_0000", "")))  # as in the folders of the Decathlon
        else:
            path.unlink()
    source, index = open_data(root)
    assert index.classes == ("liver", "cancer")
    assert source.image(0).shape == (SHAPE[1], SHAPE[0])
    assert not check(index)


def test_modalities_of_the_decathlon_are_the_fourth_axis_of_one_file(tmp_path: Path) -> None:
    root = write_decathlon(tmp_path / "data", cases=2)
    source, index = open_data(root)
    assert index.ids[0] == "BRATS_000/000"
    assert (set(index.channels), index.has_colours, index.classes) == ({4}, False, ("organ", "lesion"))
    stored = np.asanyarray(nib.load(root / "imagesTr" / "BRATS_000.nii.gz").dataobj)  # type: ignore[attr-defined]
    for channel in range(4):
        values = stored[::-1, ::-1, :, channel]  # stored RAS
        low, high = np.percentile(values, (0.5, 99.5), method="inverted_cdf")
        expected = np.clip((values[:, :, 4].T.astype(np.float64) - low) / (high - low), 0, 1) * 255
        assert np.abs(source.image(4)[..., channel] - expected).max() <= 0.5 + 1e-6
    assert np.array_equal(source.masks(4), ct_volume(0)[1][:, :, 4].T)
    assert not check(index)


def test_modalities_of_the_decathlon_are_selected_by_name(tmp_path: Path) -> None:
    root = write_decathlon(tmp_path / "data", cases=2)
    everything, index = open_data(root)
    three, chosen = open_data(root, channels=["T2w", "FLAIR", "T1w"])
    selected, single = open_data(root, channels=["T1w"])
    assert np.array_equal(three.image(3), everything.image(3)[..., [3, 0, 1]])
    assert np.array_equal(selected.image(3), everything.image(3)[..., 1])
    assert (chosen.has_colours, set(chosen.channels), set(single.channels)) == (False, {3}, {1})
    assert len({index.content[3], chosen.content[3], single.content[3]}) == 3
    assert len({file_contents(index.content[3])[0] for index in (index, chosen, single)}) == 1


def test_resized_modalities_of_the_decathlon_are_the_selected_ones(tmp_path: Path) -> None:
    root, image = write_decathlon(tmp_path / "data", cases=1), ImageSettings(size=32, channels=1)
    for name in ("T1w", "T2w"):
        source = open_source(NnunetSettings(root=root, channels=(name,)))
        source.index(tmp_path / "cache", fits=[image])
        fitted = source.fitted(3, image)
        assert fitted is not None
        assert np.array_equal(fitted[0], fit_image(source.image(3), image))


def three_dimensions(root: Path) -> None:
    write_nifti(root / "imagesTr" / "BRATS_000.nii.gz", ct_volume(0)[0], orientation="RAS")


def fewer_channels(root: Path) -> None:
    write_nifti(root / "imagesTr" / "BRATS_000.nii.gz", np.ones((*SHAPE, 3), np.float32), orientation="RAS")


def label_of_four_dimensions(root: Path) -> None:
    write_nifti(root / "labelsTr" / "BRATS_000.nii.gz", np.ones((*SHAPE, 4), np.uint8), orientation="RAS")


def version_2(root: Path) -> None:
    names = {str(number): name for number, name in enumerate(CHANNELS)}
    write_description(root, description(1, channel_names=names))


DECATHLON: dict[Callable[[Path], None], str] = {
    three_dimensions: r"BRATS_000.nii.gz has 3 dimensions \(40 x 32 x 8\); allowed: 4, of which the last are the 4",
    fewer_channels: r"BRATS_000.nii.gz has 4 dimensions \(40 x 32 x 8 x 3\); allowed: 4, of which the last are the 4",
    label_of_four_dimensions: r"labelsTr/BRATS_000.nii.gz has 4 dimensions .*; allowed: 3, one volume",
    version_2: "BRATS_000.nii.gz names no channel; allowed: BRATS_000_0000.nii.gz",
}


@pytest.mark.parametrize("change", DECATHLON, ids=lambda change: change.__name__)
def test_a_number_of_dimensions_that_differs_from_the_description_is_refused_in_one_line(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = write_decathlon(tmp_path / "data", cases=1)
    change(root)
    assert re.search(DECATHLON[change], only_error(root))


@pytest.mark.parametrize("colour", [False, True])
def test_images_of_2d_are_single_images(tmp_path: Path, colour: bool) -> None:
    source, index = open_data(write_nnunet_2d(tmp_path / "data", colour=colour))
    assert index.ids == [f"cell_{number:03d}" for number in range(4)]
    assert index.volumes == ()
    assert source.image(0).ndim == (3 if colour else 2)
    assert not check(index)
    if colour:
        with pytest.raises(DataError, match="channels is R, but all colours are in one file"):
            open_data(tmp_path / "data", channels=["R"])


@pytest.mark.parametrize(
    ("pages", "axis", "expected"),
    [(5, None, (5.0, 0.7, 0.6)), (5, 1, (0.7, 5.0, 0.6)), (5, 0, (0.6, 5.0, 0.7)), (0, None, (0.7, 0.6))],
)
def test_json_files_beside_tiff_files_state_the_spacing(
    tmp_path: Path, pages: int, axis: int | None, expected: tuple[float, ...]
) -> None:
    _, index = open_data(write_nnunet_tiff(tmp_path / "data", pages=pages), axis=axis)
    assert set(index.spacings) == {expected}
    assert index.has_spacing
    assert not check(index)


def test_another_spacing_beside_a_tiff_file_changes_the_content(tmp_path: Path) -> None:
    _, unknown = open_data(write_nnunet_tiff(tmp_path / "data", spacing=None))
    _, first = open_data(write_nnunet_tiff(tmp_path / "data"))
    _, second = open_data(write_nnunet_tiff(tmp_path / "data", spacing=(5.0, 0.7, 0.7)))
    assert unknown.spacings == ()
    assert len({unknown.content[0], first.content[0], second.content[0]}) == 3
    assert len({file_contents(index.content[0])[0] for index in (unknown, first, second)}) == 1


@pytest.mark.parametrize(
    "spacing",
    [[0, 1, 1], [1, 1], [1, 1, 1, 1], ["1", 1, 1], 5, [1, 1, float("nan")], [1, 1, 10**400], [True, 1, 1], {}],
)
def test_a_malformed_spacing_is_refused_in_one_line(tmp_path: Path, spacing: object) -> None:
    _, index = open_data(write_nnunet_tiff(tmp_path / "data", cases=1, spacing=spacing))
    (message,) = [finding.message for finding in check(index) if finding.severity == "error"]
    assert re.search(r"(imagesTr/cell_000.json: spacing is .*|two numbers); allowed: three", message)
    assert index.spacings == ()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "", '{"spacing": ' + "9" * 5000 + "}", "\xff"])
def test_a_spacing_file_that_is_not_json_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    root = write_nnunet_tiff(tmp_path / "data", cases=1)
    (root / "imagesTr" / "cell_000.json").write_text(text, encoding="latin-1")
    (message,) = [finding.message for finding in check(open_data(root)[1]) if finding.severity == "error"]
    assert re.search(r"imagesTr/cell_000.json (is no JSON|line 1 is not UTF-8).*; allowed: ", message)
    assert "\n" not in message


def test_image_and_label_state_the_same_spacing(tmp_path: Path) -> None:
    root = write_nnunet_tiff(tmp_path / "data", cases=1)
    (root / "labelsTr" / "cell_000.json").write_text('{"spacing": [5, 0.7, 0.9]}')
    (message,) = [finding.message for finding in check(open_data(root)[1]) if finding.severity == "error"]
    assert "labelsTr/cell_000.json states the spacing [5.0, 0.7, 0.9]; allowed: [5.0, 0.7, 0.6], as imagesTr" in message


def test_folds_of_nnunet_are_official_validation(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=3, tests=0)
    folds = [{"train": ["brain_000", "brain_001"], "val": ["brain_002"]}]
    (root / "splits_final.json").write_text(json.dumps(folds))
    _, index = open_data(root, fold=0)
    assert {index.volumes[row] for row, part in enumerate(index.official) if part == "validation"} == {"brain_002"}
    for changed, message in (
        ({"train": ["brain_000"], "val": ["brain_000"]}, "has brain_000 in `train` and in `val`"),
        ({"train": ["brain_000"], "val": ["brain_009"]}, "names brain_009"),
    ):
        (root / "splits_final.json").write_text(json.dumps([changed]))
        with pytest.raises(DataError, match=message):
            open_data(root, fold=0)
    with pytest.raises(DataError, match="has 1 folds; allowed for `fold`: 0 to 0"):
        open_data(root, fold=1)


DESCRIPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "number of cases": ({"numTraining": 7}, "numTraining is 7, but labelsTr has 2 files"),
    "number as text": ({"numTraining": "2"}, 'numTraining is "2"; allowed: the number of files'),
    "gap": ({"labels": {"background": 0, "a": 1, "b": 3}}, "the labels are 1, 3; allowed: 1, 2, ... without gaps"),
    "background": ({"labels": {"background": 1, "a": 2}}, "the label 'background' is 1; allowed: 0"),
    "no background": ({"labels": {"a": 1}}, "the label 'background' is missing; allowed: 0"),
    "only background": ({"labels": {"background": 0}}, "has only the background"),
    "same number": ({"labels": {"background": 0, "a": 1, "b": 1}}, "two labels are 1; allowed: different numbers"),
    "text": ({"labels": {"background": 0, "a": "1"}}, "label 'a' is \"1\"; allowed: a whole number"),
    "no labels": ({"labels": None}, "has no labels"),
    "ignore": ({"labels": {"background": 0, "a": 1, "ignore": 9}}, "'ignore' is 9; allowed: 2, the number after"),
    "channels": ({"channel_names": {"1": "CT"}}, "channel_names has the numbers 1; allowed: 0"),
    "no channels": ({"channel_names": None}, "has no channel_names"),
    "fewer channels": ({"channel_names": {"0": "CT"}}, "is of channel 1, which dataset.json lacks; allowed: 0 to 0"),
    "ending": ({"file_ending": ".nii"}, r"does not end in .nii, as dataset.json says \(10 such files\)"),
    "unknown ending": ({"file_ending": "nii.gz"}, 'file_ending is "nii.gz"; allowed: .bmp'),
    "files": ({"dataset": {}}, "lists its files under `dataset`"),
}  # fmt: skip


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_faults_of_the_description_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0)
    changes, message = DESCRIPTIONS[name]
    write_description(root, description(2, **changes))
    with pytest.raises(DataError, match=message) as caught:
        open_data(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", "is no JSON object"), (None, "cannot be read"), ("[" * 100_000, "nested too deeply")],
)
def test_an_unreadable_description_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    root = write_nnunet(tmp_path / "data", cases=1, tests=0)
    (root / "dataset.json").unlink() if text is None else (root / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_data(root)


def remove_channel(root: Path) -> None:
    (root / "imagesTr" / "brain_001_0002.nii.gz").unlink()


def remove_image(root: Path) -> None:
    for channel in range(len(CHANNELS)):
        (root / "imagesTr" / f"brain_001_{channel:04d}.nii.gz").unlink()


def rename_channel(root: Path) -> None:
    path = root / "imagesTr" / "brain_001_0002.nii.gz"
    path.rename(path.with_name("brain_001_t1.nii.gz"))


def shrink_channel(root: Path) -> None:
    write_nifti(root / "imagesTr" / "brain_001_0002.nii.gz", np.ones((40, 32, 6), np.float32), orientation="RAS")


def move_channel(root: Path) -> None:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    write_nifti(root / "imagesTr" / "brain_001_0002.nii.gz", values, orientation="RAS", origin=(0, 9, 0))


def add_label(root: Path) -> None:
    write_nifti(root / "labelsTr" / "brain_001.nii.gz", np.full(SHAPE, 3, np.uint8), orientation="RAS")


def remove_folder(root: Path) -> None:
    for path in (root / "labelsTr").iterdir():
        path.unlink()
    (root / "labelsTr").rmdir()


FILES: dict[Callable[[Path], None], str] = {
    remove_channel: "imagesTr/brain_001_0002.nii.gz is missing, channel 't1gd'",
    remove_image: r"labelsTr/brain_001.nii.gz has no image \(1 such labels\); allowed: imagesTr/brain_001_0000",
    rename_channel: "imagesTr/brain_001_t1.nii.gz names no channel",
    shrink_channel: "brain_001_0002.nii.gz has 6 slices; allowed: 8 slices",
    move_channel: "brain_001_0002.nii.gz lies up to 9 mm from the voxels of its image",
    add_label: "holds the class id 3; allowed: 0 .background. to 2; correct the mask or add the class to dataset.json$",
    remove_folder: "has no folder labelsTr",
}


@pytest.mark.parametrize("change", FILES, ids=lambda change: change.__name__)
def test_faults_of_files_are_reported_in_one_line(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0)
    change(root)
    assert re.search(FILES[change], only_error(root))


def only_error(root: Path) -> str:
    try:
        _, index = open_data(root)
    except DataError as error:
        return str(error)
    (message,) = [finding.message for finding in check(index) if finding.severity == "error"]
    return message


def test_a_missing_label_is_a_warning(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path / "data", cases=2, tests=0)
    (root / "labelsTr" / "brain_001.nii.gz").unlink()
    write_description(root, description(1))
    (finding,) = check(open_data(root)[1])
    assert finding.severity == "warning"
    assert "its label file labelsTr/brain_001.nii.gz is missing" in finding.message
