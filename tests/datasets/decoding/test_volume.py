"""NIfTI files, stacks of pages and frames as slices of 8 bits."""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from datasets.decoding.decode import Kind, examine, read
from datasets.decoding.nifti import read_nifti
from datasets.decoding.nifti import write_nifti as write_masks
from datasets.decoding.volume import from_slices, slice_axis, to_8_bits, to_slices
from datasets.errors import DataError
from datasets.settings import VolumeSettings
from tests.support.dicom import plane, write_dicom
from tests.support.volumes import ct_volume, write_nifti, write_stack

DEFAULT = VolumeSettings()
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SAL"])
def test_slices_are_equal_for_any_orientation_of_the_stored_volume(tmp_path: Path, orientation: str) -> None:
    ids = RANDOM.integers(0, 9, (5, 6, 7)).astype(np.uint8)
    path = write_nifti(tmp_path / "a.nii.gz", ids, orientation=orientation)
    decoded = examine(path.read_bytes(), "ids", path.name, DEFAULT)
    assert np.array_equal(decoded.pixels, ids.transpose(2, 1, 0))
    assert decoded.geometry.spacing == pytest.approx((5.0, 1.5, 1.5))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_superior_is_up_and_the_right_of_the_patient_is_on_the_left(tmp_path: Path, axis: int) -> None:
    right, front, head = (np.zeros((4, 5, 6), np.uint8) for _ in range(3))
    right[0], front[:, 0], head[:, :, -1] = 1, 1, 1  # axes to the left, posterior and superior
    marks = {}
    for name, mark in (("right", right), ("front", front), ("head", head)):
        path = write_nifti(tmp_path / f"{name}.nii", mark, orientation="RAS")
        marks[name] = read(path, "ids", VolumeSettings(axis=axis))
    if axis == 2:
        assert marks["front"][:, 0].all()
        assert marks["right"][:, :, 0].all()
        assert marks["head"][-1].all()
    else:
        assert marks["head"][:, 0].all()
        assert marks["right" if axis == 1 else "front"][:, :, 0].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_from_slices_undoes_to_slices(axis: int) -> None:
    voxels = RANDOM.integers(0, 9, (4, 5, 6))
    assert np.array_equal(from_slices(to_slices(voxels, axis), axis), voxels)


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((9, 9, 9), (1.0, 1.0, 5.0), 2), ((9, 9, 9), (1.0, 3.0, 1.0), 1), ((9, 9, 9), (4.0, 1.0, 1.0), 0),
        ((9, 9, 9), (1.0, 1.0, 1.0), 2), ((9, 9, 9), (1.0, 1.0, 0.999), 2), ((9, 9, 9), (1.0, 1.0, 0.5), 1),
        ((1, 9, 9), (1.0, 1.0, 5.0), 0), ((9, 9, 1), (1.0, 9.0, 1.0), 2), ((9, 9, 9), (), 2),
    ],
)  # fmt: skip
def test_slices_are_perpendicular_to_the_axis_of_the_largest_spacing(
    shape: tuple[int, ...], spacing: tuple[float, ...], axis: int
) -> None:
    assert slice_axis(shape, spacing, None) == axis
    assert slice_axis(shape, spacing, 1) == 1


def test_a_window_maps_its_limits_to_black_and_white() -> None:
    values = np.array([[[-2000, -160, 0, 240, 3000]]], np.int16)
    assert to_8_bits(values, (-160, 240)).tolist() == [[[0, 0, 102, 255, 255]]]


def test_without_a_window_all_slices_share_the_percentiles_of_the_volume() -> None:
    values = np.concatenate([np.arange(1000), [90000]]).reshape(7, 11, 13).astype(np.float32)
    low, high = np.sort(values.ravel())[[5, 995]]  # percentiles 0.5 and 99.5
    expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
    assert np.array_equal(to_8_bits(values, None), expected)


