"""Volumes in the `folder` layout: a row of the index for each slice."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom.sequence import Sequence as DicomSequence

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.loading.native import native_images
from datasets.loading.prepare import prepared
from datasets.loading.truth import truth
from datasets.settings import FileList, ImageSettings, SplitSettings, VolumeSettings
from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from datasets.sources.common import files
from datasets.splits.assignment import fingerprint, target_split
from tests.support.dicom import plane, write_dicom
from tests.support.folder import opened, write_folder
from tests.support.pictures import picture, save
from tests.support.volumes import SHAPE, ct_volume, write_ct_folder, write_nifti, write_stack

SLICES = SHAPE[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_ct_folder(tmp_path / "data", 3)


def messages(index: Index) -> list[str]:
    return [finding.message for finding in check(index)]


def test_a_row_for_each_slice_in_order(root: Path) -> None:
    source, index = opened(root)
    assert index.ids == [f"ct{volume}/{number:03d}" for volume in range(3) for number in range(SLICES)]
    assert index.volumes == [f"ct{volume}" for volume in range(3) for _ in range(SLICES)]
    assert len(set(index.patients)) == 3
    assert set(index.spacings) == {(5.0, 1.5, 1.5)}
    assert (set(index.heights), set(index.widths), set(index.channels)) == ({SHAPE[1]}, {SHAPE[0]}, {1})
    ids = ct_volume(1)[1]
    row = index.ids.index("ct1/003")
    assert np.array_equal(source.masks(row), ids[:, :, 3].T)
    assert source.image(row).shape == (SHAPE[1], SHAPE[0])
    assert index.shows(row) == {"organ", "lesion"}
    assert not index.shows(index.ids.index("ct1/000"))
    assert not check(index)


def test_a_table_of_patients_refers_to_volumes(root: Path) -> None:
    (root / "cases.csv").write_text("image,patient\nct0.nii.gz,a\nct1,a\nct2,b\n")
    _, index = opened(root)
    assert Counter(patient.rpartition("/")[2] for patient in index.patients) == {"a": 2 * SLICES, "b": SLICES}


def test_single_images_and_volumes_can_be_mixed(root: Path) -> None:
    save(picture(0), root / "images" / "x.png")
    _, index = opened(root)
    assert (index.ids[-1], index.volumes[-1], index.spacings[-1]) == ("x", "", ())


def test_data_without_volumes_have_unchanged_columns(tmp_path: Path) -> None:
    _, index = opened(write_folder(tmp_path / "data"))
    assert (index.volumes, index.spacings, index.excluded_from_training) == ((), (), ())


def test_masks_of_single_classes_can_be_volumes(root: Path) -> None:
    (root / "classes.txt").unlink()
    for number in range(3):
        ids = ct_volume(number)[1]
        (root / "masks" / f"ct{number}.nii.gz").unlink()
        for name, mask in (("organ", ids > 0), ("lesion", ids == 2)):
            write_nifti(root / "masks" / name / f"ct{number}.nii", mask.astype(np.uint8), orientation="RAS")
    source, index = opened(root)
    assert index.overlapping
    ids = ct_volume(0)[1][:, :, 4].T
    assert np.array_equal(source.masks(4), np.stack([ids == 2, ids > 0]))


def test_stacks_of_pages_and_frames_have_masks_in_stacks(tmp_path: Path) -> None:
    pages = np.stack([picture(number) for number in range(4)])
    write_stack(tmp_path / "data" / "images" / "em.tif", pages)
    write_dicom(tmp_path / "data" / "images" / "us.dcm", pages.reshape(-1, 64), bits=8, Rows=48, NumberOfFrames=4)
    for name in ("em", "us"):
        write_stack(tmp_path / "data" / "masks" / f"{name}.tif", (pages > 150).astype(np.uint8))
    source, index = opened(tmp_path / "data")
    assert len(index) == 8
    assert not any(map(index.fault, range(8)))
    for row in range(8):
        assert np.array_equal(source.image(row), pages[row % 4])
        assert np.array_equal(source.masks(row), pages[row % 4] > 150)


def test_unordered_frames_are_sorted_with_the_pages_of_their_mask(tmp_path: Path) -> None:
    positions = (0, 6, 3, 9)
    pages = np.stack([picture(number) for number in range(4)])
    write_dicom(
        tmp_path / "data" / "images" / "mr.dcm", pages.reshape(-1, 64), bits=8, Rows=48, NumberOfFrames=4,
        PixelSpacing=[1, 1], PerFrameFunctionalGroupsSequence=DicomSequence([plane(p) for p in positions]),
    )  # fmt: skip
    masks = (pages > 150).astype(np.uint8)
    masks[1] = 0
    write_stack(tmp_path / "data" / "masks" / "mr.tif", masks)
    source, index = opened(tmp_path / "data")
    assert index.ids == [f"mr/{number:03d}" for number in range(4)]
    assert set(index.spacings) == {(3.0, 1.0, 1.0)}
    for row, frame in enumerate((0, 2, 1, 3)):
        assert np.array_equal(source.image(row), pages[frame])
        assert np.array_equal(source.masks(row), masks[frame])
    assert [bool(index.shows(row)) for row in range(4)] == [True, True, False, True]
    (message,) = messages(index)
    assert "mr" in message
    assert "are not stored in the order of their positions" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origin": (1.0, 0.0, 0.0)}, "lies up to 1 mm from the voxels of its image images/ct0.nii.gz"),
        ({"spacing": (1.5, 1.5, 5.2)}, "lies up to 7.8 mm from the voxels"),
    ],
)
def test_a_mask_at_another_position_is_refused_in_one_line(
    root: Path, options: dict[str, tuple[float, ...]], message: str
) -> None:
    write_nifti(root / "masks" / "ct0.nii.gz", ct_volume(0)[1], orientation="RAS", **options)
    _, index = opened(root)
    (reported,) = messages(index)
    assert message in reported
    assert [bool(index.fault(row)) for row in range(len(index))] == [True] * SLICES + [False] * 2 * SLICES


def test_rounding_of_an_affine_is_not_a_fault(root: Path) -> None:
    write_nifti(root / "masks" / "ct0.nii.gz", ct_volume(0)[1], orientation="RAS", origin=(0.01, 0, 0))
    assert not messages(opened(root)[1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 32, 7), "has 7 slices; allowed: 8 slices, as its image"),
        ((40, 30, 8), "has 40 x 30 pixels; allowed: 40 x 32"),
    ],
)
def test_a_mask_of_another_shape_is_refused_in_one_line(root: Path, shape: tuple[int, ...], message: str) -> None:
    ids = np.zeros(shape, np.uint8)
    ids[10:20, 10:20] = 1
    write_nifti(root / "masks" / "ct0.nii.gz", ids, orientation="LPS")
    write_nifti(root / "images" / "ct0.nii.gz", ct_volume(0)[0], orientation="LPS")
    (reported,) = messages(opened(root)[1])
    assert message in reported


def test_a_mask_without_a_position_does_not_match_an_image_with_one(root: Path) -> None:
    (root / "masks" / "ct0.nii.gz").unlink()
    write_stack(root / "masks" / "ct0.tif", ct_volume(0)[1].transpose(2, 1, 0))
    (message,) = messages(opened(root)[1])
    assert "masks/ct0.tif states no position in space, unlike its image" in message


def test_an_unreadable_volume_is_one_row_with_a_fault(root: Path) -> None:
    (root / "images" / "ct0.nii.gz").write_bytes(b"no volume")
    _, index = opened(root)
    assert index.ids[0] == "ct0"
    (message,) = messages(index)
    assert "ct0.nii.gz cannot be decoded" in message


def test_boxes_of_a_volume_without_a_slice_are_refused(root: Path) -> None:
    (root / "boxes.csv").write_text("image,x,y,width,height,label\nct0,1,1,5,5,organ\n")
    (message,) = messages(opened(root)[1])
    assert "ct0 is a volume and has boxes, which name no slice" in message


def test_only_an_empty_volume_causes_a_warning_and_not_its_slices(root: Path) -> None:
    write_nifti(root / "masks" / "ct0.nii.gz", np.zeros(SHAPE, np.uint8), orientation="RAS")
    (message,) = messages(opened(root)[1])
    assert "its masks are empty" in message


def test_a_repeated_volume_causes_one_warning(root: Path) -> None:
    (root / "images" / "copy.nii.gz").write_bytes((root / "images" / "ct0.nii.gz").read_bytes())
    (message,) = messages(opened(root)[1])
    assert "copy/000, ct0/000 are the same file" in message


def test_volumes_sliced_along_another_axis_have_other_content(root: Path) -> None:
    rows = range(3 * SLICES)
    _, axial = opened(root)
    _, same = opened(root, axis=2)
    _, coronal = opened(root, axis=1)
    assert len(coronal) == 3 * SHAPE[1]
    assert not set(axial.content) & set(coronal.content)
    assert not set(axial.annotation_digests["masks"]) & set(coronal.annotation_digests["masks"])
    assert fingerprint(axial, rows, ["masks"]) == fingerprint(same, rows, ["masks"])


def test_another_window_changes_the_content_and_not_the_masks(root: Path) -> None:
    _, default = opened(root)
    source, soft = opened(root, window=[-160, 240])
    assert not set(default.content) & set(soft.content)
    assert default.annotation_digests["masks"] == soft.annotation_digests["masks"]
    values = ct_volume(0)[0][:, :, 4].T
    assert np.abs(source.image(4) - np.clip((values + 160) / 400, 0, 1) * 255).max() <= 0.5 + 1e-9


def test_a_window_is_a_range() -> None:
    with pytest.raises(ValueError, match=r"window is \[240, -160\]; allowed: the value shown as black"):
        VolumeSettings(window=(240, -160))


def test_a_changed_volume_is_detected(root: Path) -> None:
    source, index = opened(root)
    path = root / "images" / "ct0.nii.gz"
    write_nifti(path, ct_volume(9)[0], orientation="RAS")
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"ct0\.nii\.gz changed since it was indexed"):
        source.image(0)
    _, renewed = opened(root)
    assert not set(index.content[:SLICES]) & set(renewed.content[:SLICES])
    assert index.content[SLICES:] == renewed.content[SLICES:]


def test_only_the_middle_slice_has_a_perceptual_hash(root: Path) -> None:
    _, index = opened(root)
    assert [number for number, text in enumerate(index.thumbnails) if text] == [
        volume * SLICES + SLICES // 2 for volume in range(3)
    ]


def count_decoding(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    decoded: Counter[str] = Counter()
    read = files.read

    def counted(path: Path, *arguments: object) -> np.ndarray:
        decoded[f"{path.parent.name}/{path.name}"] += 1
        return read(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "read", counted)
    return decoded


def test_images_resized_while_they_are_hashed_are_not_decoded_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = count_decoding(monkeypatch)
    image = ImageSettings(size=32)
    source = open_source(FolderSettings(root=root))
    index = source.index(tmp_path / "cache", fits=[image])
    arrays = prepared(source, index, "mask", image, structure=None, cache=tmp_path / "cache")
    assert not decoded
    assert arrays.images.any(axis=(1, 2, 3)).all()


def test_a_volume_is_decoded_once_for_all_of_its_slices(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(FolderSettings(root=root))
    index = source.index(tmp_path / "cache")
    decoded = count_decoding(monkeypatch)
    native_images(source, index, "mask", ImageSettings(size=32, fit="patch"), cache=tmp_path / "cache")
    assert decoded == {f"images/ct{number}.nii.gz": 1 for number in range(3)}  # masks are cached while they are hashed
    decoded.clear()
    fresh = open_source(FolderSettings(root=root))
    reread(fresh, fresh.index(tmp_path / "cache"))
    assert decoded == {f"masks/ct{number}.nii.gz": 1 for number in range(3)}


def reread(source: Source, index: Index) -> None:
    """Read all masks without the cache of decoded files."""
    assert isinstance(source, files.FileSource)
    source._extracts = None
    true_masks = truth(source, index, "native", source._root.parent / "other")
    assert true_masks[[4]].any()


def split_of(index: Index, **settings: object) -> tuple[set[int], set[int]]:
    split = target_split(
        index, SplitSettings.model_validate(settings), annotation_kind="masks", folds=3, fold=0, seed=0, labelled=1.0,
        min_cases=100,
    )  # fmt: skip
    return set(split.labelled), set(split.test)


def test_slices_of_a_volume_are_on_one_side_of_a_split(root: Path) -> None:
    _, index = opened(root)
    training, test = split_of(index)
    assert len(test) == SLICES
    assert not {index.volumes[row] for row in training} & {index.volumes[row] for row in test}


def test_annotated_slices_are_those_of_training_only(root: Path) -> None:
    _, index = opened(root, slices="annotated")
    training, test = split_of(index)
    assert all(index.shows(row) for row in training)
    assert len(test) == SLICES
    assert len(training) < 2 * SLICES
    assert split_of(opened(root)[1])[1] == test


def test_a_list_names_volumes(root: Path, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("ct1.nii.gz\n")
    _, index = opened(root)
    chosen = SplitSettings(test=FileList(list=tmp_path / "test.txt"))
    split = target_split(
        index, chosen, annotation_kind="masks", folds=1, fold=0, seed=0, labelled=1.0, min_cases=100
    )  # fmt: skip
    assert {index.volumes[row] for row in split.test} == {"ct1"}
    assert len(split.test) == SLICES