def test_8_bits_are_unchanged_and_values_that_are_not_finite_are_black() -> None:
    stored = RANDOM.integers(3, 90, (2, 3, 4)).astype(np.uint8)
    assert np.array_equal(to_8_bits(stored, None), stored)
    values = np.array([[[np.nan, 1, 2, np.inf]]])
    assert to_8_bits(values, (0, 2)).tolist() == [[[0, 128, 255, 0]]]


def test_a_constant_volume_is_black() -> None:
    assert not to_8_bits(np.full((2, 3, 4), 7.5), None).any()


def test_slope_and_intercept_of_a_file_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2, -10)
    nib.save(image, tmp_path / "a.nii")
    stored = nib.load(tmp_path / "a.nii").dataobj.get_unscaled()  # type: ignore[attr-defined]
    voxels = read_nifti((tmp_path / "a.nii").read_bytes()).voxels
    assert sorted(voxels.ravel()) == pytest.approx(sorted((2.0 * stored - 10).ravel()))


@pytest.mark.parametrize(
    ("voxels", "kind", "message"),
    [
        (np.full((2, 2, 2), 0.5, np.float32), "ids", "holds the number 0.5; allowed: whole numbers"),
        (np.full((2, 2, 2), 300, np.int16), "ids", "holds the id 300; allowed: 0 to 255"),
        (np.full((2, 2, 2), -1, np.int16), "ids", "holds the id -1; allowed: 0 to 255"),
        (np.full((2, 2, 2), -1, np.int16), "foreground", "holds the number -1; allowed: 0 outside"),
        (np.zeros((2, 2, 2, 3), np.int16), "image", r"has 4 dimensions \(2 x 2 x 2 x 3\); allowed: 3"),
    ],
)
def test_unsuitable_volumes_are_refused_in_one_line(
    tmp_path: Path, voxels: np.ndarray, kind: Kind, message: str
) -> None:
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "a.nii.gz", kind, DEFAULT)
    assert "\n" not in str(caught.value)


def test_whole_numbers_stored_as_floats_are_ids(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 3, np.float64), np.eye(4)), tmp_path / "a.nii.gz")
    assert (read(tmp_path / "a.nii.gz", "ids", DEFAULT) == 3).all()


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.6, 0.95])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, keep: float) -> None:
    for name in ("a.nii.gz", "a.nii"):
        path = write_nifti(tmp_path / name, ct_volume(0)[0])
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        with pytest.raises(DataError, match="cannot be decoded") as caught:
            read(path, "image", DEFAULT)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR"])
def test_masks_are_written_with_shape_and_affine_of_the_image(tmp_path: Path, orientation: str) -> None:
    values, ids = ct_volume(0)
    source = write_nifti(tmp_path / "image.nii.gz", values, orientation=orientation, origin=(3, 4, 5))
    truth = write_nifti(tmp_path / "truth.nii.gz", ids, orientation=orientation, origin=(3, 4, 5))
    slices = read(truth, "ids", VolumeSettings(axis=1))
    write_masks(slices, 1, source.read_bytes(), tmp_path / "mask.nii.gz")
    written, expected = nib.load(tmp_path / "mask.nii.gz"), nib.load(truth)
    assert np.array_equal(written.affine, expected.affine)  # type: ignore[attr-defined]
    assert np.array_equal(np.asanyarray(written.dataobj), np.asanyarray(expected.dataobj))  # type: ignore[attr-defined]
    assert written.header.get_xyzt_units()[0] == "mm"  # type: ignore[attr-defined]


def test_pages_of_a_tiff_are_slices_with_a_common_scale(tmp_path: Path) -> None:
    pages = RANDOM.integers(0, 4000, (5, 6, 7)).astype(np.uint16)
    pages[2] //= 10
    path = write_stack(tmp_path / "a.tif", pages)
    decoded = examine(path.read_bytes(), "image", path.name, DEFAULT)
    assert decoded.geometry.slices == 5
    assert np.array_equal(decoded.pixels, to_8_bits(pages, None))
    assert decoded.pixels[2].max() < 30


def test_colour_pages_are_unchanged(tmp_path: Path) -> None:
    pages = RANDOM.integers(0, 256, (3, 6, 7, 3)).astype(np.uint8)
    assert np.array_equal(read(write_stack(tmp_path / "a.tif", pages), "image", DEFAULT), pages)


def test_pages_of_masks_keep_their_ids(tmp_path: Path) -> None:
    ids = RANDOM.integers(0, 4, (3, 6, 7)).astype(np.uint8)
    path = write_stack(tmp_path / "a.tif", ids, compression="tiff_lzw")
    assert np.array_equal(read(path, "ids", DEFAULT), ids)
    assert np.array_equal(read(path, "foreground", DEFAULT), ids > 0)


def test_one_page_with_smaller_copies_is_a_single_image(tmp_path: Path) -> None:
    page = Image.fromarray(np.eye(8, dtype=np.uint8))
    reduced = page.resize((4, 4))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined]
    page.save(tmp_path / "a.tif", save_all=True, append_images=[reduced])
    decoded = examine((tmp_path / "a.tif").read_bytes(), "image", "a.tif", DEFAULT)
    assert decoded.geometry.slices == 0
    assert decoded.pixels.shape == (8, 8)


def test_pages_of_different_sizes_are_not_a_volume(tmp_path: Path) -> None:
    page = Image.fromarray(np.eye(8, dtype=np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page.resize((4, 4))])
    with pytest.raises(DataError, match=r"a.tif has pages that differ: 8 x 8 pixels \(L\) and 4 x 4 pixels \(L\)"):
        read(tmp_path / "a.tif", "image", DEFAULT)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("ImageJ=1.54f\nimages=60\nslices=60", "holds 60 images but 2 pages"),
        ("ImageJ=1.54f\nimages=2\nchannels=2\nslices=3", "is a hyperstack of 2 channels, 3 slices and 1 frames"),
    ],
)
def test_imagej_stacks_with_several_channels_or_frames_are_refused(
    tmp_path: Path, description: str, message: str
) -> None:
    path = write_stack(tmp_path / "a.tif", np.zeros((2, 4, 4), np.uint8), tiffinfo={270: description})
    with pytest.raises(DataError, match=message):
        read(path, "image", DEFAULT)


def header_of(voxels: np.ndarray, sides: tuple[float, ...], *, sform: bool = False) -> bytes:
    """Return a NIfTI file whose header states the given voxel sizes."""
    image = nib.Nifti1Image(voxels, np.diag([-2.0, -2.0, 3.0, 1.0]))
    image.header.set_sform(image.affine, code=1 if sform else 0)  # type: ignore[no-untyped-call]
    image.header.set_qform(image.affine, code=0 if sform else 1)  # type: ignore[no-untyped-call]
    data = bytearray(image.to_bytes())
    offset = 76 + 4  # of the first side (NIfTI-1.1)
    data[offset : offset + 4 * len(sides)] = np.array(sides, "<f4").tobytes()
    if not sform:
        data[254:256] = b"\0\0"  # sform_code
    return bytes(data)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("sides", [(0.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_voxels_without_size_are_refused(sides: tuple[float, ...], compressed: bool) -> None:
    data = header_of(np.ones((4, 5, 6), np.uint8), sides)
    text = " x ".join(f"{side:g}" for side in sides)
    with pytest.raises(DataError, match=f"a.nii states voxels of {text} mm; allowed: above 0; correct its pixdim"):
        examine(gzip.compress(data) if compressed else data, "image", "a.nii", DEFAULT)


def test_voxel_sizes_that_the_affine_does_not_depend_on_may_be_zero(capfd: pytest.CaptureFixture[str]) -> None:
    decoded = examine(header_of(np.ones((4, 5, 6), np.uint8), (0.0, 0.0, 0.0), sform=True), "image", "a.nii", DEFAULT)
    assert decoded.geometry.spacing == (3.0, 2.0, 2.0)
    flat = examine(header_of(np.ones((4, 5), np.uint8), (1.0, 1.0, 0.0)), "image", "a.nii", DEFAULT)
    assert flat.geometry.spacing == (1.0, 1.0, 1.0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"hello" * 100, "it has no NIfTI header"),
        (header_of(np.ones((4, 5, 6), np.uint8), (1.0, 1.0, 1.0))[:400], "could the file be damaged"),
    ],
)
def test_files_that_are_not_nifti_are_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(
        DataError, match=rf"a\.nii\.gz cannot be decoded as image \(.*{reason}.*\); allowed: a complete"
    ):
        examine(data, "image", "a.nii.gz", DEFAULT)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DataError, match=r"a\.nii has an affine matrix without three directions"):
        examine(header_of(np.ones((4, 5, 6), np.uint8), (value, 1.0, 1.0)), "image", "a.nii", DEFAULT)


def test_an_animation_is_not_a_volume(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 255)]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="has 2 pages or frames; allowed: one"):
        read(tmp_path / "a.gif", "image", DEFAULT)


def frames(path: Path, stored: np.ndarray, **tags: object) -> bytes:
    """Write (frames, height, width) as one DICOM file."""
    written = write_dicom(path, stored.reshape(-1, stored.shape[2]), Rows=stored.shape[1], NumberOfFrames=len(stored),
                          **tags)  # fmt: skip
    return written.read_bytes()


def test_frames_of_a_dicom_file_are_slices_with_spacing_and_patient(tmp_path: Path) -> None:
    stored = RANDOM.integers(0, 4000, (3, 4, 5))
    data = frames(tmp_path / "a.dcm", stored, PixelSpacing=[0.5, 0.25], SpacingBetweenSlices=2, SliceThickness=9,
                  PatientID="p1", RescaleSlope=2, RescaleIntercept=-1000)  # fmt: skip
    decoded = examine(data, "image", "a.dcm", VolumeSettings(window=(-1000, 3000)))
    assert decoded.geometry.spacing == (2.0, 0.5, 0.25)
    assert decoded.patient == "p1"
    expected = np.rint(np.clip(2.0 * stored / 4000, 0, 1) * 255)
    assert np.array_equal(decoded.pixels, expected)


def test_functional_groups_of_enhanced_files_are_read(tmp_path: Path) -> None:
    measures, values, group = Dataset(), [Dataset(), Dataset()], Dataset()
    measures.PixelSpacing, measures.SpacingBetweenSlices = [1.0, 1.0], 3.0
    group.PixelMeasuresSequence = DicomSequence([measures])
    per_frame = []
    for value, slope in zip(values, (1.0, 10.0), strict=True):
        value.RescaleSlope, value.RescaleIntercept = slope, 0.0
        part = Dataset()
        part.PixelValueTransformationSequence = DicomSequence([value])
        per_frame.append(part)
    data = frames(tmp_path / "a.dcm", np.full((2, 3, 3), 10), SharedFunctionalGroupsSequence=DicomSequence([group]),
                  PerFrameFunctionalGroupsSequence=DicomSequence(per_frame))  # fmt: skip
    decoded = examine(data, "image", "a.dcm", VolumeSettings(window=(0, 100)))
    assert decoded.geometry.spacing == (3.0, 1.0, 1.0)
    assert decoded.pixels[:, 0, 0].tolist() == [26, 255]


def placed_frames(path: Path, planes: list[Dataset], **tags: object) -> bytes:
    """Write a constant frame at each plane, with its number as value."""
    stored = np.repeat(np.arange(len(planes)), 12).reshape(-1, 3, 4)
    tags = {"PixelSpacing": [0.5, 0.25], "SpacingBetweenSlices": 7} | tags
    return frames(path, stored, bits=8, PerFrameFunctionalGroupsSequence=DicomSequence(planes), **tags)


@pytest.mark.parametrize("normal", ["axial", "oblique"])
@pytest.mark.parametrize(
    ("positions", "order"),
    [((0, 2, 4, 6), ()), ((6, 4, 2, 0), ()), ((0, 4, 2, 6), (0, 2, 1, 3)), ((3, -3, 5, -1, 1), (1, 3, 4, 0, 2))],
)
def test_frames_have_the_distance_and_the_order_of_their_positions(
    tmp_path: Path, positions: tuple[float, ...], order: tuple[int, ...], normal: str
) -> None:
    data = placed_frames(tmp_path / "a.dcm", [plane(position, normal) for position in positions])
    decoded = examine(data, "image", "a.dcm", VolumeSettings(axis=2))
    geometry = decoded.geometry
    assert geometry.spacing == pytest.approx((2.0, 0.5, 0.25))
    assert geometry.frame_order == order
    assert decoded.pixels[:, 0, 0].tolist() == list(range(len(positions)))  # frames are not reordered
    assert ("not stored in the order of their positions" in decoded.remark) == bool(order)


def changed(frame: Dataset, group: str, name: str, value: object) -> Dataset:
    setattr(frame[group][0], name, value)
    return frame


@pytest.mark.parametrize(
    ("planes", "remark"),
    [
        ([plane(0), plane(2), plane(5)], "have distances of 2 to 3 mm"),
        ([plane(0), plane(2), plane(0), plane(2)], "include several at one position"),
        ([plane(0), plane(0)], "include several at one position"),
        ([plane(0), plane(2, "oblique")], "have different orientations"),
    ],
)
def test_frames_without_a_common_distance_have_no_spacing(tmp_path: Path, planes: list[Dataset], remark: str) -> None:
    decoded = examine(placed_frames(tmp_path / "a.dcm", planes), "image", "a.dcm", DEFAULT)
    assert decoded.geometry.spacing == ()
    assert re.match(f"has frames that {remark}.*, so its spacing is unknown; allowed: ", decoded.remark)
    assert len(decoded.pixels) == len(planes)


@pytest.mark.parametrize(
    "frame",
    [
        Dataset(),
        changed(plane(2), "PlanePositionSequence", "ImagePositionPatient", [1, 2]),
        changed(plane(2), "PlanePositionSequence", "ImagePositionPatient", None),
        changed(plane(2), "PlaneOrientationSequence", "ImageOrientationPatient", None),
    ],
)
def test_without_all_positions_the_stated_distance_is_used(tmp_path: Path, frame: Dataset) -> None:
    decoded = examine(placed_frames(tmp_path / "a.dcm", [plane(0), frame]), "image", "a.dcm", DEFAULT)
    assert decoded.geometry.spacing == (7.0, 0.5, 0.25)
    assert not decoded.remark


def test_unordered_frames_are_not_resliced_along_another_axis(tmp_path: Path) -> None:
    data = placed_frames(tmp_path / "a.dcm", [plane(position) for position in (0, 4, 2)])
    with pytest.raises(DataError, match=r"would mix; allowed: slices that are frames; set `axis: 2`"):
        examine(data, "image", "a.dcm", VolumeSettings(axis=0))


def test_monochrome1_frames_are_inverted_and_padding_is_black(tmp_path: Path) -> None:
    stored = np.array([[[0, 100]], [[60, 4095]]])
    data = frames(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=4095)
    pixels = examine(data, "image", "a.dcm", VolumeSettings(window=(0, 100))).pixels
    assert pixels.tolist() == [[[255, 0]], [[102, 0]]]


def test_the_spacing_of_a_dicom_image_of_one_frame_is_known(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.eye(4), PixelSpacing=[0.2, 0.3])
    assert examine(path.read_bytes(), "image", "a.dcm").geometry.spacing == (0.2, 0.3)
